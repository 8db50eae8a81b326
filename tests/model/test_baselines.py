"""The models of Table 2: equal to the benchmark's, of the size that it prints, and fit to be trained."""

import math
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from stlight.config import ConfigError, ModelConfig, RunConfig
from stlight.data import TaxiBJStandIn
from stlight.experiments.printed_number import PrintedNumber
from stlight.model import TrainingStep, build_model
from stlight.model.baselines import build_baseline
from stlight.model.baselines.phydnet import moment_matrix
from stlight.model.baselines.tau import difference_divergence
from stlight.model.complexity import complexity, count_flops, count_flops_by_fvcore, count_parameters
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.model_specs import BASELINES
from stlight.training import Training, train
from stlight.training.loop import take_step
from tests.conftest import REPOSITORY, WORKFLOW
from tests.model.frozen import SAMPLING_STEPS, SHAPE, STEP, frozen_clip, frozen_model
from tests.tiny_runs import tiny
from tests.training.test_resume import assert_same, train_until

NAMES = sorted(BASELINES)
RECURRENT = ["ConvLSTM-S", "E3D-LSTM", "MAU", "MIM", "PredRNN", "PredRNN++", "PredRNN.V2"]
SMALL = ClipShape(3, 2, 1, 16, 16)
LATE = TrainingStep.at(STEP, SAMPLING_STEPS, seed=0)

each_model = pytest.mark.parametrize("name", NAMES)


def small(name, shape=SMALL, seed=0):
    return build_model(ModelConfig(model=name, baseline_width=1 / 32, baseline_depth=0.5), shape, seed)


def clip_of(shape, batch=2, seed=0):
    frames = shape.context_frames + shape.horizon_frames
    return torch.rand((batch, frames, *shape[2:]), generator=torch.Generator().manual_seed(seed))


def parts(clip, shape=SMALL):
    return clip[:, : shape.context_frames], clip[:, shape.context_frames :]


@each_model
def test_predicts_and_is_trained_as_the_benchmarks_modules(name):
    model, clip = frozen_model(name), frozen_clip()
    with np.load(Path(__file__).parent / "benchmark_outputs.npz") as theirs, torch.no_grad():
        prediction, loss = theirs[f"{name}/prediction"], float(theirs[f"{name}/loss"])
        context, target = parts(clip, SHAPE)
        assert prediction.std() > 0.03
        np.testing.assert_allclose(model(context).numpy(), prediction, atol=1e-5)
        assert float(model.training_loss(context, target, LATE)) == pytest.approx(loss, rel=1e-5)


def printed_row(name):
    rows = yaml.load((WORKFLOW / "experiments" / "table2_openstl.yaml").read_text(), Loader=yaml.BaseLoader)["published"]
    return next(row for row in rows if row["model"] == name)


@each_model
def test_has_the_parameters_that_table_2_prints(name):
    with torch.device("meta"):
        total = count_parameters(build_model(ModelConfig(model=name), DATASETS["mmnist"].shape))["total"]
    assert total == pytest.approx(PrintedNumber(printed_row(name)["num_params"]).value, rel=0.01)


# Those that are counted within seconds; the counts of all are looked at in the run that is kept (test_reference.py).
@pytest.mark.parametrize("name", ["ConvLSTM-S", "MAU", "PhyDNet", "PredRNN", "SimVP+IncepU", "TAU"])
def test_has_the_flops_that_table_2_prints(name):
    printed = PrintedNumber(printed_row(name)["benchmark_flops"])
    mmnist = DATASETS["mmnist"].shape
    counted = complexity(ModelConfig(model=name), mmnist)
    assert abs(counted["benchmark_flops"] - printed.value) <= printed.half_unit
    # Two counters agree.
    with torch.device("meta"):
        assert counted["prediction_flops"] == count_flops(build_model(ModelConfig(model=name), mmnist), mmnist)


def test_the_flops_that_table_2_prints_for_prednet_are_of_colour_frames():
    printed = PrintedNumber(printed_row("PredNet")["benchmark_flops"])
    colour = complexity(ModelConfig(model="PredNet"), DATASETS["mmnist"].shape._replace(channels=3))
    assert abs(colour["benchmark_flops"] - printed.value) <= printed.half_unit


def test_counts_of_small_models_are_those_of_whole_ones():
    model = small("TAU", DATASETS["mmnist"].shape)
    flops = count_flops(model, DATASETS["mmnist"].shape)
    assert flops == count_flops(model.to("meta"), DATASETS["mmnist"].shape)
    by_operator = count_flops_by_fvcore(small("TAU", DATASETS["mmnist"].shape), DATASETS["mmnist"].shape)
    assert flops == by_operator["conv"] + by_operator["linear"]


