"""Every backend gives what the modules' own forward gives, judged against double precision."""

import copy

import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from stlight import STLight
from stlight.kernels import accelerate, backend_of
from stlight.kernels.compile import library
from stlight.kernels.fused import FusedBackend, _Encoder, _own_product
from stlight.kernels.stages import Stages, call
from stlight.model.stlight import stl_mixer

pytestmark = pytest.mark.skipif(library("mixer.c") is None, reason="no C compiler")


def step(model, kernels, clip, target):
    """Prediction, gradients and running statistics of one training step; the model is left as it was."""
    model = accelerate(copy.deepcopy(model).train(), kernels)
    assert backend_of(model) == kernels
    prediction = model(clip)
    F.mse_loss(prediction, target).backward()
    # The encoder's bias goes into a BatchNorm: its gradient is zero but for rounding.
    gradients = {n: p.grad for n, p in model.named_parameters() if n != "patch_encoder.0.bias"}
    return prediction.detach(), gradients, dict(model.named_buffers())


def distance(a, b):
    return ((a.double() - b).norm() / b.norm().clamp_min(1e-12)).item()


def encoding(norm):
    """BatchNorm and GELU of convolved frames (C, H, W, B)."""
    return Stages([_Encoder(torch.nn.Sequential(torch.nn.Identity(), norm, torch.nn.GELU()), convolved=True)])


def in_one(gradients):
    return torch.cat([g.double().flatten() for g in gradients.values()])


@pytest.mark.parametrize("kernels", ["fused", "space_to_batch", "channels_last"])
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    kernel_sizes=st.tuples(*[st.sampled_from([1, 3, 5, 7, 9, 11])] * 2),
    dilation=st.integers(1, 3),
    batch=st.integers(1, 5),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    decoder=st.sampled_from(["shuffle_reassemble", "reassemble_shuffle"]),
    skip=st.booleans(),
    depth=st.integers(1, 4),
)
def test_one_step_is_as_near_to_double_precision_as_pytorch_s(
    kernels, kernel_sizes, dilation, batch, size, decoder, skip, depth
):
    assume(batch * size[0] * size[1] > 2)
    torch.manual_seed(0)
    model = STLight(hidden_dim=8, depth=depth, kernel_sizes=kernel_sizes, dilation=dilation, decoder=decoder, skip=skip)
    clip, target = torch.rand(2, batch, 10, 1, 2 * size[0], 2 * size[1])
    exact = step(model.double(), "plain", clip.double(), target.double())
    plain, fast = (step(model.float(), name, clip, target) for name in ("plain", kernels))
    assert distance(fast[0], exact[0]) < 1e-5
    if batch * size[0] * size[1] >= 64:
        # No further off than twice PyTorch's own distance, above a floor of rounding (BatchNorm over few values magnifies it).
        assert distance(in_one(fast[1]), in_one(exact[1])) <= 2 * distance(in_one(plain[1]), in_one(exact[1])) + 3e-6
        for name, reference in exact[1].items():
            # A single small bias may be unlucky, in PyTorch's own arrangements most.
            floor = 3e-5 if kernels == "fused" else 1e-4
            assert distance(fast[1][name], reference) <= 2 * distance(plain[1][name], reference) + floor, name
    for name, reference in exact[2].items():
        torch.testing.assert_close(fast[2][name].double(), reference.double(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("sizes", [(3, 7, 3), (5, 1, 1), (1, 9, 2), (9, 3, 1), (11, 11, 3)])
def test_every_gradient_of_a_mixer_on_a_small_plane(sizes):
    torch.manual_seed(0)
    mixer, x_BCHW, factors = stl_mixer(3, *sizes), torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    exact, x = copy.deepcopy(mixer).double(), x_BCHW.permute(1, 2, 3, 0).contiguous().requires_grad_()
    reference = x_BCHW.double().requires_grad_()
    expected = torch.autograd.grad((exact(reference) * factors).sum(), [reference, *exact.parameters()])
    plain = torch.autograd.grad((mixer(x_BCHW.requires_grad_()) * factors).sum(), [x_BCHW, *mixer.parameters()])
    found = torch.autograd.grad((FusedBackend().mixer(mixer)(x).permute(3, 0, 1, 2) * factors).sum(), [x, *mixer.parameters()])
    for gradient, other, exactly in zip((found[0].permute(3, 0, 1, 2), *found[1:]), plain, expected, strict=True):
        # The sum that is a bias's gradient almost cancels on so few values, in PyTorch as here.
        assert distance(gradient, exactly) <= 2 * distance(other, exactly) + 3e-5


def test_every_gradient_if_batchnorms_scale_by_almost_nothing():
    # What a BatchNorm took is computed from its output, which a small scale hides.
    torch.manual_seed(0)
    model, (clip, target) = STLight(hidden_dim=8, depth=3), torch.rand(2, 4, 10, 1, 16, 16)
    for norm in (module for module in model.mixers.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        norm.weight.data = torch.tensor([0.0, 1e-4, -1e-3, 0.01, -0.09, 0.11, 1.0, 2.0])
        torch.nn.init.normal_(norm.bias)
    exact = step(model.double(), "plain", clip.double(), target.double())[1]
    fast = step(model.float(), "fused", clip, target)[1]
    # Most gradients are differences of nearly equal numbers here: PyTorch's own distances are 1e-6 and 1e-4 for some seeds.
    assert distance(in_one(fast), in_one(exact)) < 5e-6
    for name, reference in exact.items():
        assert distance(fast[name], reference) < 1e-3, name


@pytest.mark.parametrize(
    ("M", "K", "N"), [(1, 1, 1), (5, 7, 3), (10, 16, 5000), (64, 40, 2049), (24, 24, 2048), (3, 130, 4100)]
)
def test_products_with_a_matrix_of_weights_do_not_depend_on_threads(M, K, N):
    torch.manual_seed(0)
    w, y, g = torch.randn(M, K), torch.randn(K, N), torch.randn(M, N)
    results = [[torch.full(shape, torch.nan) for shape in ((M, N), (K, N), (M, K), (M, K))] for _ in range(2)]
    for threads, (h, gy, dw, dw_alone) in enumerate(results, start=1):
        torch.set_num_threads(threads)
        call("pointwise_forward", (M, K, N), (), w, y, h)
        call("pointwise_backward", (M, K, N), (), w, y, g, gy, dw)
        call("pointwise_backward", (M, K, N), (), w, y, g, None, dw_alone)
        assert torch.equal(dw, dw_alone)
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))
    w, y, g = w.double(), y.double(), g.double()
    for found, expected, terms in zip(results[0], (w @ y, w.T @ g, g @ y.T), (K, M, N), strict=False):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6 * terms**0.5)


