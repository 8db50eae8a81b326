"""The table of baselines: sizes as Table 2 prints them, configurations that are refused, one more entry."""

import re

import pytest
import torch

from stlight.config import ConfigError, ModelConfig, RunConfig
from stlight.experiments import load_plan
from stlight.experiments.field_types import PrintedNumber
from stlight.model import Forecaster, TrainingStep, baselines, build_model
from stlight.model.complexity import complexity, count_flops, count_flops_by_fvcore, count_parameters
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.model_specs import BASELINES, BaselineSpec, loss_is_mse
from tests.model.small import PUBLISHED, TABLE_2, clip_of, parts, small
from tests.tiny_runs import write_experiment

MMNIST = DATASETS["mmnist"].shape


def printed_row(name):
    return next(row for row in PUBLISHED if row["model"] == name)


@pytest.mark.parametrize("name", TABLE_2)
def test_has_the_parameters_that_table_2_prints(name):
    with torch.device("meta"):
        total = count_parameters(build_model(ModelConfig(model=name), MMNIST))["total"]
    assert total == pytest.approx(PrintedNumber(printed_row(name)["num_params"]).value, rel=0.01)


@pytest.mark.parametrize("name", BASELINES)
def test_the_losses_that_are_comparable_with_a_test_error_are_marked(name):
    with torch.device("meta"):
        model = build_model(ModelConfig(model=name), MMNIST)
    assert loss_is_mse(name) == (type(model).training_loss is Forecaster.training_loss)


@pytest.mark.parametrize("name", BASELINES)
def test_the_numbers_of_phases_are_right_and_their_epochs_add_up(name):
    model, least = small(name), BASELINES[name].phases
    for num_epochs in (least, 3, 10, 200):
        phases = model.phases(num_epochs)
        assert len(phases) == least
        assert all(phase.num_epochs >= 1 for phase in phases)
        assert sum(phase.num_epochs for phase in phases) == num_epochs


# Counting these takes seconds. test_reference.py compares the stored counts of all models.
@pytest.mark.parametrize("name", ["ConvLSTM-S", "PredNet", "SimVP+IncepU", "TAU"])
def test_has_the_flops_that_table_2_prints(name):
    printed = PrintedNumber(printed_row(name)["benchmark_flops"])
    # The benchmark counted PredNet on colour frames.
    shape = MMNIST._replace(channels=3) if name == "PredNet" else MMNIST
    counted = complexity(ModelConfig(model=name), shape)
    assert abs(counted["benchmark_flops"] - printed.value) <= printed.half_unit
    with torch.device("meta"):
        assert counted["prediction_flops"] == count_flops(build_model(ModelConfig(model=name), shape), shape)


def test_two_counters_agree_on_a_small_model_and_on_meta():
    model = small("TAU", MMNIST)
    by_operator = count_flops_by_fvcore(model, MMNIST)
    assert count_flops(model, MMNIST) == by_operator["conv"] + by_operator["linear"] == count_flops(model.to("meta"), MMNIST)


