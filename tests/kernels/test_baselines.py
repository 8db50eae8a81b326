"""The baselines' kernels compute what the plain models do, and leave everything else as it was."""

import copy
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stlight.config import RunConfig
from stlight.data import TaxiBJStandIn
from stlight.kernels import accelerate, backend_of
from stlight.kernels.baselines import BatchedUnroll
from stlight.kernels.compile import library
from stlight.kernels.direct import DirectConvolution
from stlight.kernels.spectral import Convolution, frequencies
from stlight.model import build_model
from stlight.registry.model_specs import BASELINES
from stlight.training import Training, train
from tests.model.frozen import LATE, SHAPE, VARIANTS, condense, frozen_clip, frozen_model, sampling_step
from tests.model.small import clip_of, parts, small
from tests.model.test_benchmark_outputs import benchmark  # noqa: F401 - a fixture
from tests.training.test_resume import assert_same, train_until

pytestmark = pytest.mark.skipif(library("spectral.c") is None, reason="no C compiler")
each_variant = pytest.mark.parametrize(("name", "version"), VARIANTS)
# One model for each kind of kernel.
SOME = ["E3D-LSTM", "MIM", "PhyDNet", "PredNet"]


def accelerated(name, version="v0.3.0"):
    model = accelerate(frozen_model(name, version))
    assert backend_of(model) == "fused"
    return model


def loss_and_gradients(model, dtype=torch.float32):
    context, target = parts(frozen_clip().to(dtype), SHAPE)
    model.zero_grad()
    loss = model.training_loss(context, target, sampling_step())
    loss.backward()
    return loss.item(), [torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in model.parameters()]


def distance(found, exact):
    return float(sum((f - e).square().sum() for f, e in zip(found, exact, strict=True)).sqrt())


@each_variant
def test_loss_and_gradients_are_as_near_to_float64_as_plain_ones(name, version):
    loss, ours = loss_and_gradients(accelerated(name, version).train())
    _, plain = loss_and_gradients(frozen_model(name, version).train())
    exact_loss, exact = loss_and_gradients(frozen_model(name, version).double().train(), torch.float64)
    size = distance(exact, [torch.zeros_like(e) for e in exact])
    assert loss == pytest.approx(exact_loss, rel=1e-6)
    assert distance(ours, exact) <= 2 * distance(plain, exact) + 1e-7 * size
    for mine, true in zip(ours, exact, strict=True):
        assert (mine - true).norm() <= 3e-5 * true.norm() + 1e-8 * size


ELSEWHERE = [(name, dataset) for name, spec in BASELINES.items() for dataset in spec.elsewhere]


@pytest.mark.parametrize(("name", "dataset"), ELSEWHERE)
def test_so_are_those_of_the_configurations_for_other_data_sets(name, dataset):
    frames = {"taxibj": {}, "kth": {"downsampling": 4}}[dataset]
    size = {"baseline_width": 1 / 8, "baseline_depth": 0.5}
    config = RunConfig.from_fields({"dataset": dataset, "source": "stand_in", "model": name} | size | frames)
    clip = clip_of(config.clip_shape)
    backends, found = [], []
    for dtype, kernels in ((torch.float32, True), (torch.float32, False), (torch.float64, False)):
        model = build_model(config.model, config.clip_shape, dataset=dataset).to(dtype).train()
        if kernels:
            backends.append(backend_of(accelerate(model)))
        context, target = parts(clip.to(dtype), config.clip_shape)
        torch.manual_seed(0)
        loss = model.training_loss(context, target, sampling_step())
        loss.backward()
        found.append([torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()])
    ours, plain, exact = found
    size = distance(exact, [torch.zeros_like(e) for e in exact])
    assert distance(ours, exact) <= 2 * distance(plain, exact) + 1e-7 * size
    # Patches of 2 × 2 pixels of one channel do not fill the vectors, and E3D-LSTM's convolutions for KTH skip positions.
    patches = name in ("ConvLSTM-S", "PredRNN", "PredRNN++", "PredRNN.V2")
    assert backends == ["plain" if dataset == "kth" and (patches or name == "E3D-LSTM") else "fused"]


