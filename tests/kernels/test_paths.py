"""Every path gives what the modules' own forward gives, judged against double precision."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from stlight import STLight
from stlight.kernels import choose_path, using
from stlight.kernels.fused import _Encoding, _encoding, _mix, _Mixer, _Parts, mixer_library
from stlight.model.stlight import stl_mixer

pytestmark = pytest.mark.skipif(mixer_library(torch.float32) is None, reason="no C compiler")
PATHS = ["fused", "space_to_batch", "channels_last"]


def step(model, clip, target):
    """Prediction, gradients and running statistics of one training step; the model is left as it was."""
    model = copy.deepcopy(model).train()
    prediction = model(clip)
    F.mse_loss(prediction, target).backward()
    # The encoder's bias goes into a BatchNorm: its gradient is zero but for rounding.
    gradients = {n: p.grad for n, p in model.named_parameters() if n != "patch_encoder.0.bias"}
    return prediction.detach(), gradients, dict(model.named_buffers())


def distance(a, b):
    return ((a.double() - b).norm() / b.norm().clamp_min(1e-12)).item()


def in_one(gradients):
    return torch.cat([g.double().flatten() for g in gradients.values()])


@pytest.mark.parametrize("path", PATHS)
@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    kernel_sizes=st.tuples(*[st.sampled_from([1, 3, 5, 7, 9, 11])] * 2),
    dilation=st.integers(1, 3),
    batch=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    decoder=st.sampled_from(["shuffle_reassemble", "reassemble_shuffle"]),
    skip=st.booleans(),
)
def test_one_step_is_as_near_to_double_precision_as_pytorch_s(path, kernel_sizes, dilation, batch, size, decoder, skip):
    assume(batch * size[0] * size[1] > 2)
    torch.manual_seed(0)
    model = STLight(hidden_dim=8, depth=3, kernel_sizes=kernel_sizes, dilation=dilation, decoder=decoder, skip=skip)
    clip, target = torch.rand(2, batch, 10, 1, 2 * size[0], 2 * size[1])
    with using("plain"):
        exact = step(model.double(), clip.double(), target.double())
        plain = step(model.float(), clip, target)
    with using(path):
        assert choose_path(model, clip).name == path
        fast = step(model, clip, target)
        in_double = step(model.double(), clip.double(), target.double())
    assert distance(in_double[0], exact[0]) < 1e-12
    assert distance(in_one(in_double[1]), in_one(exact[1])) < 1e-10
    assert distance(fast[0], exact[0]) < 1e-5
    if batch * size[0] * size[1] >= 64:
        # No further off than twice PyTorch's own distance, above a floor of rounding (BatchNorm over few values magnifies it).
        assert distance(in_one(fast[1]), in_one(exact[1])) <= 2 * distance(in_one(plain[1]), in_one(exact[1])) + 3e-6
        for name, reference in exact[1].items():
            # A single small bias may be unlucky, in PyTorch's own arrangements most.
            floor = 3e-5 if path == "fused" else 1e-4
            assert distance(fast[1][name], reference) <= 2 * distance(plain[1][name], reference) + floor, name
    for name, reference in exact[2].items():
        torch.testing.assert_close(fast[2][name].double(), reference.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 7, 3), (5, 1, 1), (1, 9, 2), (9, 3, 1)])
def test_derivatives_in_double_precision_agree_with_differences(sizes):
    torch.manual_seed(0)
    k1, k2, dilation = sizes
    x = torch.randn(3, 4, 5, 2, dtype=torch.float64, requires_grad=True)
    parts = _Parts(stl_mixer(3, k1, k2, dilation).double())

    def mixed(x, *weights):
        parts.weights = weights
        return _Mixer.apply(x, parts, *weights)

    weights = [w.detach().clone().requires_grad_() for w in parts.weights]
    assert torch.autograd.gradcheck(mixed, (x, *weights))


def test_derivatives_of_the_encoding_agree_with_differences():
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3).double()
    h = torch.randn(2, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    torch.nn.init.normal_(norm.weight)
    weights = (norm.weight, norm.bias)
    assert torch.autograd.gradcheck(lambda h, *weights: _Encoding.apply(h, *weights, norm), (h, *weights))


@pytest.mark.parametrize("kernel_sizes", [(3, 7), (11, 5)])
def test_evaluation_agrees(kernel_sizes):
    torch.manual_seed(0)
    model = STLight(hidden_dim=8, depth=3, kernel_sizes=kernel_sizes)
    clip = torch.rand(2, 10, 1, 16, 12)
    for _ in range(3):
        model(clip)
    model.eval()
    with torch.no_grad():
        assert choose_path(model, clip).name == "fused"
        fused = model(clip)
        with using("plain"):
            torch.testing.assert_close(fused, model(clip), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_number_of_threads_changes_nothing_but_in_matrix_products():
    torch.manual_seed(0)
    parts, x = _Parts(stl_mixer(6, 3, 7, 3)), torch.randn(6, 9, 8, 3)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        results.append(_mix(x, parts)[2:4])
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_one_value_per_channel_is_refused_in_training_as_batchnorm_does():
    model, clip = STLight(hidden_dim=8, depth=1), torch.rand(1, 10, 1, 2, 2)
    for path in ("fused", "plain"):
        with using(path), pytest.raises(ValueError, match="more than (one|1) value per channel"):
            model(clip)
    model.eval()
    with torch.no_grad():
        assert model(clip).shape == (1, 10, 1, 2, 2)


@torch.no_grad()
def test_gelu_is_within_the_errors_that_are_stated():
    x = torch.linspace(-30, 30, 600_001)
    # With this BatchNorm, in evaluation, the encoding is gelu alone.
    z = _encoding(x.view(1, 1, -1, 1), torch.nn.BatchNorm2d(1, eps=0.0).eval())[0].flatten()
    error = (z - F.gelu(x.double())).abs()
    assert (error / x.abs().clamp_min(1)).max() < 1e-6
    assert error[x.abs() < 5].max() < 1.5e-6
    assert error[x.abs() < 2].max() < 1e-6


def test_nan_is_passed_on():
    model = STLight(hidden_dim=8, depth=2)
    clip = torch.rand(1, 10, 1, 8, 8)
    clip[0, 0, 0, 0, 0] = torch.nan
    assert model(clip).isnan().any()


def test_what_the_kernels_cannot_serve_takes_the_plain_path():
    clip = torch.rand(1, 10, 1, 8, 8)
    model = STLight(hidden_dim=8, depth=1)
    assert choose_path(model, clip.double()).name == "plain"
    assert choose_path(model, clip.bfloat16()).name == "plain"
    assert choose_path(STLight(hidden_dim=8, depth=1, kernel_sizes=(3, 13)), clip).name == "plain"
    assert choose_path(model.eval(), clip).name == "plain"
    with torch.no_grad():
        assert choose_path(model.train(), clip).name == "plain"


def set_up(model, change):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            change(module)


def lay_out_otherwise(norm):
    norm.weight.data = torch.ones(2 * len(norm.weight))[::2]


def widen_statistics(norm):
    norm.running_var = norm.running_var.double()


def freeze(norm):
    norm.eval()


def forget_momentum(norm):
    norm.momentum = None


def hook(norm):
    norm.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("change", [freeze, forget_momentum, hook, lay_out_otherwise])
def test_unusual_models_take_the_plain_path_and_keep_every_gradient(change):
    model = STLight(hidden_dim=8, depth=2)
    model(torch.rand(2, 10, 1, 8, 8))
    set_up(model, change)
    clip, target = torch.rand(2, 2, 10, 1, 8, 8)
    assert choose_path(model, clip).name == "plain"
    F.mse_loss(model(clip), target).backward()
    assert all(p.grad is not None for p in model.parameters())


def other_activation(model):
    model.mixers[0][0].block[2] = torch.nn.ReLU()


def approximate_activation(model):
    model.mixers[1][1][1].approximate = "tanh"


def no_norm(model):
    model.mixers[0][1][2] = torch.nn.Identity()


def around_the_edge(model):
    model.mixers[0][0].block[0].padding_mode = "circular"


def parametrised(model):
    torch.nn.utils.parametrizations.weight_norm(model.mixers[0][0].block[0])


def strided_bias(model):
    model.mixers[0][1][0].bias.data = torch.randn(16)[::2]


@pytest.mark.parametrize(
    "change", [other_activation, approximate_activation, no_norm, around_the_edge, parametrised, strided_bias]
)
def test_a_changed_model_is_computed_as_it_is(change):
    torch.manual_seed(0)
    model, clip = STLight(hidden_dim=8, depth=2), torch.rand(2, 10, 1, 8, 8)
    change(model)
    assert choose_path(model, clip).name == "plain"
    with using("plain"):
        expected = model(clip)
    torch.testing.assert_close(model(clip), expected)


def test_space_to_batch_leaves_an_unusual_convolution_to_itself():
    model, clip = STLight(hidden_dim=8, depth=1).eval(), torch.rand(2, 10, 1, 32, 32)
    model.mixers[0][0].block[1].padding_mode = "circular"
    with torch.no_grad():
        with using("plain"):
            expected = model(clip)
        with using("space_to_batch"):
            torch.testing.assert_close(model(clip), expected, rtol=1e-4, atol=1e-5)


def test_one_channel_and_autocast_are_no_trap():
    model, clip = STLight(hidden_dim=1, depth=1, patch_size=1, overlap=1, kernel_sizes=(13, 3)), torch.rand(2, 10, 1, 8, 8)
    assert choose_path(model, clip).name == "plain"
    assert choose_path(STLight(hidden_dim=1, depth=1, patch_size=1, overlap=1), clip).name == "fused"
    with torch.autocast("cpu", torch.bfloat16):
        assert choose_path(STLight(hidden_dim=8, depth=1), clip).name == "plain"


def test_statistics_of_another_precision_take_the_plain_path():
    model = STLight(hidden_dim=8, depth=2)
    set_up(model, widen_statistics)
    assert choose_path(model, torch.rand(2, 10, 1, 8, 8)).name == "plain"


def test_channels_last_weights_are_served():
    torch.manual_seed(0)
    model, clip = STLight(hidden_dim=8, depth=2), torch.rand(2, 10, 1, 8, 8)
    before = model(clip)
    model.to(memory_format=torch.channels_last)
    assert choose_path(model, clip).name == "fused"
    torch.testing.assert_close(model(clip), before, rtol=1e-4, atol=1e-5)


def test_who_looks_on_sees_pytorch_s_operators():
    model, clip = STLight(hidden_dim=8, depth=2).eval(), torch.rand(2, 10, 1, 8, 8)
    with torch.no_grad():
        fused = model(clip)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            traced = torch.jit.trace(model, clip)
        torch.testing.assert_close(traced(clip), fused, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.func.vmap(model)(clip[None])[0], fused, rtol=1e-4, atol=1e-5)
        with FlopCounterMode(display=False) as counter:
            model(clip[:1])
    assert counter.get_total_flops() // 2 >= 2 * 8 * (9 + 49 + 8) * 4 * 4


def test_no_other_derivatives_are_promised():
    model = STLight(hidden_dim=8, depth=1)
    clip = torch.rand(1, 10, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(clip).square().sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
