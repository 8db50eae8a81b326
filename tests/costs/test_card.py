"""Runs reckoned from the file that the GPU benchmark writes."""

import json

import pytest

from stlight import cli
from stlight.config import RunConfig
from stlight.costs.card import Card
from stlight.costs.estimate import slots_for
from stlight.experiments import load_plan
from tests.tiny_runs import write_experiment

STEP = {"fields": {}, "float32": {"ours_seconds": 0.1, "listing_seconds": 0.4, "graph_seconds": 0.05}}
CONTENT = {
    "format": 1,
    "device": {"name": "A GPU", "memory": 80 * 2**30, "process_memory": 2**30},
    "clips": {"per_second": 1000.0},
    "steps": {
        "small": STEP | {"multiply_adds": 1e9},
        "paper": {"multiply_adds": 1e11, "float32": {"ours_seconds": 1.0, "listing_seconds": 4.0}},
        "gpu": {"error": "RuntimeError: no kernel image"},
        "demo": {"multiply_adds": 1e8, "float32": {"error": "CUDA out of memory"}},
    },
}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "card.json"
    path.write_text(json.dumps(CONTENT))
    return path


def config(**fields):
    return RunConfig.from_fields({"batch_size": 10, "dataset": "taxibj", "source": "stand_in"} | fields)


@pytest.mark.parametrize(
    ("fields", "multiply_adds", "step"),
    [
        ({}, 1e9, 0.1),
        ({}, 1e10, 10**-0.5),  # half-way on logarithmic axes
        ({}, 1e7, 0.1),
        ({}, 1e12, 10.0),
        ({"cuda_graphs": True}, 1e9, 0.05),
        ({"kernels": "plain"}, 1e9, 0.4),
        ({"model": "TAU"}, 1e11, 4.0),
    ],
)
def test_steps_between_those_measured(fields, multiply_adds, step, file):
    seconds, evaluation = Card.load(file).seconds(config(**fields), multiply_adds)
    assert seconds == pytest.approx(step)
    assert evaluation == pytest.approx(step / 30)


def test_drawing_the_clips_counts(file):
    seconds, evaluation = Card.load(file).seconds(config(dataset="mmnist", source="embedded"), 1e9)
    assert seconds == pytest.approx(0.1 + 10 / 1000)
    assert evaluation == pytest.approx(0.1 / 30 + 1 / 1000)


def test_slots_by_measured_memory(file):
    card = Card.load(file)
    assert card.slots(2**30) == 36  # 0.9 · 80 GiB / (1 GiB + 1 GiB)
    assert card.slots(80 * 2**30) == 0


def test_slots_of_a_plan_are_those_of_its_largest_run(file, scales, capsys):
    write_experiment(scales, "depths", base={"max_lr": 0.001}, grid={"depth": [8, 16]})
    loaded = load_plan(scales, "paper", scales)
    slots = slots_for(loaded, file)
    assert slots > 1
    # `plan` computes them from the memory of all runs.
    assert plan(file, scales, "--scale", "paper") == 0
    assert f"slots_per_gpu={slots}" in capsys.readouterr().out.split()
    # The rounds of a budget begin without a run.
    assert slots_for(loaded.with_seeds(dict.fromkeys(loaded.seeds, 0)), file) == slots
    for memory in (None, 2**31):
        file.write_text(json.dumps(CONTENT | {"device": CONTENT["device"] | {"memory": memory}}))
        assert slots_for(loaded, file) == 1


def plan(file, scales, *arguments):
    return cli.main(["plan", "--workflow", str(scales), "--data-root", str(scales), "--device-rate", str(file), *arguments])


@pytest.mark.parametrize("scale", ["paper", "gpu", "small"])
def test_a_scale_is_reckoned_by_item(scale, file, scales, capsys):
    write_experiment(scales, "depths", base={"max_lr": 0.001}, grid={"depth": [8, 16]})
    assert plan(file, scales, "--scale", scale) == 0
    printed = capsys.readouterr().out
    assert f"scale {scale} on A GPU, from {file}" in printed
    assert any(line.startswith("depths") for line in printed.splitlines())
    assert "with 1 side by side" in printed
    assert "slots_per_gpu=" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a file of `python -m benchmarks gpu`"),
        ("[]", "not a file of `python -m benchmarks gpu`"),
        (json.dumps(CONTENT | {"steps": {"gpu": {"error": "x"}}}), "holds no measured step"),
        (json.dumps(CONTENT | {"steps": {"small": {"float32": {"ours_seconds": 1}}}}), "KeyError: 'multiply_adds'"),
        (
            json.dumps(CONTENT | {"steps": {"small": {"multiply_adds": 1e9, "bfloat16": STEP["float32"]}}}),
            "no float32 step",
        ),
    ],
)
def test_a_file_that_does_not_say_is_refused(text, message, file, scales, capsys):
    write_experiment(scales, "depths", base={"max_lr": 0.001}, grid={"depth": [8, 16]})
    file.write_text(text)
    assert plan(file, scales, "--scale", "demo") == 1
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_two_rates_contradict_each_other(file, scales, capsys):
    assert plan(file, scales, "--flops", "1e12") == 1
    assert "give one of them" in capsys.readouterr().err