@each_model
@pytest.mark.parametrize("shape", [SMALL, ClipShape(2, 5, 2, 32, 16)])
def test_predicts_the_horizon(name, shape):
    with torch.no_grad():
        prediction = small(name, shape).eval()(parts(clip_of(shape), shape)[0])
    assert prediction.shape == (2, shape.horizon_frames, *shape[2:])
    assert prediction.isfinite().all()


@each_model
def test_gradients_are_those_of_finite_differences(name):
    torch.manual_seed(0)
    model = small(name).double().eval()
    for parameter in model.parameters():
        # None at zero, where peepholes and biases begin.
        parameter.data += 0.05 * torch.randn_like(parameter)
    context, target = parts(clip_of(SMALL).double())
    directions = [torch.randn_like(p) for p in model.parameters()]

    def loss(distance):
        with torch.no_grad():
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter += distance * direction
            value = float(model.training_loss(context, target, LATE))
            for parameter, direction in zip(model.parameters(), directions, strict=True):
                parameter -= distance * direction
        return value

    model.training_loss(context, target, LATE).backward()
    slope = sum(float((p.grad * d).sum()) for p, d in zip(model.parameters(), directions, strict=True) if p.grad is not None)
    step = 1e-6
    assert slope == pytest.approx((loss(step) - loss(-step)) / (2 * step), rel=1e-4, abs=1e-7)


@each_model
@pytest.mark.parametrize("clip", [torch.zeros(2, 5, 1, 16, 16), clip_of(SMALL)], ids=["zeros", "noise"])
def test_loss_and_gradients_are_finite(name, clip):
    model = small(name).train()
    loss = model.training_loss(*parts(clip), TrainingStep.at(3, SAMPLING_STEPS, seed=1))
    loss.backward()
    assert loss.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@each_model
def test_learns(name):
    torch.manual_seed(0)
    model, clip = small(name), clip_of(SMALL, batch=4)
    # A square that moves by a pixel a frame.
    clip = torch.zeros_like(clip)
    for number, frames in enumerate(clip):
        for t, frame in enumerate(frames):
            frame[0, 4:10, 2 + number + t : 8 + number + t] = 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    recipe = tiny().training
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    losses = [float(take_step(model.train(), optimizer, clip, 3, recipe, 1, TrainingStep.at(i, 20, 0))) for i in range(60)]
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
def test_the_same_seed_gives_the_same_and_another_does_not(name):
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
@pytest.mark.parametrize("number", [1, 4, 7])
def test_goes_on_from_a_checkpoint_to_the_bit(name, number):
    fields = {"model": name, "baseline_width": 1 / 32, "baseline_depth": 0.25, "sampling_steps": 6, "num_epochs": 2}
    config = RunConfig.from_fields(
        {"dataset": "taxibj", "source": "stand_in", "batch_size": 2, "clips_per_epoch": 4, "max_lr": 0.01}
        | {"validation_clips": 1, "test_clips": 1}
        | fields
    )

    def begin():
        return Training(build_model(config.model, config.clip_shape), config)

    straight = train(begin(), TaxiBJStandIn())
    state = train_until(begin(), number)
    torch.manual_seed(number)
    resumed = begin()
    resumed.load_state_dict(state)
    assert_same(train(resumed, TaxiBJStandIn()), straight)


def test_scheduled_sampling_falls_as_the_benchmarks():
    model = small("PredRNN")
    found = [model.truth_probabilities(TrainingStep.at(step, 50_000, 0)) for step in (0, 24_999, 49_999, 50_000, 10**6)]
    assert found == [(1.0, pytest.approx(p)) for p in (1 - 2e-5, 0.5, 0, 0, 0)]


def test_reverse_scheduled_sampling_rises_and_falls_as_the_benchmarks():
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
def test_sampling_decides_what_a_step_is_given(name):
    """True frames all the way at first, about half of them halfway, and none after the context in the end."""
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


def test_phydnets_teacher_is_there_less_and_less():
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


def test_moments_of_filters_are_derivatives():
    """Worked by hand: the moments of one place are 1 / (i! j!) times powers; of a central difference, of order one only odd."""
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


