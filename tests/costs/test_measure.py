"""The measure verb: variants of an experiment, timed side by side."""

import json

import pytest

from stlight import cli
from stlight.costs import measure
from stlight.costs.workload import Workload
from stlight.experiments import load_plan
from stlight.registry.metric_specs import TIMED_METRICS
from stlight.runs.provenance import source_version
from tests.tiny_runs import write_experiment

GRID = {"hidden_dim": [700, 11200]}


@pytest.fixture
def timed(workflow):
    write_experiment(workflow, grid=GRID, metrics=["mse", *TIMED_METRICS])
    return workflow


def call(workflow, tmp_path, *arguments):
    return cli.main(["measure", *arguments, "--scale", "smoke", "--workflow", str(workflow), "--results", str(tmp_path)])


def test_the_larger_model_is_slower_and_needs_more_memory(timed, tmp_path, capsys):
    assert call(timed, tmp_path, "mine", "--device", "cpu") == 0
    measured = json.loads((tmp_path / "smoke" / "speed" / "mine.json").read_text())
    experiment = load_plan(timed, "smoke").experiment("mine")
    small, large = (measured["variants"][f"{v.dataset}/{v.name}"] for v in experiment.variants)
    assert large["epoch_seconds"] > 2 * small["epoch_seconds"] > 0
    assert small["clips_per_second"] > 2 * large["clips_per_second"] > 0
    # A lower bound for one clip of 32 × 32 patches: the inputs of two mixers.
    dims = [v.config.model.hidden_dim for v in experiment.variants]
    assert dims == [8, 128]
    for found, dim in ((small, 8), (large, 128)):
        assert found["peak_memory"] > 2 * 4 * dim * 32 * 32
    assert large["peak_memory"] > 5 * small["peak_memory"]
    assert [small["config_hash"], large["config_hash"]] == [v.config.hash for v in experiment.variants]
    assert measured["device"]["type"] == "cpu"
    assert measured["threads"] == 1
    assert measured["rounds"] >= 3
    assert measured["provenance"]["source"] == source_version()
    assert "mine: 2 variants measured" in capsys.readouterr().err


def test_time_limits_the_rounds_but_not_below_three(timed, monkeypatch):
    turns = []
    monkeypatch.setattr(measure, "_SECONDS", 0.0)
    monkeypatch.setattr(Workload, "seconds", lambda workload, *_: turns.append(workload) or 0.5)
    measured = measure.measure(load_plan(timed, "smoke").experiment("mine"), device="cpu")
    assert measured["rounds"] == 3
    assert [found["clips_per_second"] for found in measured["variants"].values()] == [2.0, 2.0]
    first, second = dict.fromkeys(turns)
    # Each turn times a step and a prediction.
    assert turns == [first, first, second, second] * 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mein"], "no experiment 'mein'; did you mean 'mine'?"),
        (["mine", "--threads", "0"], "--threads must be at least 1, got 0"),
        (["mine", "--slots-per-gpu", "0"], "--slots-per-gpu must be 1 to 100, got 0"),
        (["mine", "--device", "tpu"], "device must be auto, cpu or cuda, got 'tpu'"),
    ],
)
def test_mistakes_are_reported_in_one_line(timed, tmp_path, capsys, arguments, message):
    assert call(timed, tmp_path, *arguments) == 1
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "smoke").exists()


def test_out_of_memory_is_reported_in_one_line(timed, tmp_path, capsys, monkeypatch):
    def lacks(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4294967296 bytes.")

    monkeypatch.setattr(Workload, "peak_memory", lacks)
    assert call(timed, tmp_path, "mine", "--device", "cpu") == 1
    assert "stlight: out of memory on cpu: DefaultCPUAllocator: can't allocate memory" in capsys.readouterr().err


def test_experiments_with_a_timed_metric_are_timed(timed, workflow):
    write_experiment(workflow, "other", grid=GRID, metrics=["mse", "num_params", "seconds"])
    write_experiment(
        workflow, "by_data_set", grid={"dataset": ["mmnist", "taxibj"]}, metrics={"mmnist": ["mse"], "taxibj": ["peak_memory"]}
    )
    plan = load_plan(workflow, "smoke")
    assert [e.name for e in plan.experiments.values() if e.timed] == [
        "by_data_set",
        "mine",
        "table1_literature",
        "table2_openstl",
    ]


def test_claims_about_times_are_refused(workflow):
    claim = {"id": "fast", "sentence": "Fast.", "metric": "epoch_seconds", "improves_along": "hidden_dim"}
    write_experiment(workflow, grid=GRID, metrics=["mse", "epoch_seconds"], claims=[claim])
    with pytest.raises(ValueError, match="epoch_seconds"):
        load_plan(workflow, "smoke")
