"""A plan with claims of the test's choosing."""

import pytest

from stlight.experiments import load_plan
from tests.tiny_runs import write_experiment


@pytest.fixture
def plan_of(workflow):
    """A plan with a single custom experiment: three seeds of cells on an axis, with these claims."""

    def write(*claims, grid=None, seeds=5, **content):
        claims = [{"id": f"mine{i}", "sentence": "It is so."} | claim for i, claim in enumerate(claims)]
        write_experiment(workflow, grid=grid or {"depth": [4, 8, 16]}, seeds=seeds, claims=claims, **content)
        return load_plan(workflow, "demo")

    return write
