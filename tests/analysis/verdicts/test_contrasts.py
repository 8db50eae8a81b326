"""Contrasts of many cells against independent references, and what must never change them."""

import itertools
import math
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats

from stlight.analysis.verdicts.comparisons import Comparer, build_test
from stlight.analysis.verdicts.contrasts import Contrast, block_weights
from stlight.analysis.verdicts.differences import Difference
from stlight.analysis.verdicts.grid_contrasts import vertex_interval
from stlight.experiments.grid_cells import GridCell
from tests.analysis.verdicts.error_rates import claim, grid


def build(stated, places, values, group=None):
    """The test of a claim on cells with these values, one row each. Cells of one group share seeds; by default none do."""
    cells = [
        GridCell(str(i), {"model": "STLight", **p}, SimpleNamespace(label=i, seed_group=group(p) if group else str(i)))
        for i, p in enumerate(places)
    ]
    experiment = SimpleNamespace(quoted=[], axes=list(places[0]))
    return build_test(Comparer(experiment, stated, lambda v, _: np.atleast_1d(values[v.label])), cells)


def only(test):
    """The comparison of a test that has one."""
    (((comparison,),),) = test.holds
    return comparison


FACTORS = grid(factor=(1, 2, 3, 4, 5, 6), lr=("a", "b"))
OVER_FACTORS = claim("better", {"this": {"lr": "a"}, "than": {"lr": "b"}}, on_average=["factor"])


@pytest.mark.parametrize("copies", [1, 2, 6])
def test_copies_of_diverged_runs_are_no_replicates(copies):
    # The factors of one rate share seeds: six factors tell no more than one.
    places = FACTORS[: 2 * copies]
    values = np.array([[1.0, 2.0, 3.0], [math.inf] * 3] * copies)
    p = only(build(OVER_FACTORS, places, values, group=lambda place: place["lr"])).rank_p()
    assert p == pytest.approx(1 / 8, abs=0.03)


SIZES = grid(size=(1, 2, 3, 4, 5), decoder=("a", "b"))
ON_AVERAGE = claim("better", {"this": {"decoder": "a"}, "than": {"decoder": "b"}}, on_average=["size"])
KERNELS = grid(k1=(3, 5, 7), k2=(3, 5, 7, 9, 11))
TREND = claim("trend", {"axis": "k2", "becomes": "worse"})


def two(a, b, paired):
    groups = ("same", "same") if paired else ("one", "other")
    return Contrast(losses=(a, b), weights=np.array([-1.0, 1.0]), groups=groups, blocks=("all", "all"))


@pytest.mark.parametrize("paired", [True, False])
def test_a_contrast_of_two_cells_is_their_difference(paired):
    a, b = np.random.default_rng(0).normal([[0.0], [1.0]], size=(2, 6))
    reference = Difference(a, b, paired)
    assert two(a, b, paired).p_above == pytest.approx(reference.p_above)
    assert two(a, b, paired).interval() == pytest.approx(reference.interval())


def test_an_average_of_unrepeated_pairs_is_scipy_s_paired_t_test_over_blocks():
    values = np.random.default_rng(0).normal(size=10) + np.tile([0, 1], 5)
    reference = stats.ttest_rel(values[1::2], values[::2], alternative="greater")
    found = only(build(ON_AVERAGE, SIZES, values))
    assert (found.estimate, found.p_above) == pytest.approx((np.mean(values[1::2] - values[::2]), reference.pvalue))
    # Paired within a size or not: the sizes are what is repeated.
    assert only(build(ON_AVERAGE, SIZES, values, lambda p: p["size"])).p_above == pytest.approx(reference.pvalue)


def test_a_trend_of_unrepeated_lines_is_a_t_test_of_their_slopes():
    values = np.random.default_rng(0).normal(size=15)
    slopes = [stats.linregress(range(5), line).slope for line in values.reshape(3, 5)]
    reference = stats.ttest_1samp(slopes, 0, alternative="greater")
    assert only(build(TREND, KERNELS, values)).p_above == pytest.approx(reference.pvalue)