@each_variant
def test_predictions_and_gradients_equal_the_benchmarks(name, version, benchmark):  # noqa: F811
    model, (context, target) = accelerated(name, version), parts(frozen_clip(), SHAPE)
    with torch.no_grad():
        np.testing.assert_allclose(model(context).numpy(), benchmark[f"{name} {version}/prediction"], atol=1e-5)
        assert float(model.training_loss(context, target, LATE)) == pytest.approx(
            float(benchmark[f"{name} {version}/loss"]), rel=1e-5
        )
    loss_and_gradients(model.train())
    theirs = benchmark[f"{name} {version}/gradients"]
    ours = condense([parameter.grad for parameter in model.parameters()])
    assert (abs(ours - theirs) <= 1e-4 * theirs[:, :1] + 1e-8 * np.linalg.norm(theirs)).all()


@pytest.mark.parametrize("name", SOME)
def test_copies_and_state_dicts_stay_and_steps_repeat_to_the_bit(name):
    plain, model = frozen_model(name), accelerated(name)
    assert [*model.state_dict()] == [*plain.state_dict()]
    copies = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
    expected = loss_and_gradients(model)
    for other in copies:
        assert backend_of(other) == "fused"
        loss, gradients = loss_and_gradients(other)
        assert loss == expected[0]
        assert all(map(torch.equal, gradients, expected[1]))
        # A copy has its own weights.
        with torch.no_grad():
            [parameter.zero_() for parameter in other.parameters()]
        assert loss_and_gradients(other)[0] != loss
    assert loss_and_gradients(model)[0] == expected[0]
    accelerate(model, "plain")
    assert backend_of(model) == "plain"
    assert loss_and_gradients(model)[0] == loss_and_gradients(plain)[0]
    assert all(map(torch.equal, loss_and_gradients(model)[1], loss_and_gradients(plain)[1]))


@pytest.mark.parametrize("name", ["ConvLSTM-S", "E3D-LSTM", "PhyDNet", "SimVP+IncepU"])
def test_an_accelerated_training_resumes_to_the_bit(name):
    fields = {"model": name, "baseline_width": 1 / 16, "baseline_depth": 0.25, "sampling_steps": 6, "num_epochs": 2}
    config = RunConfig.from_fields(
        {"dataset": "taxibj", "source": "stand_in", "batch_size": 2, "clips_per_epoch": 4, "max_lr": 0.01}
        | {"validation_clips": 1, "test_clips": 1}
        | fields
    )

    def begin():
        model = accelerate(build_model(config.model, config.clip_shape))
        assert backend_of(model) == "fused"
        return Training(model, config)

    straight = train(begin(), TaxiBJStandIn())
    state = train_until(begin(), 1)
    resumed = begin()
    resumed.load_state_dict(state)
    assert_same(train(resumed, TaxiBJStandIn()), straight)


@pytest.mark.parametrize("name", ["ConvLSTM-S", "PhyDNet"])
def test_hooks_see_the_modules_that_kernels_would_replace(name):
    model, calls = accelerated(name), []
    watched = model.cells[0] if name == "ConvLSTM-S" else model.encoder
    watched.register_forward_hook(lambda *_: calls.append(1))
    loss_and_gradients(model)
    assert len(calls) == SHAPE.context_frames + SHAPE.horizon_frames - 1


def test_what_does_not_fit_stays_plain(monkeypatch):
    other = frozen_model("ConvLSTM-S")
    other.cells[0].of_input.padding = (1, 1)
    narrow, double = small("PredRNN"), frozen_model("PredRNN").double()
    for model in (other, narrow, double):
        assert backend_of(accelerate(model)) == "plain"
    # Decided at each step: the weights were converted after `accelerate`.
    model = accelerated("PredRNN").double()
    assert loss_and_gradients(model, torch.float64)[0] == loss_and_gradients(double, torch.float64)[0]
    monkeypatch.setattr("stlight.kernels.baselines.library", lambda source: None)
    assert backend_of(accelerate(frozen_model("PredNet"))) == "plain"


def test_phydnet_in_float64_is_the_same_at_once_as_step_by_step():
    model = frozen_model("PhyDNet").double().train()
    expected = loss_and_gradients(model, torch.float64)
    vars(model)["unroll"] = BatchedUnroll(model)
    loss, gradients = loss_and_gradients(model, torch.float64)
    assert loss == pytest.approx(expected[0], rel=1e-12)
    for mine, theirs in zip(gradients, expected[1], strict=True):
        assert (mine - theirs).norm() <= 1e-10 * theirs.norm() + 1e-14


