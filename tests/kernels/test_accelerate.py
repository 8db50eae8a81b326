"""Acceleration from outside: what it leaves as it was, when it serves, and when the modules compute."""

import copy
import io
import pickle
import warnings
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from stlight import STLight
from stlight.kernels import accelerate, backend_of
from stlight.kernels.compile import library
from stlight.kernels.whole_step import FlatAdam
from stlight.model import Rollout

pytestmark = pytest.mark.skipif(library("mixer.c") is None, reason="no C compiler")
NAMES = ["fused", "channels_last", "space_to_batch", "compiled"]


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


@pytest.fixture
def clip():
    return torch.rand(2, 10, 1, 8, 8)


def small(**arguments):
    return STLight(**{"hidden_dim": 8, "depth": 2} | arguments)


@pytest.fixture
def calls(monkeypatch):
    """Count the calls of PyTorch's own mixers."""
    counted = []
    original = torch.nn.Sequential.forward
    monkeypatch.setattr(torch.nn.Sequential, "forward", lambda self, x: counted.append(1) or original(self, x))
    return counted


def computed_by_modules(model, clip, calls):
    calls.clear()
    model(clip)
    return bool(calls)


def test_a_model_is_plain_until_it_is_accelerated_and_can_be_made_plain_again():
    model = small()
    assert backend_of(model) == "plain"
    assert accelerate(model) is model
    assert backend_of(model) == "fused"
    for name in NAMES:
        assert backend_of(accelerate(model, name)) == name
    assert backend_of(accelerate(model, "plain")) == "plain"
    assert "forward" not in vars(model)
    with pytest.raises(ValueError, match=r"auto, plain.*got 'fastest'"):
        accelerate(model, "fastest")


def test_other_models_stay_as_they_are():
    other = torch.nn.Linear(2, 2)
    assert backend_of(accelerate(other, "fused")) == "plain"
    rollout = accelerate(Rollout(small(), horizon_frames=20))
    assert backend_of(rollout) == "fused"

    class Changed(STLight):
        def forward(self, clip):
            return 2 * super().forward(clip)

    assert backend_of(accelerate(Changed(hidden_dim=8, depth=1))) == "plain"


@pytest.mark.parametrize("kernels", ["fused", "space_to_batch"])
def test_copies_pickles_and_state_dicts_of_an_accelerated_model(kernels, clip):
    model = small()
    names = list(model.state_dict())
    accelerate(model, kernels).eval()
    assert list(model.state_dict()) == names
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(file, weights_only=False)):
        assert backend_of(other) == kernels
        with torch.no_grad():
            expected = model(clip)
            assert torch.equal(other(clip), expected)
            # The copy computes with its own weights.
            other.mixers[0][1][0].weight.zero_()
            assert not torch.equal(other(clip), expected)
            assert torch.equal(model(clip), expected)


def test_weights_loaded_after_acceleration_are_used(clip):
    model, other = accelerate(small()).eval(), small().eval()
    with torch.no_grad():
        for assign in (False, True):
            model.load_state_dict({name: tensor.clone() for name, tensor in other.state_dict().items()}, assign=assign)
            torch.testing.assert_close(model(clip), other(clip), rtol=1e-4, atol=1e-5)


def test_modes_without_kernels_call_the_modules(clip, calls):
    model = accelerate(small())
    assert not computed_by_modules(model, clip, calls)
    with torch.no_grad():
        assert computed_by_modules(model, clip, calls)
        assert not computed_by_modules(model.eval(), clip, calls)
    assert computed_by_modules(model, clip, calls)
    with torch.autocast("cpu", torch.bfloat16):
        assert computed_by_modules(model.train(), clip, calls)
    model.mixers[1][1][2].eval()
    assert computed_by_modules(model, clip, calls)


@pytest.mark.parametrize("kernels", NAMES)
def test_hooks_are_called_and_see_what_pytorch_computes(kernels, clip):
    model, plain, seen = small(), small(), []
    plain.load_state_dict(model.state_dict())
    accelerate(model, kernels)
    hook = model.mixers[1][0].block[3].register_forward_hook(lambda module, args, output: seen.append(output))
    torch.testing.assert_close(model(clip), plain(clip))
    assert [tuple(x.shape) for x in seen] == [(2, 8, 4, 4)]
    hook.remove()
    hooked = []
    model.mixers[0].register_full_backward_hook(lambda *_: hooked.append(1))
    model(clip).sum().backward()
    assert hooked == [1]


def test_kernels_serve_again_once_hooks_are_removed(clip, calls):
    model = accelerate(small())
    hook = model.mixers[0].register_forward_pre_hook(lambda *_: None)
    assert computed_by_modules(model, clip, calls)
    hook.remove()
    assert not computed_by_modules(model, clip, calls)


