"""Tests of the difference between two cells (docs/statistics.md).

Values are losses, one per seed: lower is better, infinite for a diverged run.
"""

import bisect
import math
import warnings
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from scipy import optimize, special, stats

if TYPE_CHECKING:
    from stlight.experiments.grid_cells import GridCell

CONFIDENCE = 0.95
"""Confidence level of every interval."""

POWER = 0.8
"""Chance of detecting a difference that a number of seeds is said to suffice for."""

_MAX_SEEDS = 1000
_MAX_EXACT = 9999


@dataclass(frozen=True)
class Subject:
    """Name the two sides of a difference as typed parts. `findings.label` turns them into text."""

    metric: str
    better: "GridCell"
    worse: "GridCell"
    told_by: list[str]
    """Axes that tell the two cells apart."""
    published: bool = False
    """True if the printed numbers are compared."""
    seeds: tuple[np.ndarray, np.ndarray] | None = None
    """The losses of both cells, if their distances from the median are compared instead."""

    def reversed(self) -> Self:
        """Return the same with the cells exchanged."""
        seeds = self.seeds and (self.seeds[1], self.seeds[0])
        return replace(self, better=self.worse, worse=self.better, seeds=seeds)


@dataclass(frozen=True, eq=False)
class Difference:
    """By how much `b` is worse than `a`. The claim is that it exceeds `threshold`."""

    a: np.ndarray
    b: np.ndarray
    paired: bool = False
    """True if the cells are compared seed by seed."""
    threshold: float = 0.0
    resolution: float = 0.0
    """Rounding error of printed values. A difference closer to the threshold than this decides nothing."""
    subject: Subject | None = None

    @property
    def estimate(self) -> float:
        """Difference of the means; infinite if one side diverged, NaN if both did."""
        if np.isinf(self.a).any() and np.isinf(self.b).any():
            return math.nan
        return float(self.b.mean() - self.a.mean())

    @property
    def margin(self) -> float:
        """Distance of the estimate from the threshold, positive if the estimate exceeds it."""
        return self.estimate - self.threshold

    @property
    def n(self) -> int:
        """Number of seeds of the side that has fewer."""
        return min(len(self.a), len(self.b))

    @property
    def finite(self) -> bool:
        """True if no run of either side diverged."""
        return bool(np.isfinite(self.a).all() and np.isfinite(self.b).all())

    def reversed(self) -> Self:
        """Return the opposite difference, which claims that `a` is worse than `b` by more than minus the threshold."""
        about = self.subject and self.subject.reversed()
        return replace(self, a=self.b, b=self.a, threshold=-self.threshold, subject=about)

    @property
    def by_ranks(self) -> bool:
        """True if only ranks can be tested: a run diverged, or the seeds show no spread."""
        if not self.finite:
            return True
        return is_constant(self.b - self.a) if self._paired else is_constant(self.a) and is_constant(self.b)

    @property
    def _paired(self) -> bool:
        return self.paired and len(self.a) == len(self.b)

    @cached_property
    def _t_test(self) -> Any:
        """SciPy's paired t test, or Welch's, of the difference."""
        if self._paired:
            return stats.ttest_rel(self.b, self.a)
        with warnings.catch_warnings():
            # SciPy warns about a side whose values are all equal, which Welch's test allows.
            warnings.simplefilter("ignore", RuntimeWarning)
            return stats.ttest_ind(self.b, self.a, equal_var=False)

    @cached_property
    def p_above(self) -> float:
        """One-sided p-value of "the true difference exceeds the threshold"; 1 with fewer than two seeds on a side."""
        if self.n < 2:
            return 1.0
        if self.by_ranks:
            return _rank_p(self.a + self.threshold, self.b)
        error, df = self.error()
        return float(special.stdtr(df, -self.margin / error))

    def interval(self) -> tuple[float, float]:
        """Return the t interval of the difference; NaN if a t test is impossible."""
        if self.n < 2 or self.by_ranks:
            return math.nan, math.nan
        interval = self._t_test.confidence_interval(CONFIDENCE)
        return float(interval.low), float(interval.high)

    def error(self) -> tuple[float, float]:
        """Return the standard error of the estimate and its degrees of freedom, for at least two seeds with some spread."""
        error = stats.sem(self.b - self.a) if self._paired else math.hypot(stats.sem(self.a), stats.sem(self.b))
        return float(error), float(self._t_test.df)

    def detectable(self, level: float) -> float:
        """Return the smallest true difference that these seeds detect with a power of 80 %; NaN if a t test is impossible."""
        if self.n < 2 or self.by_ranks:
            return math.nan
        error, df = self.error()
        return error * noncentrality(df, level)


def is_constant(values: np.ndarray) -> bool:
    """Return True if all values agree but for the last digits of a float."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _rank_p(a: np.ndarray, b: np.ndarray) -> float:
    """Return the one-sided p-value of "b is worse than a" by the rank sum. Diverged runs tie as the worst.

    The test is exact if the permutations of the ranks are few enough to enumerate, and otherwise the normal approximation.
    """
    ranks = stats.rankdata(np.concatenate([a, b]))
    if np.ptp(ranks) == 0:
        return 1.0
    first, second = ranks[: len(a)], ranks[len(a) :]
    if math.comb(len(ranks), len(a)) > _MAX_EXACT:
        return float(stats.mannwhitneyu(first, second, alternative="less", method="asymptotic").pvalue)
    test = stats.permutation_test(
        (first, second), lambda x, y, axis: y.mean(axis) - x.mean(axis), vectorized=True, alternative="greater"
    )
    return float(test.pvalue)


def noncentrality(df: float, level: float) -> float:
    """Return the noncentrality of the t distribution at which a two-sided test at `level` has the usual power."""
    critical = special.stdtrit(df, 1 - level / 2)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - POWER, 0.0, 20 * critical + 20))


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """Return the seeds per side that tell apart two cells that differ by `effect`; None if 1000 do not suffice."""
    if not effect or not math.isfinite(effect) or not sd > 0:
        return None

    def enough(n: int) -> bool:
        return abs(effect) / (sd * math.sqrt(2 / n)) >= _standard_errors(n, level)

    # Power grows with the number of seeds, so bisection finds the smallest number.
    n = bisect.bisect_left(range(2, _MAX_SEEDS + 1), True, key=enough) + 2
    return n if n <= _MAX_SEEDS else None


def seeds_for_order(level: float) -> int:
    """Return the seeds per side from which a rank test can decide: when every value of one side precedes all of the other."""
    return next(n for n in range(2, _MAX_SEEDS) if 2 / math.comb(2 * n, n) <= level)


def _standard_errors(n: int, level: float) -> float:
    """Return the effect, in standard errors, that n seeds per side detect. Large n use the normal approximation."""
    df = 2 * (n - 1)
    return noncentrality(df, level) if df <= 200 else float(special.ndtri(1 - level / 2) + special.ndtri(POWER))