@pytest.mark.parametrize("threads", [1, 2])
def test_one_step_with_products_in_c_is_as_near_to_double_precision_as_pytorch_s(threads):
    torch.manual_seed(0)
    model, (clip, target) = STLight(hidden_dim=32, depth=3, skip=True), torch.rand(2, 4, 10, 1, 64, 64)
    assert _own_product(model.mixers[0][1][0].weight, torch.empty(32, 4 * 32 * 32))
    torch.set_num_threads(threads)
    exact = step(model.double(), "plain", clip.double(), target.double())
    plain, fast = (step(model.float(), name, clip, target) for name in ("plain", "fused"))
    torch.set_num_threads(1)
    assert distance(fast[0], exact[0]) < 1e-5
    assert distance(in_one(fast[1]), in_one(exact[1])) <= 2 * distance(in_one(plain[1]), in_one(exact[1]))


def test_the_default_type_of_new_tensors_does_not_matter():
    torch.manual_seed(0)
    model, (clip, target) = STLight(hidden_dim=8, depth=3), torch.rand(2, 2, 10, 1, 8, 8)
    expected = step(model, "fused", clip, target)
    torch.set_default_dtype(torch.float64)
    try:
        found = step(model, "fused", clip, target)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found[0], expected[0])
    assert all(torch.equal(found[1][name], gradient) for name, gradient in expected[1].items())


def test_every_gradient_of_the_encoding():
    torch.manual_seed(0)
    norm, h, factors = torch.nn.BatchNorm2d(3), torch.randn(2, 3, 4, 5, requires_grad=True), torch.randn(2, 3, 4, 5)
    torch.nn.init.normal_(norm.weight)
    exact, reference = copy.deepcopy(norm).double(), h.detach().double().requires_grad_()
    expected = torch.autograd.grad((F.gelu(exact(reference)) * factors).sum(), [reference, *exact.parameters()])
    z = encoding(norm)(h.permute(1, 2, 3, 0).contiguous())
    found = torch.autograd.grad((z.permute(3, 0, 1, 2) * factors).sum(), [h, *norm.parameters()])
    for gradient, other in zip(found, expected, strict=True):
        assert distance(gradient, other) < 1e-4


