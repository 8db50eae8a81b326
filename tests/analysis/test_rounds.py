"""The sentences that rounds ask about, before and after runs."""

from pathlib import Path

from stlight.analysis.evidence import load_evidence
from stlight.analysis.rounds import questions
from stlight.analysis.values import Values
from stlight.experiments import load_plan
from tests.conftest import WORKFLOW


def test_only_values_of_the_paper_s_size_are_hopeless_before_any_run(tmp_path):
    plan = load_plan(WORKFLOW, "small", Path("nowhere")).for_budget({})
    values = {name: Values(evidence) for name, evidence in load_evidence(plan, tmp_path).items()}
    asked = {question.name: question for question in questions(plan, values)}
    assert "the paper's own size" in asked["optimal_lr"].never
    assert asked["small_lr_worse"].open
    never = {name for name, question in asked.items() if question.never}
    assert never == {claim.id for e in plan.experiments.values() for claim in e.claims if claim.id in asked and claim.absolute}
