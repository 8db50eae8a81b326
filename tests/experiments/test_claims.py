"""Claims as files state them: what is refused, and before anything starts."""

import math

import pytest

from stlight.analysis.verdicts.comparisons import COMPARISONS_BY_KIND, DEVIATIONS_BY_KIND
from stlight.experiments import ExperimentError, load_plan
from stlight.experiments.claim_types import KINDS
from tests.tiny_runs import write_experiment

TWO = {"this": {"depth": 16}, "than": {"depth": 8}}
QUOTED = [{"model": "Other", "mse": 20}, {"depth": 8, "mse": 10}]


def claim(**content):
    return {"id": "mine", "sentence": "It is so."} | content


@pytest.mark.parametrize("number", [math.inf, math.nan])
@pytest.mark.parametrize(
    ("stated", "place"),
    [
        ({"as_good_as_best": {"places": {"depth": 8}, "margin": 1}}, "margin"),
        ({"gains": {"this": {"depth": 8}, "over": {"depth": 16}, "by": 1, "margin": 1}}, "margin"),
        ({"gains": {"this": {"depth": 8}, "over": {"depth": 16}, "by": 1, "margin": 1}}, "by"),
        ({"optimum": {"axis": "depth", "near": 8, "factor": 2}}, "near"),
        ({"optimum": {"axis": "depth", "near": 8, "factor": 2}}, "factor"),
        ({"counts_equal": {"component": "mixers", "within": 1}}, "within"),
        ({"count_grows": {"component": "mixers", "axis": "depth", "exponent": 1, "within": 1}}, "exponent"),
    ],
)
def test_an_amount_must_be_finite(scales, stated, place, number):
    ((kind, terms),) = stated.items()
    counted = kind.startswith("count")
    write_experiment(scales, claims=[claim(**{} if counted else {"metric": "mse"}, **{kind: terms | {place: number}})])
    with pytest.raises(ExperimentError, match=rf"\.{place}: input should be a finite number, got {number}"):
        load_plan(scales, "paper")


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        (claim(), r"mine\.yaml: claims\[0\] \(mine\): gives no test: one of better, "),
        (claim(metric="mse", better=TWO, improves_along="depth"), "gives better and improves_along: one of"),
        (claim(better=TWO), "metric: is missing"),
        (claim(metric="mes", better=TWO), r"claims\[0\] \(mine\)\.metric: unknown metric 'mes'; did you mean 'mse'"),
        (claim(metric=["mse", "mes"], better=TWO), r"claims\[0\] \(mine\)\.metric\[1\]: unknown metric 'mes'"),
        (claim(metric=["epoch_seconds", "seconds"], better=TWO), "metric: no claim can be about epoch_seconds, seconds"),
        (claim(metric="mse", better={"this": {"depth": 16}}), r"claims\[0\] \(mine\)\.better\.than: is missing"),
        (claim(metric="mse", better=TWO | {"this": {"width": 1}}), "better: unknown axis 'width'"),
        (claim(metric="mse", better=TWO | {"this": {"depth": 4}}), "better: no cell has depth = 4"),
        (claim(metric="mse", better=TWO | {"this": {"depth": [8, 16]}}), "a cell would be compared with itself"),
        (claim(metric="mse", better=TWO | {"than": {"model": "Nobody"}}), "no cell has model = Nobody"),
        (claim(metric="benchmark_flops", better=TWO | {"than": {"model": "others"}}), "better: no cell has model = others"),
        (claim(metric="mse", better=TWO, each=["k1"]), "each: unknown axis 'k1'"),
        (claim(metric="mse", better=TWO, among={"dpeth": 8}), "among: unknown axis 'dpeth'; did you mean 'depth'"),
        (claim(metric="mse", improves_along="depth", among={"depth": 4}), "among: no cell has depth = 4"),
        (
            claim(metric=["mse", "benchmark_flops"], better=TWO),
            "metric: benchmark_flops is counted, mse is trained for: they cannot be in one claim",
        ),
        ("hello", r"mine\.yaml: claims\[0\]: must be a mapping, got 'hello'"),
        (claim(untested=""), r"claims\[0\] \(mine\)\.untested: .*at least 1 character"),
        (claim(metric="mse", better=TWO, each=["depth"]), "nothing to compare at each depth"),
        (claim(metric="mse", improves_along="k1"), "improves_along: unknown axis 'k1'; known are depth"),
        (claim(metric="mse", improves_along="depth", among={"depth": 8}), "must take two numbers or more"),
        (claim(metric="mse", optimum_in={"depth": [8, 16]}), "nothing to compare"),
        (claim(metric="mse", better=TWO, on_average=["depth"]), "on_average: nothing to compare at depth = "),
        (claim(metric="mse", better=TWO, on_average=["width"]), "on_average: unknown axis 'width'"),
        (
            claim(metric="mse", improves_along="depth", on_average=["depth"]),
            "unknown key 'on_average'",
        ),
        (claim(metric="mse", trend={"axis": "width", "becomes": "worse"}), "trend: unknown axis 'width'"),
        (claim(metric="mse", trend={"axis": "depth", "becomes": "worse"}, among={"depth": 8}), "depth must take 2 numbers"),
        (claim(metric="mse", trend={"axis": "depth", "becomes": "larger"}), r"trend\.becomes: .*got 'larger'"),
        (claim(metric="mse", optimum={"axis": "depth", "near": 8, "factor": 2}), "optimum: depth must take 3 numbers"),
        (claim(metric="mse", optimum={"axis": "depth", "near": 8, "factor": 1}), r"optimum\.factor: .*got 1"),
        (claim(metric="mse", gains=TWO | {"by": 1, "margin": 1}), "gains: unknown key 'than'"),
        (
            claim(metric="mse", gains={"this": {"depth": 16}, "over": {"depth": 8}, "by": 1, "margin": 0}),
            "margin: .*got 0",
        ),
        (claim(metric="mse", as_good_as_best={"places": {"depth": 8}, "margin": -1}), "as_good_as_best.margin: .*got -1"),
        (claim(counts_equal={"component": "mixers", "within": 0.1}), "counts_equal is for experiments with train: false"),
        (claim(metric="mse", better=TWO, id="Not plain"), r"claims\[0\] \(Not plain\)\.id: .*got 'Not plain'"),
    ],
)
def test_mistakes_in_claims_are_named(scales, stated, words):
    write_experiment(scales, claims=[stated], published=QUOTED)
    with pytest.raises(ExperimentError, match=words) as caught:
        load_plan(scales, "demo")
    assert "\n" not in str(caught.value)