@pytest.mark.parametrize("kernel_sizes", [(3, 7), (11, 5)])
def test_evaluation_agrees_after_training_steps(kernel_sizes):
    torch.manual_seed(0)
    model = accelerate(STLight(hidden_dim=8, depth=3, kernel_sizes=kernel_sizes))
    clip = torch.rand(2, 10, 1, 16, 12)
    for _ in range(3):
        model(clip)
    model.eval()
    with torch.no_grad():
        fused = model(clip)
        torch.testing.assert_close(fused, accelerate(model, "plain")(clip), rtol=1e-4, atol=1e-5)


def test_the_number_of_threads_changes_nothing_but_matrix_products():
    torch.manual_seed(0)
    mixer, x = stl_mixer(6, 3, 7, 3), torch.randn(6, 9, 8, 3)
    # With an identity in place of the pointwise product.
    torch.nn.init.dirac_(mixer[1][0].weight)
    results = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        x.requires_grad_().grad = None
        FusedBackend().mixer(mixer)(x).square().sum().backward()
        results.append((x.grad, *(p.grad.clone() for p in mixer[0].parameters())))
        mixer.zero_grad()
    torch.set_num_threads(1)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


@pytest.mark.parametrize("kernels", ["fused", "plain"])
def test_one_value_per_channel_is_refused_in_training_as_batchnorm_does(kernels):
    model, clip = accelerate(STLight(hidden_dim=8, depth=1), kernels), torch.rand(1, 10, 1, 2, 2)
    with pytest.raises(ValueError, match="more than (one|1) value per channel"):
        model(clip)
    model.eval()
    with torch.no_grad():
        assert model(clip).shape == (1, 10, 1, 2, 2)


@torch.no_grad()
def test_gelu_is_within_the_stated_errors():
    x = torch.linspace(-30, 30, 600_001)
    # With this BatchNorm, in evaluation, the encoding is gelu alone.
    norm = torch.nn.BatchNorm2d(1, eps=0.0).eval()
    z = encoding(norm)(x.view(1, -1, 1, 1)).flatten()
    error = (z - F.gelu(x.double())).abs()
    assert error[x < 0].max() < 1.5e-6
    assert (error / x.abs().clamp_min(1)).max() < 1e-6
    assert error[x.abs() < 5].max() < 1.5e-6
    assert error[x.abs() < 2].max() < 1e-6


def test_nan_is_passed_on():
    clip = torch.rand(1, 10, 1, 8, 8)
    clip[0, 0, 0, 0, 0] = torch.nan
    assert accelerate(STLight(hidden_dim=8, depth=2))(clip).isnan().any()


def test_space_to_batch_leaves_an_unusual_convolution_to_itself():
    model, clip = STLight(hidden_dim=8, depth=1).eval(), torch.rand(2, 10, 1, 32, 32)
    model.mixers[0][0].block[1].padding_mode = "circular"
    with torch.no_grad():
        expected = model(clip)
        torch.testing.assert_close(accelerate(model, "space_to_batch")(clip), expected, rtol=1e-4, atol=1e-5)


def test_a_compiled_mixer_gives_the_same_result(monkeypatch):
    # Through torch's own graph capture; the backend that generates code takes half a minute.
    compiled = torch.compile(lambda mixer, x: mixer(x), backend="aot_eager")
    monkeypatch.setattr("stlight.kernels.backends._compiled", lambda: compiled)
    model, clip = STLight(hidden_dim=8, depth=2).eval(), torch.rand(2, 10, 1, 16, 16)
    with torch.no_grad():
        expected = model(clip)
        torch.testing.assert_close(accelerate(model, "compiled")(clip), expected, rtol=1e-4, atol=1e-5)


def test_an_empty_batch_gives_an_empty_prediction():
    model = accelerate(STLight(hidden_dim=16, depth=3), "fused")
    clip = torch.zeros(0, 10, 1, 16, 16)
    prediction = model(clip)
    assert prediction.shape == clip.shape
    with torch.no_grad():
        assert model.eval()(clip).shape == clip.shape
