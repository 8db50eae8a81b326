import copy

import pytest
import torch
from torch import nn

from stlight import STLight
from stlight.config import ModelConfig
from stlight.model import Rollout, build_model
from stlight.registry.dataset_specs import DATASETS


class ListingSTLight(nn.Module):
    """The supplement's listing with its errata corrected, written out plainly: the reference for our model."""

    def __init__(self, in_layers, out_layers, dim, depth, patch_size, overlapping, k1, k2, shuffle_first=True):
        super().__init__()
        self.depth, self.shuffle_first = depth, shuffle_first
        self.encoder = nn.Conv2d(
            in_layers,
            dim,
            patch_size * max(1, overlapping),
            stride=patch_size,
            padding=max(0, overlapping - 1) * patch_size // 2,
        )
        self.encoder_norm = nn.BatchNorm2d(dim)
        self.conv1 = nn.ModuleList(nn.Conv2d(dim, dim, k1, groups=dim, padding="same") for _ in range(depth))
        self.conv2 = nn.ModuleList(nn.Conv2d(dim, dim, k2, groups=dim, padding="same", dilation=3) for _ in range(depth))
        self.norm1 = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(depth))
        self.pointwise = nn.ModuleList(nn.Conv2d(dim, dim, 1) for _ in range(depth))
        self.norm2 = nn.ModuleList(nn.BatchNorm2d(dim) for _ in range(depth))
        inner, outer = (dim // patch_size**2, out_layers) if shuffle_first else (dim, out_layers * patch_size**2)
        self.reassemble = nn.Conv2d(inner, outer, 1)
        self.up = nn.PixelShuffle(patch_size)

    def forward(self, clip):
        batch, frames, channels, height, width = clip.shape
        gelu = nn.functional.gelu
        x = gelu(self.encoder_norm(self.encoder(clip.reshape(batch, frames * channels, height, width))))
        for i in range(self.depth):
            if i == self.depth // 3:
                early = x
            if i == 2 * self.depth // 3:
                x = x + early
            x = self.norm1[i](gelu(self.conv2[i](self.conv1[i](x)))) + x
            x = self.norm2[i](gelu(self.pointwise[i](x)))
        x = self.reassemble(self.up(x)) if self.shuffle_first else self.up(self.reassemble(x))
        return x.reshape(batch, -1, channels, height, width)


@pytest.mark.parametrize("shuffle_first", [True, False])
@pytest.mark.parametrize(
    ("patch_size", "overlap", "kernel_sizes", "depth"), [(2, 2, (3, 7), 4), (2, 1, (5, 3), 3), (1, 0, (7, 1), 2)]
)
def test_equals_the_corrected_listing(shuffle_first, patch_size, overlap, kernel_sizes, depth):
    torch.manual_seed(1)
    reference = ListingSTLight(3 * 2, 5 * 2, 16, depth, patch_size, overlap, *kernel_sizes, shuffle_first)
    model = STLight(
        context_frames=3,
        horizon_frames=5,
        channels=2,
        hidden_dim=16,
        depth=depth,
        patch_size=patch_size,
        overlap=overlap,
        kernel_sizes=kernel_sizes,
        decoder="shuffle_reassemble" if shuffle_first else "reassemble_shuffle",
    )
    ours = [(m.weight, m.bias) for m in model.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)]
    theirs = [reference.encoder, reference.encoder_norm]
    for i in range(depth):
        theirs += [reference.conv1[i], reference.conv2[i], reference.norm1[i], reference.pointwise[i], reference.norm2[i]]
    theirs += [reference.reassemble]
    with torch.no_grad():
        for (weight, bias), module in zip(ours, theirs, strict=True):
            weight.copy_(module.weight)
            bias.copy_(module.bias)
    clip = torch.rand(2, 3, 2, 8, 12)
    torch.testing.assert_close(model(clip), reference(clip), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.eval()(clip), reference.eval()(clip), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("overlap", "parameters"), [(0, 32_879_710), (1, 32_879_710), (2, 33_047_710)])
def test_stlight_l_has_the_known_number_of_parameters(overlap, parameters):
    with torch.device("meta"):
        model = STLight(overlap=overlap)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize(("parts", "first", "second"), [(3, 2, 4), (5, 1, 4)])
def test_skip_joins_the_inputs_of_two_blocks(parts, first, second):
    torch.manual_seed(0)
    with_skip = STLight(hidden_dim=8, depth=6, horizon_frames=2, skip_parts=parts).eval()
    without = STLight(hidden_dim=8, depth=6, horizon_frames=2, skip=False).eval()
    without.load_state_dict(with_skip.state_dict())
    inputs = {}
    for i in (first, second):
        with_skip.mixers[i].register_forward_pre_hook(lambda _, args, i=i: inputs.__setitem__(i, args[0]))
    output_of_3 = []
    with_skip.mixers[3].register_forward_hook(lambda _, args, output: output_of_3.append(output))
    clip = torch.rand(1, 10, 1, 8, 8)
    assert not torch.allclose(with_skip(clip), without(clip))
    torch.testing.assert_close(inputs[second], output_of_3[0] + inputs[first])


