"""The learning rates of the scales are those that the kept sweeps found. docs/scales.md says how to renew them."""

import math

import pandas as pd
import pytest

from stlight.experiments import load_plan
from stlight.registry.dataset_specs import base_of
from stlight.runs.record import read_record
from tests.conftest import REPOSITORY, WORKFLOW

KEPT = REPOSITORY / "results" / "reference" / "sweeps"
SCALES = [path.name for path in sorted(KEPT.iterdir())]
WITHIN = 1.03
"""A single run of the best rate may be this much better than the scale's; of several, no more than twice their spread."""


@pytest.fixture(params=SCALES)
def sweep(request):
    return load_plan(WORKFLOW, request.param, experiments_folder="sweeps"), KEPT / request.param


def test_each_scale_that_trains_here_is_swept():
    assert {"demo", "small"} <= set(SCALES)


def test_the_runs_of_a_sweep_are_kept_and_of_the_present_configuration(sweep):
    plan, kept = sweep
    for name, config in plan.runs.items():
        assert read_record(kept / "runs" / name / "record.json").config_hash == config.hash, name


def test_the_rate_of_a_scale_is_the_best_of_its_sweep(sweep):
    plan, kept = sweep
    for experiment in plan.experiments.values():
        rows = [
            (v.dataset, v.paper.model.model, v.axes["max_lr"], read_record(kept / "runs" / name / "record.json"))
            for v in experiment.variants
            for name in experiment.runs_of(v)
        ]
        found = pd.DataFrame(
            {"dataset": dataset, "model": model, "rate": rate, "mse": record.metrics["last"]["mse"], "status": record.status}
            for dataset, model, rate, record in rows
        )
        for (dataset, model), group in found.groupby(["dataset", "model"]):
            done = group[group["status"] == "done"].groupby("rate")["mse"]
            finished, own = done.mean(), base_of(dataset, model)["max_lr"]
            spread = done.std()[[own, finished.idxmin()]].max()
            allowed = (WITHIN - 1) * finished.min() if math.isnan(spread) else max(2 * spread, (WITHIN - 1) * finished.min())
            assert finished[own] - finished.min() <= allowed, (dataset, model)
            assert len(finished) > 3
            # Not at the end of the sweep, unless all rates beyond it diverge.
            assert group["rate"].min() < own < group["rate"].max()
