"""Claims as files state them: what is refused, and before anything starts."""

import pytest
from stlight.experiments.claims import KINDS

from stlight.experiments import load_plan
from stlight.experiments.yaml_files import ExperimentError
from tests.conftest import WORKFLOW
from tests.tiny_runs import write_experiment

TWO = {"this": {"depth": 16}, "than": {"depth": 8}}
QUOTED = [{"model": "Other", "mse": 20}, {"depth": 8, "mse": 10}]


def claim(**content):
    return {"id": "mine", "sentence": "It is so."} | content


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (claim(), r"mine\.yaml: claims\[0\] \(mine\): gives no test: one of better, "),
        (claim(metric="mse", better=TWO, improves_along="depth"), "gives better and improves_along: one of"),
        (claim(better=TWO), "metric: is missing"),
        (claim(metric="mes", better=TWO), r"claims\[0\]\.metric"),
        (claim(metric="mse", better={"this": {"depth": 16}}), r"claims\[0\]\.better: 'than' is a required property"),
        (claim(metric="mse", better=TWO | {"this": {"width": 1}}), "better: this: unknown axis 'width'"),
        (claim(metric="mse", better=TWO | {"this": {"depth": 4}}), "better: this: no cell has depth = 4"),
        (claim(metric="mse", better=TWO | {"this": {"depth": [8, 16]}}), "a cell would be compared with itself"),
        (claim(metric="mse", better=TWO | {"than": {"model": "Nobody"}}), "no cell has model = Nobody"),
        (claim(metric="benchmark_flops", better=TWO | {"than": {"model": "others"}}), "than: no cell has model = others"),
        (claim(metric="mse", better=TWO, each=["k1"]), "each: unknown axis 'k1'"),
        (claim(metric="mse", better=TWO, among={"dpeth": 8}), "among: unknown axis 'dpeth'; did you mean 'depth'"),
        (claim(metric="mse", improves_along="depth", among={"depth": 4}), "among: no cell has depth = 4"),
        (claim(metric=["mse", "benchmark_flops"], better=TWO), "cannot be in one claim"),
        (claim(untested=""), r"claims\[0\]\.untested"),
        (claim(metric="mse", better=TWO, each=["depth"]), "nothing to compare at each depth"),
        (claim(metric="mse", improves_along="k1"), "improves_along: must be one of depth, got 'k1'"),
        (claim(metric="mse", improves_along="depth", among={"depth": 8}), "must take two numbers or more"),
        (claim(metric="mse", optimum_in={"depth": [8, 16]}), "nothing to compare"),
        (claim(metric="mse", gains=TWO | {"by": 1, "margin": 1}), "'than' was unexpected"),
        (claim(metric="mse", gains={"this": {"depth": 16}, "over": {"depth": 8}, "by": 1, "margin": 0}), "margin"),
        (claim(metric="mse", as_good_as_best={"places": {"depth": 8}, "margin": -1}), "margin"),
        (claim(counts_equal={"component": "mixers", "within": 0.1}), "counts_equal is for experiments with train: false"),
        (claim(metric="mse", better=TWO, id="Not plain"), r"claims\[0\]\.id"),
        (claim(metric="mse", better=TWO, id="kernel_optimum"), r"the id 'kernel_optimum' is given twice"),
    ],
)
def test_wrong_claims_are_answered_in_one_line(workflow, stated, words):
    write_experiment(workflow, claims=[stated], published=QUOTED)
    with pytest.raises(ExperimentError, match=words) as caught:
        load_plan(workflow, "demo")
    assert "\n" not in str(caught.value)


def test_two_claims_of_one_name_are_refused_in_one_file(workflow):
    write_experiment(workflow, claims=[claim(untested="why")] * 2)
    with pytest.raises(ExperimentError, match="the id 'mine' is given twice"):
        load_plan(workflow, "demo")


def test_two_cells_are_asked_for_where_two_are_compared(workflow):
    spread = {"this": {"depth": 8}, "than": {"depth": [16, 32]}}
    write_experiment(workflow, grid={"depth": [8, 16, 32]}, claims=[claim(metric="mse", smaller_spread=spread)])
    with pytest.raises(ExperimentError, match="smaller_spread: compares two cells, got 1 and 2"):
        load_plan(workflow, "demo")


def test_counts_are_all_that_untrained_experiments_can_claim(workflow):
    write_experiment(
        workflow, train=False, metrics=["benchmark_flops"], figure={"kind": "growth"}, claims=[claim(metric="mse", better=TWO)]
    )
    with pytest.raises(ExperimentError, match="train: false can only have flops, num_params"):
        load_plan(workflow, "demo")


def test_every_kind_is_in_the_schema_and_used_by_the_paper(paper):
    used = {claim.kind for experiment in paper.experiments.values() for claim in experiment.claims}
    assert used == set(KINDS)
    schema = (WORKFLOW / "schemas" / "experiment.schema.json").read_text()
    assert all(f'"{kind}": {{' in schema for kind in KINDS)


def test_a_claim_about_counts_has_them_counted(workflow):
    write_experiment(workflow, claims=[claim(metric="num_params", better={"this": {"depth": 8}, "than": {"depth": 16}})])
    assert load_plan(workflow, "demo").experiments["mine"].counts