def test_kaiming_uniform_is_pytorch_s_default():
    torch.manual_seed(3)
    model = STLight(hidden_dim=8, depth=1, initialization="kaiming_uniform")
    torch.manual_seed(3)
    encoder = nn.Conv2d(10, 8, 2, 2)
    assert torch.equal(model.patch_encoder[0].weight, encoder.weight)
    assert torch.equal(model.patch_encoder[0].bias, encoder.bias)


@pytest.mark.parametrize("scheme", ["kaiming_normal", "hybrid"])
def test_listing_1_gives_normal_weights_and_no_bias(scheme):
    torch.manual_seed(0)
    model = STLight(hidden_dim=400, depth=1, initialization=scheme)
    for convolution in (m for m in model.modules() if isinstance(m, nn.Conv2d)):
        fan_out = convolution.weight.shape[0] * convolution.weight[0, 0].numel()
        by_listing = convolution is not model.patch_reassemble or scheme == "kaiming_normal"
        if by_listing:
            assert convolution.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1)
            assert not convolution.bias.any()
        else:
            # PyTorch's default: uniform within 1/sqrt(fan_in), the bias too.
            assert convolution.weight.abs().max() <= (1 / 100) ** 0.5
            assert convolution.bias.any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hidden_dim": 1401}, "hidden_dim must be divisible by patch_size² = 4.*got 1401.*try 1400 or 1404"),
        ({"hidden_dim": 0}, "hidden_dim must be an integer of at least 1, got 0"),
        ({"hidden_dim": 8.0}, "hidden_dim must be an integer"),
        ({"kernel_sizes": (3, 4)}, r"kernel_sizes \(k2\) must be odd, got 4"),
        ({"kernel_sizes": (3,)}, "two odd integers"),
        ({"depth": 0}, "depth must be an integer of at least 1, got 0"),
        ({"dilation": 0}, "dilation"),
        ({"overlap": -1}, "overlap must be an integer of at least 0"),
        ({"patch_size": 3, "hidden_dim": 9, "overlap": 2}, "overlap must be odd.*patch_size 3"),
        ({"decoder": "both"}, "decoder must be one of shuffle_reassemble, reassemble_shuffle, got 'both'"),
        ({"initialization": "zeros"}, "initialization must be one of kaiming_uniform.*got 'zeros'"),
        ({"skip_parts": 2}, "skip_parts must be an integer of at least 3, got 2"),
        ({"channels": 0}, "channels must be an integer of at least 1"),
    ],
)
def test_wrong_arguments_are_named_with_what_would_be_right(arguments, words):
    with pytest.raises(ValueError, match=words):
        STLight(**arguments)


def test_wrong_clips_are_named():
    model = STLight(hidden_dim=4, depth=1)
    with pytest.raises(ValueError, match=r"\(B, 10, 1, H, W\), got \(1, 9, 1, 8, 8\)"):
        model(torch.zeros(1, 9, 1, 8, 8))
    with pytest.raises(ValueError, match="frame size must be divisible by patch_size 2, got 7x8"):
        model(torch.zeros(1, 10, 1, 7, 8))


def test_reassemble_shuffle_takes_widths_that_patches_do_not_divide():
    assert STLight(hidden_dim=7, depth=1, decoder="reassemble_shuffle")(torch.zeros(1, 10, 1, 8, 8)).shape == (1, 10, 1, 8, 8)


def test_weights_come_from_the_seed_alone():
    config, shape = ModelConfig(hidden_dim=8, depth=2), DATASETS["mmnist"].shape
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = build_model(config, shape, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    again, other = build_model(config, shape, seed=5).state_dict(), build_model(config, shape, seed=6).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["patch_encoder.0.weight"], other["patch_encoder.0.weight"])


def test_rollout_feeds_predictions_back():
    shape = DATASETS["kth"].shape._replace(height=8, width=8)
    model = build_model(ModelConfig(hidden_dim=8, depth=1, prediction="rollout"), shape).eval()
    assert isinstance(model, Rollout)
    clip = torch.rand(2, 10, 1, 8, 8)
    prediction = model(clip)
    first = model.model(clip)
    assert prediction.shape == (2, 20, 1, 8, 8)
    torch.testing.assert_close(prediction, torch.cat([first, model.model(first)], 1))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_cpu():
    model = STLight(hidden_dim=16, depth=3).eval()
    clip = torch.rand(2, 10, 1, 16, 16)
    on_gpu = copy.deepcopy(model).cuda()(clip.cuda()).cpu()
    torch.testing.assert_close(on_gpu, model(clip), rtol=1e-3, atol=1e-4)
