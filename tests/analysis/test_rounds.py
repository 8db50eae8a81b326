"""The sentences that rounds ask about, and the cells that they train."""

from pathlib import Path

import pytest

from stlight.analysis.evidence import load_evidence
from stlight.analysis.rounds import next_round, questions
from stlight.analysis.values import Values
from stlight.experiments import load_plan
from tests.conftest import WORKFLOW


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A plan for a budget at a scale that trains three of the baselines, and its numbers: none."""
    plan = load_plan(WORKFLOW, "small", Path("nowhere")).for_budget({})
    return plan, {name: Values(evidence) for name, evidence in load_evidence(plan, tmp_path_factory.mktemp("empty")).items()}


def test_sentences_that_no_run_of_the_scale_can_test_are_not_asked(small):
    asked = {question.name for question in questions(*small)}
    assert {"small_lr_worse", "more_accurate_than_tau_mse"} <= asked
    # A value that only the paper's size has, and models that the scale does not train.
    assert not {"optimal_lr", "gain_of_half", "more_accurate_than_mim", "best_in_table2_mse"} & asked


def test_a_budget_does_not_claim_the_seeds_of_the_scale(small):
    plan, _ = small
    assert "Three seeds" in load_plan(WORKFLOW, "small", Path("nowhere")).scale.summary
    assert "hree seeds" not in plan.scale.summary
    assert "budget" in plan.scale.summary


def test_the_last_runs_go_to_trained_cells_only(small):
    plan, values = small
    found = next_round(plan, values, [], dict.fromkeys(plan.seeds, 1e6), hours=1e6)
    assert found.seeds
    assert not any("MIM" in cell for cell in found.seeds)
    nothing_affordable = next_round(plan, values, [], dict.fromkeys(plan.seeds, 3000.0), hours=1)
    assert sum(nothing_affordable.seeds.values()) == 1