def test_two_claims_of_one_name_are_refused(scales):
    write_experiment(scales, claims=[claim(untested="why")] * 2)
    with pytest.raises(ExperimentError, match="the id 'mine' is given twice"):
        load_plan(scales, "demo")
    write_experiment(scales, claims=[claim(untested="why")])
    write_experiment(scales, "other", claims=[claim(untested="why")])
    with pytest.raises(ExperimentError, match=r"other\.yaml: claims: the id 'mine' is given twice \(also in mine\)"):
        load_plan(scales, "demo")


def test_two_cells_are_asked_for_where_two_are_compared(scales):
    spread = {"this": {"depth": 8}, "than": {"depth": [16, 32]}}
    write_experiment(scales, grid={"depth": [8, 16, 32]}, claims=[claim(metric="mse", smaller_spread=spread)])
    with pytest.raises(ExperimentError, match="smaller_spread: compares two cells, got 1 and 2"):
        load_plan(scales, "demo")


def test_counts_are_all_that_untrained_experiments_can_claim(scales):
    write_experiment(
        scales, train=False, metrics=["benchmark_flops"], figure={"kind": "growth"}, claims=[claim(metric="mse", better=TWO)]
    )
    with pytest.raises(ExperimentError, match="train: false can only have benchmark_flops, num_params"):
        load_plan(scales, "demo")


def test_every_kind_of_claim_can_be_judged():
    assert set(KINDS) == {"untested"} | COMPARISONS_BY_KIND.keys() | DEVIATIONS_BY_KIND.keys()


def test_a_claim_about_counts_has_them_counted(scales):
    write_experiment(scales, claims=[claim(metric="num_params", better={"this": {"depth": 8}, "than": {"depth": 16}})])
    assert load_plan(scales, "demo").experiments["mine"].counts
