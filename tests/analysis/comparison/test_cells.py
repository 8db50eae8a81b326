"""How often two folders of the same distribution are called different, and which differences are found."""

import math

import numpy as np
import pytest
from scipy import stats

from stlight.analysis.comparison.cells import Pair, decide, divergence_p
from tests.analysis.comparison.simulation import called_different, rate

TRIALS = 1000
BOUND = 0.05


def pair(a, b, shared=False, alike="mse"):
    """Return a pair with the losses of both sides, of the same seeds or of others."""
    return Pair(dict(enumerate(a)), dict(enumerate(b, 0 if shared else 100)), alike)


def outcomes(*pairs):
    return [decision.outcome for decision in decide(pairs)[0]]


@pytest.mark.parametrize(
    ("seeds", "noise", "options"),
    [
        ([5], "normal", {"cells": 3}),
        ([2, 3], "skewed", {"cells": 4, "paired": True}),
        ([1, 3], "t3", {"cells": 8, "ratio": 10.0}),
        ([1, 3], "t3", {"cells": 5, "divergence": 0.2}),
    ],
)
def test_folders_of_the_same_distribution_are_called_different_in_five_per_cent_at_most(seeds, noise, options):
    wrong, _ = rate(TRIALS, 1, seeds, noise, **options)
    assert wrong <= BOUND


@pytest.mark.system
@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("seeds", [[2], [5], [1, 3], [1, 1, 1, 5]])
@pytest.mark.parametrize(("cells", "noise"), [(5, "normal"), (5, "t3"), (5, "skewed"), (20, "t3")])
def test_large_folders_of_the_same_distribution_are_called_different_in_five_per_cent_at_most(cells, seeds, noise, paired):
    wrong, _ = rate(TRIALS, 2, seeds, noise, cells=cells, paired=paired)
    assert wrong <= BOUND


def test_a_wrong_rate_would_be_seen():
    """The simulation finds the error of a comparison without correction, which is 4 % for each of twenty cells."""
    alone = [called_different([one]) for one in _cells_of_the_same_distribution(400)]
    assert np.mean([cells for cells, _ in alone]) == pytest.approx(0.04, abs=0.03)


def _cells_of_the_same_distribution(count):
    rng = np.random.default_rng(3)
    return [pair(rng.standard_normal(5), rng.standard_normal(5)) for _ in range(count)]


@pytest.mark.parametrize(
    ("options", "least"), [({"cells": 1}, 0.7), ({"cells": 10}, 0.75), ({"cells": 10, "paired": True}, 0.95)]
)
def test_five_seeds_find_a_shift_of_two_standard_deviations(options, least):
    found, _ = rate(300, 4, [5], shift=2.0, **options)
    assert found >= least


def test_one_shifted_cell_among_others_is_the_one_that_is_called_different():
    rng = np.random.default_rng(5)
    cells = [pair(rng.standard_normal(5), rng.standard_normal(5) + (12 if i == 3 else 0)) for i in range(20)]
    assert [i for i, outcome in enumerate(outcomes(*cells)) if outcome == "different"] == [3]


@pytest.mark.parametrize("shared", [False, True])
def test_p_values_are_those_of_scipy(shared):
    a, b = np.array([1.0, 2.0, 4.0, 3.5]), np.array([2.0, 4.5, 3.0, 7.0])
    expected = stats.ttest_rel(a, b) if shared else stats.ttest_ind(a, b, equal_var=False)
    ((decision,), _) = decide([pair(a, b, shared)])
    assert decision.p == pytest.approx(expected.pvalue)
    assert decision.test == ("paired t" if shared else "Welch's t")


def test_the_least_difference_that_counts_is_on_the_border():
    a, b = np.array([1.0, 2.0, 4.0, 3.5]), np.array([2.0, 4.5, 3.0, 7.0])
    ((decision,), _) = decide([pair(a, b)])
    moved = b - (b.mean() - a.mean()) + decision.least
    assert outcomes(pair(a, moved + 1e-6)) == ["different"]
    assert outcomes(pair(a, moved - 1e-6)) == ["noise"]


def test_equal_values_of_equal_seeds_are_the_same_to_the_bit():
    assert outcomes(pair([1.0, math.inf], [1.0, math.inf], shared=True)) == ["same"]
    assert outcomes(pair([1.0, 2.0], [1.0, np.nextafter(2.0, 3.0)], shared=True)) == ["noise"]
    # Both diverged, but recorded different values.
    assert outcomes(Pair({0: 1.0, 1: math.inf}, {0: 1.0, 1: math.inf}, unequal=frozenset({1}))) == ["noise"]
    # Equal values count as copies only if the seeds are equal, too, and none is missing.
    assert outcomes(pair([1.0, 2.0], [1.0, 2.0])) == ["noise"]
    assert outcomes(pair([1.0, 2.0, 3.0], [1.0, 2.0], shared=True)) == ["noise"]


def test_rounding_of_one_sign_in_all_seeds_is_no_difference():
    a = np.array([1.0, 2.0, 3.0, 4.0, 5.0])
    assert outcomes(pair(a, a * (1 + 1e-7), shared=True)) == ["noise"]
    assert outcomes(pair(a, a + np.array([1.0, 1.01, 1.0, 0.99, 1.0]), shared=True)) == ["different"]


def test_single_seeds_are_told_apart_by_the_spread_of_similar_cells_only():
    repeated = pair([1.0, 2.0, 3.0], [1.1, 2.2, 2.9])
    near, far = pair([2.0], [3.0]), pair([2.0], [200.0])
    assert outcomes(near, repeated) == ["noise", "noise"]
    assert outcomes(far, repeated) == ["different", "noise"]
    assert outcomes(far) == ["undecided"]
    assert outcomes(far, pair([1.0, 2.0, 3.0], [1.1, 2.2, 2.9], alike="ssim")) == ["undecided", "noise"]


def test_one_seed_against_several_takes_their_spread():
    assert outcomes(pair([2.0], [1.0, 2.0, 3.0, 1.5])) == ["noise"]
    assert outcomes(pair([500.0], [1.0, 2.0, 3.0, 1.5])) == ["different"]


def test_diverged_runs_of_few_seeds_are_undecided_and_of_many_different():
    fine, gone = np.arange(1.0, 6.0), np.full(5, math.inf)
    assert outcomes(pair(fine, gone)) == ["different"]
    assert outcomes(pair(fine[:2], gone[:2])) == ["undecided"]
    assert outcomes(pair(fine[:1], gone[:1])) == ["undecided"]
    assert outcomes(*[pair(fine, gone)] * 10) == ["undecided"] * 10


def test_divergence_everywhere_is_found_with_one_seed_each():
    cells = [Pair({i: 0.0}, {1000 + i: 1.0}) for i in range(10)]
    assert divergence_p(cells) == pytest.approx(2 * 0.5**10)
    assert decide([], cells)[1].outcome == "different"
    assert divergence_p([Pair({i: 0.0}, {1000 + i: 0.0}) for i in range(10)]) is None


def test_divergence_of_one_cell_is_fishers_test():
    a, b = {0: 0.0, 1: 0.0, 2: 0.0, 3: 1.0}, {4: 1.0, 5: 1.0, 6: 1.0, 7: 1.0}
    one_sided = stats.fisher_exact([[1, 3], [4, 0]], alternative="less").pvalue
    assert divergence_p([Pair(a, b)]) == pytest.approx(2 * one_sided)
    # A second cell of the same seeds adds nothing.
    assert divergence_p([Pair(a, b), Pair(a, b)]) == pytest.approx(2 * one_sided)