@each_model
def test_a_clip_of_another_shape_is_refused(name):
    model = small(name)
    for shape in ((2, 3, 16, 16), (2, 4, 1, 16, 16), (2, 3, 2, 16, 16), (2, 3, 1, 16, 32)):
        with pytest.raises(ValueError, match=r"clip must be \(B, 3, 1, 16, 16\), got"):
            model(torch.zeros(shape))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "TUA"}, "model must be one of STLight-L, ConvLSTM-S, .*, got 'TUA'"),
        ({"model": "TAU", "hidden_dim": 64}, "hidden_dim is of STLight-L only and must be 1400 for TAU, got 64"),
        ({"baseline_width": 0.5}, "baseline_width is of baselines only and must be 1.0 for STLight-L, got 0.5"),
        ({"model": "TAU", "baseline_width": 0.0}, "baseline_width: .*greater than 0"),
        ({"model": "TAU", "baseline_depth": 1.5}, "baseline_depth: .*less than or equal to 1"),
        ({"model": "TAU", "kernels": "fused"}, "kernels and cuda_graphs are of STLight-L only"),
        ({"model": 7}, "model must be like 'STLight-L', got 7"),
        ({"model": "MIM", "sampling_steps": 0}, "sampling_steps: .*greater than or equal to 1"),
    ],
)
def test_bad_configurations_are_told_in_one_line(fields, words):
    with pytest.raises(ConfigError, match=words) as error:
        RunConfig.from_fields(fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "side"), [("PredNet", 24), ("PredRNN", 18), ("SimVP+IncepU", 10)])
def test_frames_that_cannot_be_divided_are_refused(name, side):
    shape = {"custom_shape": ClipShape(3, 2, 1, side, side), "dataset": "mine", "source": "files"}
    with pytest.raises(ConfigError, match=f"divisible by what {re.escape(name)} needs, [0-9]+, got {side}x{side}"):
        RunConfig.from_fields({"model": name} | shape)
    with pytest.raises(ConfigError, match="divisible by"):
        build_baseline(ModelConfig(model=name), ClipShape(3, 2, 1, side, side))


TWELFTH = '''
"""The mean of the context."""
from typing import ClassVar
import torch
from torch import nn
from stlight.model.baselines.baseline import Baseline

class NoModel(nn.Module):
    name = "Nothing"

class Mean(Baseline):
    name: ClassVar[str] = "Mean+1"
    frame_multiple = 2

    def __init__(self, shape, *, width=1.0, depth=1.0):
        super().__init__(shape, width=width, depth=depth)
        self.gain = nn.Conv2d(shape.channels, shape.channels, 1)

    def predict(self, context):
        return self.gain(context.mean(1))[:, None].expand(-1, self.shape.horizon_frames, -1, -1, -1)
'''


def test_a_twelfth_model_is_one_file_and_one_line(tmp_path):
    shutil.copytree(REPOSITORY / "stlight", tmp_path / "stlight", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(WORKFLOW, tmp_path / "workflow")
    (tmp_path / "stlight" / "model" / "baselines" / "mean.py").write_text(TWELFTH)
    experiment = tmp_path / "workflow" / "experiments" / "table2_openstl.yaml"
    line = "  - {model: [TAU], max_lr: [0.001]}\n"
    experiment.write_text(experiment.read_text().replace(line, line + line.replace("TAU", "Mean+1")))
    code = """
import sys, torch
from pathlib import Path
from stlight.experiments import load_plan
assert "torch" in sys.modules
import stlight; print(stlight.__file__)
from stlight.model import build_model
from stlight.training.loop import take_step, flatten_weights
plan = load_plan(Path("workflow"), "demo")
config = plan.run("mmnist/model=Mean+1+epochs=50/seed0")
from stlight.registry.model_specs import BASELINES
assert BASELINES["Mean+1"].frame_multiple == 2 and "Nothing" not in BASELINES
# What the paper says is of its own rows.
from stlight.analysis.verdicts.ledger import on_published
table_2 = plan.experiments["table2_openstl"]
print(*[on_published(table_2, claim, {}).verdict for claim in table_2.claims[:4]])
model = build_model(config.model, config.clip_shape)
optimizer = torch.optim.Adam([flatten_weights(model)])
print(float(take_step(model, optimizer, torch.rand(2, 20, 1, 64, 64), 10, config.training)) < 1)
"""
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "", "OMP_NUM_THREADS": "1"}
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    verdicts = ["contradicted", "reproduced", "contradicted", "contradicted"]
    assert answer.stdout.split() == [str(tmp_path / "stlight" / "__init__.py"), *verdicts, "True"], answer.stderr