def test_tracing_and_counting_see_pytorch_s_operators(clip):
    model = accelerate(small()).eval()
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


def test_a_converted_model_computes_in_its_new_precision(clip):
    model = accelerate(small())
    assert model.double()(clip.double()).dtype == torch.float64
    assert model.bfloat16()(clip.bfloat16()).dtype == torch.bfloat16
    with pytest.raises(TypeError, match="got torch.bfloat16"):
        model(clip)
    for other in (model, model.double()):
        assert backend_of(accelerate(other)) == "plain"


def strided_bias(model):
    model.mixers[0][1][0].bias.data = torch.randn(16)[::2]


def statistics_in_double(model):
    model.mixers[0][1][2].running_var = model.mixers[0][1][2].running_var.double()


def weights_of_an_optimizer_in_double(model):
    for weight in model.parameters():
        weight.data = weight.data.double()
    FlatAdam(model)


@pytest.mark.parametrize("change", [strided_bias, statistics_in_double, weights_of_an_optimizer_in_double])
def test_weights_that_the_kernels_cannot_address_are_refused_after_acceleration(change, clip):
    model = accelerate(small())
    change(model)
    with pytest.raises(TypeError, match="after a change call accelerate again"):
        model(clip)
    assert backend_of(accelerate(model)) == "plain"


def no_momentum(model):
    model.mixers[0][1][2].momentum = None


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


def large_kernel(model):
    model.mixers[0][0].block[0] = torch.nn.Conv2d(8, 8, 13, padding=6, groups=8)


def dilated_otherwise(model):
    model.mixers[1][0].block[1] = torch.nn.Conv2d(8, 8, 7, padding=(9, 12), dilation=(3, 4), groups=8)


def no_residual(model):
    model.mixers[0][0] = torch.nn.Sequential(OrderedDict(block=model.mixers[0][0].block))


def other_residual(model):
    class Residual(torch.nn.Module):
        def __init__(self, block):
            super().__init__()
            self.block = block

        def forward(self, x):
            return self.block(x) - x

    model.mixers[0][0] = Residual(model.mixers[0][0].block)


def no_mixer(model):
    model.mixers[1] = torch.nn.Identity()


def fifth_layer(model):
    model.mixers[0][0].block.append(torch.nn.Hardtanh())


CHANGES = [no_momentum, other_activation, approximate_activation, no_norm, around_the_edge, parametrised, large_kernel]
CHANGES += [dilated_otherwise, no_residual, other_residual, no_mixer, fifth_layer]


@pytest.mark.parametrize(
    ("change", "kernels"), [*((change, name) for change in CHANGES for name in NAMES), (strided_bias, "fused")]
)
def test_a_changed_model_is_computed_as_it_is(change, kernels, clip):
    model = small()
    change(model)
    expected = model(clip)
    assert backend_of(accelerate(model, kernels)) == "plain"
    assert torch.equal(model(clip), expected)
    F.mse_loss(model(clip), clip).backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("kernels", NAMES)
@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"kernel_sizes": (1, 1), "dilation": 1, "decoder": "reassemble_shuffle"},
        {"kernel_sizes": (11, 3), "dilation": 7, "overlap": 2, "skip": False},
        {"depth": 5, "patch_size": 1, "overlap": 1, "hidden_dim": 3},
    ],
)
def test_an_unchanged_model_is_served(arguments, kernels):
    assert backend_of(accelerate(small(**arguments), kernels)) == kernels
    assert backend_of(accelerate(Rollout(small(**arguments), horizon_frames=20), kernels)) == kernels


@pytest.mark.parametrize("kernels", [name for name in NAMES if name != "fused"])
def test_pytorch_s_operators_have_no_limit_of_kernel_size_or_precision(kernels):
    assert backend_of(accelerate(small(kernel_sizes=(13, 15)).double(), kernels)) == kernels


def test_choosing_a_backend_draws_no_random_numbers():
    model, before = small(), torch.get_rng_state()
    accelerate(model, "channels_last")
    assert torch.equal(torch.get_rng_state(), before)


def test_layouts_that_leave_the_numbers_in_order_are_served(clip):
    model = small()
    before = model(clip)
    model.to(memory_format=torch.channels_last)
    assert backend_of(accelerate(model)) == "fused"
    torch.testing.assert_close(model(clip), before, rtol=1e-4, atol=1e-5)
    assert backend_of(accelerate(small(hidden_dim=1, depth=1, patch_size=1, overlap=1))) == "fused"
    assert backend_of(accelerate(small(hidden_dim=1, depth=1, patch_size=1, overlap=1, kernel_sizes=(13, 3)))) == "plain"