def test_repeated_cells_need_no_assumption_about_the_blocks():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(10, 3)) * 0.1 + np.tile([0, 1], 5)[:, None] * np.repeat([0.2, 1, 2, 3, 9], 2)[:, None]
    found = only(build(ON_AVERAGE, SIZES, values))
    # Welch and Satterthwaite over all cells: blocks whose effects differ are no noise. The largest counts twice in the freedom.
    squares = values.var(1, ddof=1) / 3 / 25
    counted = np.where(squares == squares.max(), 2 * squares, squares)
    assert found.error() == pytest.approx((math.sqrt(squares.sum()), counted.sum() ** 2 / (counted**2 / 2).sum()))


def test_cells_that_share_seeds_are_combined_before_they_count():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(5, 4))
    values = np.repeat(shared, 2, axis=0) + np.tile([0, 0.5], 5)[:, None] + 0.01 * rng.normal(size=(10, 4))
    assert only(build(ON_AVERAGE, SIZES, values, lambda p: p["size"])).p_above < 1e-6
    assert only(build(ON_AVERAGE, SIZES, values)).p_above > 1e-3
    assert only(build(ON_AVERAGE.model_copy(update={"paired": False}), SIZES, values, lambda p: p["size"])).p_above > 1e-3


def test_blocks_that_repeat_the_same_seeds_are_no_replicates():
    # Three final factors trained with the same seeds: three copies of one number.
    places = grid(factor=(1, 2, 3), lr=(1, 2))
    average = claim("better", {"this": {"lr": 1}, "than": {"lr": 2}}, on_average=["factor"])
    values = np.tile([0.0, 1.0], 3) + 0.001 * np.random.default_rng(0).normal(size=6)
    copies = only(build(average, places, values, lambda p: p["lr"]))
    assert not copies.testable
    assert copies.p_above == 1
    assert only(build(average, places, values)).p_above < 0.001


def test_one_unrepeated_line_shows_no_noise():
    assert not build(claim("trend", {"axis": "x", "becomes": "worse"}), grid(x=(1, 2, 3, 4)), np.arange(4.0)).testable


def test_a_diverged_run_is_the_worst_of_its_block():
    values = np.arange(5.0)[None].repeat(3, 0).ravel() + 0.01 * np.random.default_rng(0).normal(size=15)
    for diverged, expected in (([4, 9, 14], "rises"), ([0, 5, 10], "falls")):
        worse = values.copy()
        worse[diverged] = math.inf
        found = only(build(TREND, KERNELS, worse))
        assert found.by_ranks
        assert (found.p_above < 0.01) is (expected == "rises")
    # A rank test with exact probabilities agrees: Page's, one row for each line.
    rng = np.random.default_rng(1)
    values = rng.normal(size=(3, 5)) + 0.4 * np.arange(5)
    values[1, 4] = math.inf
    page = stats.page_trend_test(np.where(np.isinf(values), 99, values), method="exact").pvalue
    assert only(build(TREND, KERNELS, values.ravel())).p_above == pytest.approx(page, abs=0.02)


RATES = grid(lr=(0.0003, 0.001, 0.003, 0.01))


def of_minimum(lowest, n=5, noise=0.02, seed=0):
    x = np.log([place["lr"] / lowest for place in RATES])
    return np.exp(0.1 * x[:, None] ** 2 + noise * np.random.default_rng(seed).normal(size=(4, n)))


@pytest.mark.parametrize(("lowest", "verdict"), [(0.003, "reproduced"), (0.0002, "contradicted"), (0.05, "contradicted")])
def test_the_optimum_of_a_parabola_is_near_or_not(lowest, verdict):
    test = build(claim("optimum", {"axis": "lr", "near": 0.003, "factor": 3}), RATES, of_minimum(lowest))
    assert test.p(verdict == "contradicted") < 0.01
    assert test.p(verdict != "contradicted") > 0.5


def slopes(values, at):
    """The slope of the parabola at 0 and at 1, as contrasts."""
    x = np.log([place["lr"] for place in RATES])
    powers, names = np.column_stack([x, x**2]), tuple("abcd")

    def slope(where):
        weights = block_weights(powers, ["all"] * 4, np.array([1.0, 2 * where]))
        return Contrast(losses=tuple(np.log(values)), weights=weights, groups=names, blocks=("all",) * 4)

    return [slope(where) for where in at]


