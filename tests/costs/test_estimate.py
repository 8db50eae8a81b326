"""Output of the plan verb, before a scale is launched."""

import re

import pytest
import torch

from stlight import cli
from stlight.costs import estimate
from stlight.costs.estimate import RunCost
from stlight.experiments import load_plan
from tests.tiny_runs import write_experiment


@pytest.fixture
def two_experiments(scales):
    """A workflow of two experiments that share the runs of STLight-L."""
    write_experiment(
        scales,
        "models",
        grid={"model": ["STLight-L", "SimVP+IncepU"], "max_lr": [0.001]},
        figure={"kind": "tradeoff", "y": "mse"},
    )
    write_experiment(scales, "depths", base={"max_lr": 0.001}, grid={"depth": [8, 16]})
    return scales


@pytest.fixture
def plan(two_experiments, tmp_path, capsys):
    def print_plan(scale, *arguments, status=0):
        common = ["--scale", scale, "--workflow", str(two_experiments), "--data-root", str(tmp_path)]
        assert cli.main(["plan", *common, *arguments]) == status
        captured = capsys.readouterr()
        return captured.err if status else captured.out

    return print_plan


def test_a_stated_rate_gives_the_hours_that_are_computed_by_hand(plan):
    printed = plan("paper", "--flops", "1e12", "--side-by-side", "4")
    # 200 epochs of 625 steps of 16 clips, 3 forward passes each, and 11,000 clips evaluated an epoch.
    flops = 33_514_700_800 + 19_334_692_864
    hours = 200 * (10_000 * 3 + 11_000) * flops / 1e12 / 3600
    (line,) = (line for line in printed.splitlines() if line.startswith("models"))
    assert f" {hours:.0f} h " in line
    assert "with 4 side by side" in printed


def test_shared_runs_are_counted_once(plan, two_experiments):
    printed = plan("demo", "--flops", "1e12")
    columns = [re.split(r"  +", line.strip()) for line in printed.splitlines() if line.startswith(("models", "depths"))]
    runs = load_plan(two_experiments, "demo", two_experiments).runs
    assert sum(int(new) for _, _, new, *_ in columns) == len(runs)
    assert sum(int(all_runs) for _, all_runs, *_ in columns) > len(runs)


def test_a_budget_says_what_fits(plan):
    assert "left out: nothing" in plan("demo", "--flops", "1e12", "--budget", "1000")
    assert "within 0.01 h: nothing" in plan("demo", "--flops", "1e6", "--budget", "0.01")
    # A run longer than the budget does not fit, however many run side by side.
    printed = plan("paper", "--flops", "1e12", "--side-by-side", "66", "--budget", "50")
    assert "models" in printed.rsplit("left out:", 1)[1]


def test_steps_are_timed_if_no_rate_is_stated(plan):
    printed = plan("smoke", "--device", "cpu", "--side-by-side", "1")
    assert "timed: 3 distinct shapes" in printed


def test_a_deep_stlight_is_timed_at_two_depths(two_experiments, monkeypatch):
    timed = []

    def time_steps(config, device, clips, repeats):
        timed.append((config.model.model, config.model.depth, clips))
        return RunCost(2.0 + 3.0 * config.model.depth, 1.0 + 0.5 * config.model.depth, 0)

    monkeypatch.setattr(estimate, "time_steps", time_steps)
    monkeypatch.setattr(estimate, "time_clips", lambda config, device: (0.125, 0.25))
    costs = estimate.estimate_costs(load_plan(two_experiments, "paper", two_experiments), torch.device("cpu"), None)
    assert max(depth for model, depth, _ in timed if model == "STLight-L") == 3
    cost = costs["mmnist/lr=0.001/seed0"]
    assert (cost.step_seconds, cost.evaluation_seconds) == (2 + 3 * 16 + 16 * 0.125, 1 + 0.5 * 16 + 0.125 + 0.25)


def test_drawing_and_comparing_clips_count_where_clips_are_generated(demo):
    """KTH's stand-in draws frames of 128 × 128 for a model of 32 × 32, which takes most of a step."""
    kth = demo.runs["kth/stlight_l/seed0"]
    assert kth.data.source == "stand_in"
    cpu = torch.device("cpu")
    drawing, comparing = (min(times) for times in zip(*(estimate.time_clips(kth, cpu) for _ in range(3)), strict=True))
    steps = min(estimate.time_steps(kth, cpu, clips=8).step_seconds for _ in range(3))
    assert 8 * drawing > steps > 0
    assert comparing > 0
    assert estimate.time_clips(kth.model_copy(update={"data": kth.data.model_copy(update={"source": "files"})}), cpu)[0] == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "--budget must be at least 1e-06, got 0"),
        (["--flops", "-1"], "--flops must be at least 1, got -1"),
        (["--device", "tpu"], "device must be auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_wrong_settings_are_named(plan, arguments, message):
    assert message in plan("smoke", *arguments, status=1)