def reference(x, weights, gradient, **settings):
    """Return a sum of convolutions in float64, and the gradients of inputs and weights."""
    x, weights = ([t.detach().double().requires_grad_() for t in tensors] for tensors in (x, weights))
    out = sum(F.conv2d(a, w, padding=w.shape[2] // 2, **settings) for a, w in zip(x, weights, strict=True))
    return [out.detach(), *torch.autograd.grad(out, [*x, *weights], gradient.double())]


def assert_near(found, exact):
    for mine, true in zip(found, exact, strict=True):
        assert (mine - true).norm() <= 5e-7 * true.norm()


@pytest.mark.parametrize(
    ("clips", "sides", "size", "inputs", "outputs"),
    [(8, (8, 8), 5, (16, 16), 48), (1, (4, 8), 5, (8,), 8), (3, (7, 5), 3, (16, 8, 24, 8), 24), (13, (9, 6), 7, (8, 40), 16)],
)
def test_a_convolution_by_frequency_equals_the_sum_in_float64(clips, sides, size, inputs, outputs):
    torch.manual_seed(0)
    x = [torch.rand(clips, channels, *sides) for channels in inputs]
    weights = [torch.randn(outputs, channels, size, size, requires_grad=True) for channels in inputs]
    gradient = torch.randn(clips, outputs, *sides)
    convolution = Convolution(frequencies(*sides, size), *weights)
    inside = [a.permute(2, 3, 0, 1).contiguous() for a in x]
    out = convolution(inside)
    dx = convolution.backward(gradient.permute(2, 3, 0, 1).contiguous(), inside, [True] * len(x))
    found = [out.permute(2, 3, 0, 1), *(d.permute(2, 3, 0, 1) for d in dx), *convolution.collected()]
    assert_near(found, reference(x, weights, gradient))


@pytest.mark.parametrize("size", [3, 5, 7, 11])
@pytest.mark.parametrize(("inputs", "outputs", "groups", "sides"), [(7, 5, 1, (4, 8)), (6, 8, 2, (8, 24)), (1, 1, 1, (12, 40))])
def test_a_direct_convolution_equals_float64(size, inputs, outputs, groups, sides):
    torch.manual_seed(0)
    conv = torch.nn.Conv2d(inputs, outputs, size, padding=size // 2, groups=groups)
    vars(conv)["forward"] = DirectConvolution(conv)
    x = torch.rand(3, inputs, *sides, requires_grad=True)
    gradient = torch.randn(3, outputs, *sides)
    out = conv(x)
    assert "_Convolve" in type(out.grad_fn).__name__
    found = [out.detach(), *torch.autograd.grad(out, [x, conv.weight, conv.bias], gradient)]
    exact = reference([x], [conv.weight], gradient, groups=groups)
    exact[0] += conv.bias.double()[:, None, None]
    assert_near(found, [*exact, gradient.double().sum((0, 2, 3))])


@pytest.mark.parametrize("name", ["PredRNN", "E3D-LSTM"])
def test_a_second_backward_pass_adds_the_same_gradients(name):
    model, (context, target) = accelerated(name).train(), parts(frozen_clip(), SHAPE)
    loss = model.training_loss(context, target, sampling_step())
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    loss.backward()
    for first, both in zip(once, (p.grad for p in model.parameters() if p.grad is not None), strict=True):
        torch.testing.assert_close(both, 2 * first, rtol=0, atol=0)


def test_weights_changed_before_the_backward_pass_are_refused():
    model, (context, target) = accelerated("ConvLSTM-S").train(), parts(frozen_clip(), SHAPE)
    loss = model.training_loss(context, target, sampling_step())
    with torch.no_grad():
        model.cells[0].of_hidden.weight.mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        loss.backward()


@pytest.mark.parametrize("name", ["PredRNN", "PredNet"])
def test_second_derivatives_are_refused(name):
    model, (context, target) = accelerated(name).train(), parts(frozen_clip(), SHAPE)
    loss = model.training_loss(context, target, sampling_step())
    gradients = torch.autograd.grad(loss, list(model.parameters()), create_graph=True, allow_unused=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        sum(g.square().sum() for g in gradients if g is not None).backward()


def test_clips_of_a_larger_batch_do_not_change_a_prediction():
    model = accelerated("PredRNN++")
    clip = clip_of(SHAPE, batch=5)[:, : SHAPE.context_frames]
    with torch.no_grad():
        torch.testing.assert_close(model(clip)[:2], model(clip[:2]), rtol=0, atol=1e-6)
