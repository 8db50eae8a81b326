"""The baselines: horizon, gradients, training and random draws."""

import math

import numpy as np
import pytest
import torch

from stlight.config import RunConfig
from stlight.data import TaxiBJStandIn
from stlight.model import TrainingStep, build_model
from stlight.model.baselines.phydnet import moment_matrix
from stlight.model.baselines.tau import difference_divergence
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import BASELINES
from stlight.training import Training, train
from tests.model.frozen import LATE, SAMPLING_STEPS
from tests.model.small import SMALL, clip_of, parts, small
from tests.training.test_resume import assert_same, train_until

NAMES = sorted(BASELINES)
RECURRENT = ["ConvLSTM-S", "E3D-LSTM", "MAU", "MIM", "PredRNN", "PredRNN++", "PredRNN.V2"]

each_model = pytest.mark.parametrize("name", NAMES)


@each_model
@pytest.mark.parametrize("shape", [SMALL, ClipShape(2, 5, 2, 32, 16)])
def test_predicts_the_horizon(name, shape):
    with torch.no_grad():
        prediction = small(name, shape).eval()(parts(clip_of(shape), shape)[0])
    assert prediction.shape == (2, shape.horizon_frames, *shape[2:])
    assert prediction.isfinite().all()


# Gradients of MIM stop at a memory and those of IAM4VP at its queue, so that they are no derivatives; those of the benchmark
# and of the authors' code stand in for them.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("MIM", "IAM4VP")])
def test_gradients_equal_finite_differences(name):
    torch.manual_seed(0)
    model = small(name).double().eval()
    parameters = list(model.parameters())
    for parameter in parameters:
        # Peepholes and biases start at zero, where a wrong gradient could go unnoticed.
        parameter.data += 0.05 * torch.randn_like(parameter)
    context, target = parts(clip_of(SMALL).double())
    directions = [torch.randn_like(p) for p in parameters]

    @torch.no_grad()
    def loss_after(distance):
        for parameter, direction in zip(parameters, directions, strict=True):
            parameter += distance * direction
        return float(model.training_loss(context, target, LATE))

    model.training_loss(context, target, LATE).backward()
    slope = sum(float((p.grad * d).sum()) for p, d in zip(parameters, directions, strict=True) if p.grad is not None)
    step = 1e-6
    after, before = loss_after(step), loss_after(-2 * step)
    assert slope == pytest.approx((after - before) / (2 * step), rel=1e-4, abs=1e-7)