@pytest.mark.parametrize("name", BASELINES)
def test_fvcore_counts_the_same_in_what_the_benchmark_runs(name):
    shape = MMNIST._replace(height=32, width=32)
    fields = {"model": name, "baseline_width": 0.125, "baseline_depth": 0.5}
    model = build_model(ModelConfig(**fields), shape)
    model.forward = model.counted_by_benchmark
    assert complexity(ModelConfig(**fields), shape)["benchmark_flops"] == sum(count_flops_by_fvcore(model, shape).values())


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model": "TUA"}, "model must be one of STLight-L, ConvLSTM-S, .*, got 'TUA'"),
        ({"model": "TAU", "hidden_dim": 64}, "hidden_dim applies to STLight-L only and must be 1400 for TAU, got 64"),
        (
            {"model": "TAU", "benchmark_version": "corrected"},
            re.escape(
                "benchmark_version applies to ConvLSTM-S and PredRNN++ only and must be 'v0.3.0' for TAU, got 'corrected'"
            ),
        ),
        ({"benchmark_version": "corrected"}, "benchmark_version applies to baselines only and must be 'v0.3.0' for STLight-L"),
        (
            {"model": "PredRNN++", "benchmark_version": "v1"},
            "benchmark_version: input should be 'v0.3.0' or 'corrected', got 'v1'",
        ),
        ({"baseline_width": 0.5}, "baseline_width applies to baselines only and must be 1.0 for STLight-L, got 0.5"),
        ({"model": "TAU", "baseline_width": 0.0}, "baseline_width: .*greater than 0"),
        ({"model": "TAU", "baseline_depth": 1.5}, "baseline_depth: .*less than or equal to 1"),
        ({"model": "TAU", "kernels": "fused"}, "kernels and cuda_graphs apply to STLight-L only"),
        ({"model": 7}, "model must be like 'STLight-L', got 7"),
        ({"model": "VPTR-FAR", "num_epochs": 1}, "num_epochs must be at least 2, the phases of VPTR-FAR, got 1"),
        ({"model": "MIM", "sampling_steps": 0}, "sampling_steps: .*greater than or equal to 1"),
    ],
)
def test_wrong_configurations_are_reported_in_one_line(fields, words):
    with pytest.raises(ConfigError, match=words) as error:
        RunConfig.from_fields(fields)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "side"),
    [("PredNet", 24), ("PredRNN", 18), ("SimVP+IncepU", 10), ("IAM4VP", 18), ("Crevnet", 20), ("VPTR-FAR", 20)],
)
def test_frame_sizes_that_are_not_divisible_are_refused(name, side):
    fields = {"custom_shape": ClipShape(3, 2, 1, side, side), "dataset": "mine", "source": "files"}
    message = f"divisible by the frame multiple of {name}, {BASELINES[name].frame_multiple}, got {side}x{side}"
    with pytest.raises(ConfigError, match=re.escape(message)):
        RunConfig.from_fields({"model": name} | fields)
    with pytest.raises(ConfigError, match=re.escape(message)):
        small(name, ClipShape(3, 2, 1, side, side))


MEAN = """
from torch import nn
from stlight.model.baselines import Baseline

class Mean(Baseline):
    def __init__(self, shape, *, width=1.0, depth=1.0):
        super().__init__(shape, width=width, depth=depth)
        self.gain = nn.Conv2d(shape.channels, shape.channels, 1)

    def predict(self, context):
        return self.gain(context.mean(1))[:, None].expand(-1, self.shape.horizon_frames, -1, -1, -1)
"""


def test_a_new_baseline_is_one_file_and_one_entry(workflow, tmp_path, monkeypatch):
    (tmp_path / "mean_of_context.py").write_text(MEAN)
    monkeypatch.setattr(baselines, "__path__", [*baselines.__path__, str(tmp_path)])
    monkeypatch.setitem(BASELINES, "Mean+1", BaselineSpec("mean_of_context", "Mean", max_lr=0.001, frame_multiple=2))
    write_experiment(
        workflow, grid={"model": ["STLight-L", "Mean+1"], "max_lr": [0.001]}, figure={"kind": "tradeoff", "y": "mse"}
    )
    plan = load_plan(workflow, "smoke")
    (config,) = (config for config in plan.runs.values() if config.model.model == "Mean+1")
    model = build_model(config.model, config.clip_shape)
    clip = clip_of(config.clip_shape)
    model.training_loss(*parts(clip, config.clip_shape), TrainingStep.at(0, 10, seed=0)).backward()
    assert model.gain.weight.grad.isfinite().all()
    with pytest.raises(ConfigError, match="frame multiple of Mean\\+1, 2, got 5x5"):
        build_model(config.model, ClipShape(3, 2, 1, 5, 5))
