"""The rule of verdicts against independent references, and what must never change it."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stlight.analysis.verdicts.differences import Difference, seeds_needed
from stlight.analysis.verdicts.judging import Reading, Test, arithmetic, holm, p_either
from stlight.analysis.verdicts.judging import judge as judge_readings
from stlight.analysis.verdicts.ranking import fit_noise, rank
from tests.analysis.verdicts.error_rates import measure

A = np.array([10.1, 10.4, 9.8])
B = np.array([11.9, 12.6, 12.2])


def judge(tests):
    """Judge tests of a sentence each, looked at once."""
    return judge_readings({name: Reading(name, ((test, 1.0),)) for name, test in tests.items()})


def compare(a, b, paired=False):
    return Test((((Difference(a, b, paired),),),))


def verdict(a, b, paired=False):
    return judge({"x": compare(a, b, paired)})["x"].verdict


def test_welch_is_scipy_s():
    difference = Difference(A, B)
    reference = stats.ttest_ind(B, A, equal_var=False, alternative="greater")
    assert difference.p_above == pytest.approx(reference.pvalue)
    interval = stats.ttest_ind(B, A, equal_var=False).confidence_interval(0.95)
    assert difference.interval() == pytest.approx((interval.low, interval.high))


def test_counts_are_certain():
    fewer, more = np.array([1e6]), np.array([2e6])
    assert Difference(fewer, more, metric="num_params").p_above == 0
    assert Difference(more, fewer, metric="num_params").p_above == 1
    assert Difference(fewer, fewer, metric="num_params").p_above == 1
    # One seed of a trained metric says nothing.
    assert Difference(fewer, more, metric="mse").p_above == 1


def test_a_worse_model_is_not_dominated_if_it_costs_less():
    worse, costly = Difference(B, A, metric="mse"), Difference(np.array([2e6]), np.array([1e6]), metric="num_params")
    cheap = Difference(np.array([1e6]), np.array([2e6]), metric="num_params")
    assert judge({"x": Test((((worse,), (cheap,)),))})["x"].verdict == "reproduced"
    assert judge({"x": Test((((worse,), (costly,)),))})["x"].verdict == "contradicted"


def test_a_threshold_is_tested_as_scipy_does_on_shifted_values():
    reference = stats.ttest_ind(B, A + 1.5, equal_var=False, alternative="greater")
    assert Difference(A, B, threshold=1.5).p_above == pytest.approx(reference.pvalue)


def test_the_pooled_spread_is_anova_s_where_cells_are_alike():
    rng = np.random.default_rng(0)
    cells = list(rng.normal(size=(8, 4)))
    sd, _ = fit_noise(cells)
    assert sd == pytest.approx(math.sqrt(np.mean([cell.var(ddof=1) for cell in cells])))
    sd, why = fit_noise(list(rng.normal(size=(2, 3))))
    assert math.isnan(sd)
    assert "too few seeds" in why
    # More seeds would not help a metric without noise.
    assert fit_noise([np.ones(3), np.zeros(3)])[1] == "the seeds of a cell agree to the last digit"
    unequal = [scale * cell for scale, cell in zip([1, 1, 1, 10], rng.normal(size=(4, 5)), strict=True)]
    sd, why = fit_noise(unequal)
    assert math.isnan(sd)
    assert "spreads differ" in why


def test_cells_of_one_seed_group_are_compared_by_scipy_s_paired_t_test():
    rng = np.random.default_rng(1)
    shift = rng.normal(scale=5, size=12)
    cells = [level + shift + rng.normal(size=12) for level in (0.0, 1.0)]
    reference = stats.ttest_rel(cells[1], cells[0], alternative="greater")
    assert Difference(*cells, paired=True).p_above == pytest.approx(reference.pvalue)


def test_holm_by_hand():
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx({"d": 0.02, "a": 0.03, "c": 0.06, "b": 0.06})


def test_one_seed_never_decides():
    assert verdict(np.array([1.0]), np.array([1000.0])) == "undecided"
    assert math.isnan(Difference(np.array([1.0]), np.array([2.0])).detectable(0.04))


def test_a_diverged_run_is_the_worst_and_order_alone_decides():
    diverged = np.full(5, math.inf)
    fine = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert verdict(fine, diverged) == "reproduced"
    assert verdict(diverged, fine) == "contradicted"
    # By ranks 1 of 252 orders is as extreme.
    assert Difference(fine, diverged).p_above == pytest.approx(1 / 252)
    # Three against three: 1 of 20 is too many.
    assert verdict(fine[:3], diverged[:3]) == "undecided"
    assert verdict(diverged, diverged) == "undecided"
    # One among many is far from the mean of any, and yet no proof.
    assert verdict(fine, np.array([1.5, 2.5, 3.5, 4.5, math.inf])) == "undecided"


def test_ranks_of_many_seeds_agree_with_mann_and_whitney():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=12), np.append(rng.normal(0.8, size=11), math.inf)
    exact = stats.mannwhitneyu(a, b, alternative="less", method="exact").pvalue
    assert Difference(a, b).p_above == pytest.approx(exact, abs=0.01)


def test_seeds_that_do_not_differ_are_no_proof_by_themselves():
    assert verdict(np.array([0.3 + 1e-16, 0.3, 0.3]), np.full(3, 0.5)) == "undecided"
    assert verdict(np.full(3, 1.0), np.full(3, 2.0)) == "undecided"
    assert verdict(np.full(6, 1.0), np.full(6, 2.0)) == "reproduced"


def test_all_must_hold_and_one_is_enough_to_fail():
    rng = np.random.default_rng(0)
    low, middle, high = (level + rng.normal(size=8) for level in (0, 10, 20))

    def chain(*cells):
        steps = tuple(Difference(a, b) for a, b in itertools.pairwise(cells))
        return judge({"x": Test(((steps,),))})["x"].verdict

    assert chain(low, middle, high) == "reproduced"
    assert chain(low, high, middle) == "contradicted"
    assert chain(low, middle, middle + rng.normal(size=8)) == "undecided"


def test_a_sentence_that_is_contradicted_hangs_on_the_weakest_comparison():
    rng = np.random.default_rng(0)
    good, bad, worst = (level + 0.1 * rng.normal(size=8) for level in (20.0, 21.0, 50.0))
    # "The best is one of the bad and the worst": one outside is better than both.
    judged = judge({"x": Test((((Difference(bad, good),), (Difference(worst, good),)),))})["x"]
    assert judged.verdict == "contradicted"
    assert judged.deciding.estimate == pytest.approx(1, abs=0.2)


def test_alternatives_count_within_their_part_only():
    rng = np.random.default_rng(0)
    a, b, c = (level + rng.normal(size=5) for level in (0.0, 0.5, 3.0))
    part = ((Difference(a, c),), (Difference(b, c),))
    once, often = Test((part,)), Test((part,) * 12)
    assert judge({"x": often})["x"].p == judge({"x": once})["x"].p
    assert p_either(part) == pytest.approx(2 * min(Difference(x, c).p_above for x in (a, b)))


def test_a_difference_that_is_detectable_is_detected_four_times_in_five():
    rng = np.random.default_rng(0)
    # Two sides of one spread: Welch's degrees of freedom are 2 (n - 1).
    side = np.array([-1.0, 0.0, 0.0, 0.0, 1.0])
    difference = Difference(side, side)
    size, (error, df) = difference.detectable(0.04), difference.error()
    assert df == pytest.approx(8)
    estimates = size + error * rng.normal(size=200_000)
    spreads = np.sqrt(rng.chisquare(df, 200_000) / df)
    seen = estimates / (error * spreads) > stats.t.ppf(0.96, df)
    assert seen.mean() == pytest.approx(0.8, abs=0.005)


def test_the_seeds_needed_suffice_and_one_less_does_not():
    def power(n, effect):
        df, shift = 2 * (n - 1), effect / math.sqrt(2 / n)
        return stats.nct.sf(stats.t.ppf(0.96, df), df, shift)

    for effect in (0.5, 1.0, 3.0):
        n = seeds_needed(effect, 1.0, 0.04)
        assert power(n, effect) >= 0.8 > power(n - 1, effect)
    assert seeds_needed(0.01, 1.0, 0.04) is None
    assert seeds_needed(0.0, 1.0, 0.04) is None
    # Far above what a t quantile needs to be looked up for.
    assert seeds_needed(0.2, 1.0, 0.04) == pytest.approx(2 * (stats.norm.ppf(0.96) + stats.norm.ppf(0.8)) ** 2 / 0.04, rel=0.01)


def test_single_numbers_are_arithmetic_within_their_rounding():
    def of(a, b, resolution=0.0):
        return arithmetic(Test((((Difference(np.array([a]), np.array([b]), resolution=resolution),),),)))

    assert (of(1, 2), of(2, 1), of(1, 1)) == ("reproduced", "contradicted", "undecided")
    # 0.9113 and 0.911: the second may have been rounded from 0.9114.
    assert of(0.911, 0.9113, 0.0005) == "undecided"


values = st.lists(st.floats(-1e3, 1e3, allow_nan=False).map(lambda v: round(v, 3)), min_size=3, max_size=8)


@settings(deadline=None)
@given(values, values, st.floats(-30, 30))
def test_the_verdict_turns_with_the_effect(a, b, shift):
    a, b = np.array(a), np.array(b) + shift
    opposite = {"reproduced": "contradicted", "contradicted": "reproduced", "undecided": "undecided"}
    assert verdict(-a, -b) == verdict(b, a) == opposite[verdict(a, b)]


@settings(deadline=None)
@given(values, values, st.integers(-6, 6), st.floats(-1e3, 1e3))
def test_units_change_no_verdict(a, b, power, offset):
    a, b = np.array(a), np.array(b)
    # Powers of two: exact in floats, so that no last digit can turn a verdict.
    assert verdict(a * 2.0**power, b * 2.0**power) == verdict(a, b)
    assert verdict(a, a + 5) == verdict(a + round(offset), a + 5 + round(offset))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.sampled_from([3, 5]), st.booleans())
def test_the_order_of_seeds_changes_nothing(seed, n, shifted):
    rng = np.random.default_rng(seed)
    cells = rng.normal(size=(6, n)) + 3 * shifted * rng.normal(size=n) + 2 * rng.integers(0, 2, (6, 1))
    order = rng.permutation(n)
    before, after = (judge({"x": compare(c[0], c[1], shifted)})["x"] for c in (cells, cells[:, order]))
    assert before.verdict == after.verdict
    assert before.p == pytest.approx(after.p)
    assert rank(list(cells)).ties == rank(list(cells[:, order])).ties


def test_ties_with_the_best_and_the_probability_of_each():
    rng = np.random.default_rng(0)
    cells = [level + rng.normal(size=5) for level in (0.0, 0.1, 9.0)]
    ranking = rank(cells)
    assert ranking.ties == [True, True, False]
    assert sum(ranking.p_best) == pytest.approx(1)
    assert ranking.p_best[2] < 0.001
    assert 0.1 < ranking.p_best[0] < 0.9
    alone = rank([cells[0] - 50, *cells[1:]])
    assert alone.ties == [True, False, False]
    # Two cells of equal spread and mean win alike.
    even = rank([cells[0], cells[0][::-1]])
    assert even.p_best == pytest.approx([0.5, 0.5], abs=0.02)


def test_a_cell_is_told_from_the_best_from_the_smallest_difference_on():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=6)
    cells = [level + rng.permutation(noise) for level in (0.0, 0.3, 1.0, 8.0)]
    floor = rank(cells).smallest_difference
    # Cells of one spread each: the floor is the same for all, and just what divides ties from the others.
    for step, tie in ((0.99, True), (1.01, False)):
        moved = [*cells[:3], cells[0] + 0, cells[3]]
        moved[3] = rng.permutation(noise) - noise.mean() + cells[0].mean() + step * rank(moved).smallest_difference
        assert rank(moved).ties[3] is tie, floor


def test_orders_that_agree_are_stable():
    base = np.arange(5.0)[:, None]
    same = rank(list(base + 0.1 * np.random.default_rng(0).normal(size=(5, 3))))
    assert same.stability == pytest.approx(1)
    none = rank(list(np.random.default_rng(0).normal(size=(40, 3))))
    assert abs(none.stability) < 0.2


def test_diverged_cells_are_ranked_last_and_waiting_ones_not_at_all():
    ranking = rank([np.array([1.0, 2.0, 1.5]), np.full(3, math.inf), np.array([])])
    assert ranking.p_best[0] == 1
    assert ranking.p_best[1] == 0
    assert math.isnan(ranking.p_best[2])
    assert ranking.ties[2] is False
    assert rank([np.array([1.0]), np.array([])]).ties == [False, False]


@pytest.mark.parametrize(
    ("noise", "names"),
    [
        ("normal", ("A better than B", "five sentences (any wrong)")),
        ("heavy", ("A better than B", "each of four steps improves", "as good as the best, within 1")),
    ],
)
def test_wrong_verdicts_are_rare(noise, names):
    """A quick form of the table in docs/statistics.md: real verdicts on numbers of known truth."""
    trials = 50
    found = measure(trials, names, seeds=(1, 5), noises=(noise,), effects=(0.0, 1.0, 4.0), processes=1)
    # At an error rate of 5 %, more than 10 of 50 trials have a chance below a ten-thousandth.
    assert max(wrong for wrong, _ in found.values()) <= 0.2
    over_a_grid = measure(trials, ("on average over 11 sizes, paired",), (1, 3), (noise,), (0.0, 4.0), processes=1)
    assert max(wrong for wrong, _ in over_a_grid.values()) <= 0.2
    # One seed of each cell is enough: the sizes are repeats.
    assert over_a_grid["on average over 11 sizes, paired", 4.0, 1, noise, trials][1] > 0.9
    of_one_seed = [rates for (_, _, n, _, _), rates in found.items() if n == 1]
    assert set(of_one_seed) == {(0.0, 0.0)}
    assert found["A better than B", 4.0, 5, noise, trials][1] > 0.9