def test_fieller_s_interval_ends_where_the_slope_is_just_significant():
    at_0, at_1 = slopes(of_minimum(0.003), (0.0, 1.0))
    low, high = vertex_interval(at_0, at_1)
    assert low < math.log(0.003) < high
    t = stats.t.ppf(0.975, at_0.error()[1])
    for end in (low, high):
        (slope,) = slopes(of_minimum(0.003), (end,))
        assert abs(slope.estimate) / slope.error()[0] == pytest.approx(t)
    polynomial = np.polyfit(np.log([p["lr"] for p in RATES]), np.log(of_minimum(0.003)).mean(1), 2)
    (minimum,) = np.roots(np.polyder(polynomial))
    assert optimize.brentq(lambda x: slopes(of_minimum(0.003), (x,))[0].estimate, -9, -3) == pytest.approx(minimum)


def test_a_parabola_without_a_minimum_decides_nothing_and_says_so():
    stated = claim("optimum", {"axis": "lr", "near": 0.003, "factor": 3})
    noise = 1e-6 * np.random.default_rng(0).normal(size=(4, 3))
    for curvature in (-0.1, 0.0, 1e-9):
        values = np.exp(curvature * np.log([p["lr"] / 0.003 for p in RATES])[:, None] ** 2 + noise)
        (((lower,),), _) = build(stated, RATES, values).holds
        assert re.search("nowhere: it has no minimum|lowest at LR", lower.said)
    line = np.exp(np.log([p["lr"] for p in RATES])[:, None] + noise)
    assert "nowhere" in build(stated, RATES, line * [[1.0], [1.0], [1.0], [1.0 - 1e-3]]).holds[0][0][0].said


def test_fieller_s_interval_holds_the_optimum():
    found = [vertex_interval(*slopes(of_minimum(0.003, 3, 0.1, seed), (0.0, 1.0))) for seed in range(400)]
    held = np.mean([low <= math.log(0.003) <= high for low, high in found])
    # A share of 95 % is below 0.92 in 400 trials with a chance of one in two hundred.
    assert held > 0.92


TESTS = {"average": (ON_AVERAGE, SIZES), "trend": (TREND, KERNELS)}


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(sorted(TESTS)), st.integers(1, 4), st.integers(0, 2**32 - 1), st.integers(-6, 6), st.booleans())
def test_contrasts_turn_with_the_values_and_know_no_unit(kind, n, seed, power, shared):
    stated, places = TESTS[kind]
    values = np.random.default_rng(seed).normal(size=(len(places), n)) + 5
    group = (lambda p: next(iter(p.values()))) if shared else None
    test, turned, scaled = (build(stated, places, v, group) for v in (values, -values, values * 2.0**power))
    assert turned.p(True) == pytest.approx(test.p(False))
    assert turned.p(False) == pytest.approx(test.p(True))
    # Up to rounding, because sums over many cells are rounded differently.
    assert (scaled.p(False), scaled.p(True)) == pytest.approx((test.p(False), test.p(True)), rel=1e-12)
    # Blocks differ as they like: a constant added to one of them changes nothing.
    axis = next(iter(places[0]))
    lifted = build(stated, places, values + [[8.0 * (p[axis] == 3)] for p in places], group)
    assert lifted.p(False) == pytest.approx(test.p(False))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_a_comparison_and_its_opposite_have_one_identity(seed, n):
    values = np.random.default_rng(seed).normal(size=(len(KERNELS), n))
    worse, better = (claim("trend", {"axis": "k2", "becomes": word}) for word in ("worse", "better"))
    assert build(worse, KERNELS, values).identity == build(better, KERNELS, values).identity
    others = [build(claim("trend", {"axis": axis, "becomes": "worse"}), KERNELS, values).identity for axis in ("k1", "k2")]
    assert len(set(others)) == 2


def test_cells_that_do_not_determine_a_parabola_are_refused():
    with pytest.raises(ValueError, match="2 cells do not determine 3 coefficients"):
        block_weights(np.array([[1.0, 1.0], [2.0, 4.0]]), ["all", "all"], np.array([1.0, 0.0]))


def test_each_order_of_the_cells_gives_the_same_weights():
    terms = np.arange(4.0)[:, None]
    weights = block_weights(terms, list("aaaa"), np.ones(1))
    assert weights @ terms[:, 0] == pytest.approx(1)
    for order in itertools.permutations(range(4)):
        assert block_weights(terms[list(order)], list("aaaa"), np.ones(1)) == pytest.approx(weights[list(order)])