@each_model
def test_loss_and_gradients_are_finite_on_black_frames(name):
    model = small(name).train()
    loss = model.training_loss(*parts(torch.zeros(2, 5, 1, 16, 16)), TrainingStep.at(3, SAMPLING_STEPS, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@each_model
def test_learns(name):
    model = small(name).train()
    # A square that moves by one pixel per frame, from a different column in each clip.
    clip = torch.zeros_like(clip_of(SMALL, batch=4))
    for number, frames in enumerate(clip):
        for t, frame in enumerate(frames):
            frame[0, 4:10, 2 + number + t : 8 + number + t] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    losses = []
    for index in range(40):
        loss = model.training_loss(*parts(clip), TrainingStep.at(index, 20, seed=0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert min(losses[-5:]) < 0.6 * losses[0]


@pytest.mark.parametrize("name", [*RECURRENT, "PhyDNet", "PredNet"])
def test_no_prediction_depends_on_later_frames(name):
    model, clip = small(name).eval(), clip_of(SMALL)

    @torch.no_grad()
    def predictions(clip):
        # The k-th is made from frames up to the k-th; PredNet's from those before it.
        if name in RECURRENT:
            return model.unroll(clip, torch.ones((4, 2), dtype=torch.bool))[0]
        return model.unroll(clip, 4) if name == "PhyDNet" else torch.stack(model.unroll(clip, 5)[0][1:], 1)

    before = predictions(clip)
    for changed in range(4):
        other = clip.clone()
        other[:, changed] = 1 - other[:, changed]
        after = predictions(other)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert not torch.equal(after[:, changed], before[:, changed])


@each_model
def test_only_the_seed_decides_weights_and_draws(name):
    context, target = parts(clip_of(SMALL))

    def loss(seed):
        step = TrainingStep.at(SAMPLING_STEPS // 2, SAMPLING_STEPS, seed)
        return small(name, seed=seed).training_loss(context, target, step).item()

    losses = [loss(seed) for seed in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]
    model = small(name).eval()
    with torch.no_grad():
        assert torch.equal(model(context), model(context))


@each_model
def test_resumes_from_a_checkpoint_to_the_bit(name):
    fields = {"model": name, "baseline_width": 1 / 32, "baseline_depth": 0.25, "sampling_steps": 6, "num_epochs": 2}
    config = RunConfig.from_fields(
        {"dataset": "taxibj", "source": "stand_in", "batch_size": 2, "clips_per_epoch": 4, "max_lr": 0.01}
        | {"validation_clips": 1, "test_clips": 1}
        | fields
    )

    def begin():
        return Training(build_model(config.model, config.clip_shape), config)

    straight = train(begin(), TaxiBJStandIn())
    # After the first step, and between the epochs.
    for safe_point in (1, 4):
        state = train_until(begin(), safe_point)
        torch.manual_seed(safe_point)
        resumed = begin()
        resumed.load_state_dict(state)
        assert_same(train(resumed, TaxiBJStandIn()), straight)


def test_scheduled_sampling_falls_like_the_benchmarks():
    model = small("PredRNN")
    found = [model.truth_probabilities(TrainingStep.at(step, 50_000, 0)) for step in (0, 24_999, 49_999, 50_000, 10**6)]
    assert found == [(1.0, pytest.approx(p)) for p in (1 - 2e-5, 0.5, 0, 0, 0)]


def test_reverse_scheduled_sampling_matches_the_benchmarks():
    model = small("PredRNN.V2")
    expected = {
        0: (0.5, 0.5),
        24_999: (0.5, 0.5),
        25_000: (0.5, 0.5),
        30_000: (1 - 0.5 * math.exp(-1), 0.4),
        49_999: (1 - 0.5 * math.exp(-24_999 / 5_000), 0.5 - 24_999 * 0.5 / 25_000),
        50_000: (1.0, 0.0),
    }
    for step, probabilities in expected.items():
        assert model.truth_probabilities(TrainingStep.at(step, 50_000, 0)) == pytest.approx(probabilities)


@pytest.mark.parametrize("name", RECURRENT)
def test_sampling_decides_which_frames_are_true(name):
    """After the context, all frames are true at first, about half of them halfway, and none at the end."""
    model, clip, given = small(name), clip_of(SMALL, batch=64), []
    unroll = model.unroll

    def watch(clip, given_here):
        given.append(given_here)
        return unroll(clip[:1], given_here[:, :1])

    model.unroll = watch
    model.error = lambda predicted, target, states: predicted.sum()
    for step in (0, 5_000, 20_000):
        model.training_loss(*parts(clip), TrainingStep.at(step, 10_000, seed=3))
    first, middle, last = given
    assert first.shape == (4, 64)
    assert all(drawn[0].all() for drawn in given)
    if name == "PredRNN.V2":
        assert 0.3 < first[1:].float().mean() < 0.7
        assert last[:3].all()
    else:
        assert all(drawn[:3].all() for drawn in given)
        assert first[3].float().mean() > 0.9
        assert 0.25 < middle[3].float().mean() < 0.75
    assert not last[3].any()


def test_phydnet_reads_true_targets_less_and_less_often():
    model, clip = small("PhyDNet"), clip_of(SMALL)
    given = []
    model.unroll = lambda clip, number: given.append(number) or clip[:, 1:]
    counts = []
    # 80 epochs are the benchmark's 50,000 steps: epochs 0, 100 and 400.
    for step in (0, 62_500, 250_000):
        given.clear()
        for seed in range(200):
            model.training_loss(*parts(clip), TrainingStep.at(step, 50_000, seed=seed))
        counts.append(given.count(4))
        assert set(given) <= {3, 4}
    assert counts[0] == 200
    assert counts[1] == pytest.approx(140, abs=25)
    assert counts[2] == 0


def test_moment_loss_is_zero_for_derivative_filters():
    """By hand: a delta has only the moment of order 0, a central difference only odd moments along its axis."""
    matrix = moment_matrix()
    centre = torch.zeros(7, 7, dtype=torch.float64)
    centre[3, 3] = 1
    assert torch.equal(matrix @ centre @ matrix.T, torch.eye(7, dtype=torch.float64)[:, :1] @ torch.eye(7)[:1].double())
    difference = torch.zeros(7, 7, dtype=torch.float64)
    difference[3, 4], difference[3, 2] = 0.5, -0.5
    moments = matrix @ difference @ matrix.T
    assert moments[0].tolist() == pytest.approx([0, 1, 0, 1 / 6, 0, 1 / 120, 0])
    assert not moments[1:].any()
    model = small("PhyDNet")
    wanted = torch.linalg.inv(matrix)
    filters = [torch.outer(wanted[:, i], wanted[:, j]) for i in range(7) for j in range(7)]
    model.physical.derivatives.weight.data = torch.stack(filters)[:, None].repeat(1, 4, 1, 1).float()
    assert model.moment_loss().item() == pytest.approx(0, abs=1e-6)


def test_difference_divergence_worked_by_numpy(rng):
    predicted, target = rng.random((2, 4, 1, 3, 3)), rng.random((2, 4, 1, 3, 3))
    total = 0.0
    for one, other in zip(predicted, target, strict=True):
        for t in range(3):
            p, q = (np.exp((x[t + 1] - x[t]) / 0.1).ravel() for x in (one, other))
            p, q = p / p.sum(), q / q.sum()
            total += (p * np.log(p / q)).sum()
    found = difference_divergence(torch.from_numpy(predicted), torch.from_numpy(target))
    assert float(found) == pytest.approx(total / (2 * 3 * 9))
    assert float(difference_divergence(torch.rand(1, 2, 1, 3, 3), torch.rand(1, 2, 1, 3, 3))) == 0


def test_a_clip_of_another_shape_is_refused():
    model = small("TAU")
    for shape in ((2, 3, 16, 16), (2, 4, 1, 16, 16), (2, 3, 2, 16, 16), (2, 3, 1, 16, 32)):
        with pytest.raises(ValueError, match=r"clip must be \(B, 3, 1, 16, 16\), got"):
            model(torch.zeros(shape))
