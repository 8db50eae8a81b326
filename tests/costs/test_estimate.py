"""What `plan` prints before a scale is launched."""

import re

import pytest

from stlight import cli
from stlight.experiments import load_plan
from tests.conftest import WORKFLOW

# Multiply-adds of a prediction by each of Table 2's models, as counted.
FLOPS = {
    "ConvLSTM-S": 56_790_351_872,
    "PredNet": 16_760_586_240,
    "PhyDNet": 15_297_708_032,
    "PredRNN": 115_951_534_080,
    "PredRNN++": 171_735_777_280,
    "MIM": 179_180_666_880,
    "MAU": 17_741_381_632,
    "E3D-LSTM": 298_844_160_000,
    "PredRNN.V2": 115_951_534_080,
    "SimVP+IncepU": 19_334_692_864,
    "TAU": 15_893_991_424,
    "STLight-L": 33_686_732_800,
}


def plan(capsys, *arguments):
    assert cli.main(["plan", *arguments]) == 0
    return capsys.readouterr().out


def test_a_stated_rate_gives_the_hours_that_are_reckoned_by_hand(capsys, tmp_path):
    printed = plan(capsys, "--config", "scale=paper", f"data={tmp_path}", "--flops", "1e12", "--side-by-side", "4")
    # Table 2: 2000 epochs of 625 steps of 16 clips, 3 forward passes' multiply-adds each, and 11,000 clips evaluated an epoch.
    hours = 2000 * (10_000 * 3 + 11_000) * sum(FLOPS.values()) / 1e12 / 3600
    (line,) = (line for line in printed.splitlines() if line.startswith("table2_openstl"))
    assert f" {hours:.0f} h " in line
    assert "82 runs" in printed
    assert "with 4 side by side" in printed


def test_shared_runs_are_counted_once(capsys):
    printed = plan(capsys, "--flops", "1e12")
    columns = [re.split(r"  +", line.strip()) for line in printed.splitlines() if re.match(r"(table\d|figure\d|extra_)", line)]
    runs = load_plan(WORKFLOW, "demo", WORKFLOW).runs
    assert sum(int(new) for _, _, new, *_ in columns) == len(runs)
    asked = sum(int(all_runs) for _, all_runs, *_ in columns)
    assert f"runs that experiments share: {asked - len(runs)}," in printed


def test_a_budget_says_what_fits(capsys):
    everything = plan(capsys, "--flops", "1e12", "--budget", "1000")
    assert "left out: nothing" in everything
    nothing = plan(capsys, "--flops", "1e6", "--budget", "0.01")
    assert "within 0.01 h: nothing" in nothing


def test_a_run_longer_than_the_budget_does_not_fit_however_many_run_side_by_side(capsys):
    printed = plan(capsys, "--scale", "paper", "--flops", "1e12", "--side-by-side", "66", "--budget", "120")
    assert "table4_learning_rate_epochs (a single run takes longer)" in printed.rsplit("left out:", 1)[1]


def test_steps_are_timed_where_no_rate_is_stated(capsys):
    printed = plan(capsys, "--scale", "smoke", "--device", "cpu", "--side-by-side", "1")
    assert "timed: " in printed
    assert "71 runs" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", "0"], "--budget must be from 1e-06 to 1e+09, got 0.0"),
        (["--flops", "-1"], "--flops must be from 1 to 1e+24, got -1.0"),
        (["--config", "seed=3"], "--config seed=3: must be one of scale, results, data"),
        (["--config", "scale"], "--config scale: must be one of"),
        (["--device", "tpu"], "device must be auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_wrong_settings_are_named(arguments, message, capsys):
    assert cli.main(["plan", *arguments]) == 1
    assert message in capsys.readouterr().err
