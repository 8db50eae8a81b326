"""The compiled kernels give what PyTorch's own operators give, judged against double precision."""

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

from stlight import STLight
from stlight.kernels import build, choose_path
from stlight.kernels.mixer import _Depthwise
from stlight.kernels.plain import plain_operators

pytestmark = pytest.mark.skipif(build.library() is None, reason="no C compiler")


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


@settings(max_examples=25, deadline=None)
@given(
    kernel_sizes=st.tuples(*[st.sampled_from([1, 3, 5, 7, 9, 11])] * 2),
    dilation=st.integers(1, 3),
    batch=st.integers(1, 5),
    size=st.tuples(st.integers(2, 9), st.integers(2, 9)),
    decoder=st.sampled_from(["shuffle_reassemble", "reassemble_shuffle"]),
    skip=st.booleans(),
)
def test_one_step_is_as_near_to_double_precision_as_pytorch_s(kernel_sizes, dilation, batch, size, decoder, skip):
    torch.manual_seed(0)
    model = STLight(hidden_dim=8, depth=3, kernel_sizes=kernel_sizes, dilation=dilation, decoder=decoder, skip=skip)
    clip, target = torch.rand(2, batch, 10, 1, 2 * size[0], 2 * size[1])
    with plain_operators():
        exact = step(model.double(), clip.double(), target.double())
        plain = step(model.float(), clip, target)
    assert choose_path(model.mixers, clip).name == "fused"
    fused = step(model, clip, target)
    assert distance(fused[0], exact[0]) < 1e-5
    for name, reference in exact[1].items():
        # Twice PyTorch's own distance, above a floor of rounding.
        assert distance(fused[1][name], reference) <= 2 * distance(plain[1][name], reference) + 1e-4, name
    for name, reference in exact[2].items():
        torch.testing.assert_close(fused[2][name].double(), reference.double(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel_sizes", [(3, 7), (11, 5)])
def test_evaluation_agrees(kernel_sizes):
    torch.manual_seed(0)
    model = STLight(hidden_dim=8, depth=3, kernel_sizes=kernel_sizes)
    clip = torch.rand(2, 10, 1, 16, 12)
    for _ in range(3):
        model(clip)
    model.eval()
    with torch.no_grad():
        assert choose_path(model.mixers, clip).name == "fused"
        fused = model(clip)
        with plain_operators():
            torch.testing.assert_close(fused, model(clip), rtol=1e-4, atol=1e-5)


def test_the_number_of_threads_changes_nothing():
    torch.manual_seed(0)
    x = torch.randn(6, 9, 8, 3, requires_grad=True)
    weights = [torch.randn(6, 1, 3, 3), torch.randn(6), torch.randn(6, 1, 7, 7), torch.randn(6), torch.randn(6), torch.randn(6)]
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        y, mean, var = _Depthwise.apply(x, *weights, 1e-5, 3)
        results.append((y, mean, var, *torch.autograd.grad(y.square().sum(), x)))
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_nan_is_passed_on():
    model = STLight(hidden_dim=8, depth=2)
    clip = torch.rand(1, 10, 1, 8, 8)
    clip[0, 0, 0, 0, 0] = torch.nan
    assert model(clip).isnan().any()


def test_what_the_kernels_cannot_serve_takes_the_plain_path():
    clip = torch.rand(1, 10, 1, 8, 8)
    model = STLight(hidden_dim=8, depth=1)
    assert choose_path(model.mixers, clip.double()).name == "plain"
    assert choose_path(STLight(hidden_dim=8, depth=1, kernel_sizes=(3, 13)).mixers, clip).name == "plain"
    assert choose_path(model.eval().mixers, clip).name == "plain"
    with torch.no_grad():
        assert choose_path(model.train().mixers, clip).name == "plain"


def set_up(model, change):
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            change(module)


def freeze(norm):
    norm.eval()


def forget_momentum(norm):
    norm.momentum = None


def hook(norm):
    norm.register_forward_hook(lambda *_: None)


@pytest.mark.parametrize("change", [freeze, forget_momentum, hook])
def test_unusual_models_take_the_plain_path_and_keep_every_gradient(change):
    model = STLight(hidden_dim=8, depth=2)
    model(torch.rand(2, 10, 1, 8, 8))
    set_up(model, change)
    clip, target = torch.rand(2, 2, 10, 1, 8, 8)
    assert choose_path(model.mixers, clip).name == "plain"
    F.mse_loss(model(clip), target).backward()
    assert all(p.grad is not None for p in model.parameters())


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


@pytest.fixture
def fresh_library(monkeypatch, tmp_path):
    """An empty cache, and a library that is looked for anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path / "stlight"
    build.library.cache_clear()


@pytest.mark.parametrize("compiler", ["", "/bin/false", "/no/such/compiler"])
def test_without_a_working_compiler_training_goes_on(compiler, fresh_library, monkeypatch, caplog):
    monkeypatch.setenv("CC", compiler)
    monkeypatch.setenv("PATH", "")
    model = STLight(hidden_dim=8, depth=1)
    assert choose_path(model.mixers, torch.rand(1)).name == "plain"
    model(torch.rand(1, 10, 1, 8, 8)).sum().backward()
    assert "plain PyTorch" in caplog.text
    assert list(fresh_library.glob("*")) == []


def test_a_compiler_with_flags_is_understood(fresh_library, monkeypatch):
    monkeypatch.setenv("CC", "gcc -g0")
    assert build.library() is not None
    assert len(list(fresh_library.glob("*.so"))) == 1


def test_a_damaged_cache_is_built_again(fresh_library):
    assert build.library() is not None
    (library,) = fresh_library.glob("*.so")
    library.unlink()
    library.write_bytes(b"not a library")
    build.library.cache_clear()
    assert build.library() is not None
    assert library.stat().st_size > 1000


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(fresh_library, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    assert build.library() is not None


def test_no_other_derivatives_are_promised():
    model = STLight(hidden_dim=8, depth=1)
    clip = torch.rand(1, 10, 1, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(model(clip).square().sum(), clip, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
