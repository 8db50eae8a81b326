"""One comparison by the rule of docs/statistics.md: the p-value of one sentence's difference, and the difference of two cells.

Values are losses, one per seed: lower is better, infinite for a diverged run.
"""

import bisect
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy import optimize, special, stats

from stlight.registry.metric_specs import COUNTED_METRICS

if TYPE_CHECKING:
    from stlight.experiments.grid_cells import GridCell

CONFIDENCE = 0.95
"""Confidence level of every interval."""

POWER = 0.8
"""Chance of detecting a difference that a number of seeds is said to suffice for."""

_MAX_SEEDS = 1000
_MAX_EXACT = 9999


@dataclass(frozen=True, eq=False, kw_only=True)
class Comparison:
    """A quantity estimated from runs or printed numbers, and the claim that it exceeds `threshold`."""

    threshold: float = 0.0
    published: bool = False
    """True if the paper's numbers are compared."""
    resolution: float = 0.0
    """Distance from the threshold within which the paper's numbers decide nothing."""
    metric: str = ""
    cells: "tuple[GridCell, ...]" = ()
    names: tuple[str, ...] = ()
    """The settings that tell the two sides apart."""
    logarithmic: bool = False
    """True if the losses are logarithms, so that the estimate is a share already."""

    @property
    def estimate(self) -> float:
        """The quantity as the values have it."""
        raise NotImplementedError

    @property
    def n(self) -> int:
        """Number of seeds of the cell that has the fewest."""
        raise NotImplementedError

    @property
    def testable(self) -> bool:
        """True if the design has repeats to estimate the noise from, whatever their values."""
        raise NotImplementedError

    @property
    def by_ranks(self) -> bool:
        """True if only ranks can be tested: a run diverged, or the repeats show no spread."""
        raise NotImplementedError

    def error(self) -> tuple[float, float]:
        """Return the standard error of the estimate and its degrees of freedom; needs repeats with some spread."""
        raise NotImplementedError

    def rank_p(self) -> float:
        """Return the one-sided p-value by ranks."""
        raise NotImplementedError

    def reversed(self) -> Self:
        """Return the opposite comparison, which claims that the quantity is below the threshold."""
        raise NotImplementedError

    @property
    def identity(self) -> Hashable:
        """A key that is equal for two comparisons of the same cells in the same way and direction."""
        raise NotImplementedError

    @property
    def margin(self) -> float:
        """Distance of the estimate from the threshold, positive if the estimate exceeds it."""
        return self.estimate - self.threshold

    @cached_property
    def p_above(self) -> float:
        """One-sided p-value of "the true quantity exceeds the threshold"; 1 without repeats. Counts have no spread: 0 or 1."""
        if self.metric in COUNTED_METRICS:
            return float(not self.margin > 0)
        if not self.testable:
            return 1.0
        if self.by_ranks:
            return self.rank_p()
        error, df = self.error()
        return float(special.stdtr(df, -self.margin / error))

    def interval(self) -> tuple[float, float]:
        """Return the t interval of the quantity; NaN if a t test is impossible."""
        if not self.testable or self.by_ranks:
            return math.nan, math.nan
        error, df = self.error()
        half = error * float(special.stdtrit(df, (1 + CONFIDENCE) / 2))
        return self.estimate - half, self.estimate + half

    def detectable(self, level: float) -> float:
        """Return the smallest true quantity that these seeds detect with a power of 80 %; NaN if a t test is impossible."""
        if not self.testable or self.by_ranks:
            return math.nan
        error, df = self.error()
        return error * noncentrality(df, level)


@dataclass(frozen=True, eq=False)
class Difference(Comparison):
    """By how much `b` is worse than `a`."""

    a: np.ndarray
    b: np.ndarray
    paired: bool = False
    """True if both cells use the same seeds, so that they are compared seed by seed."""
    seeds: tuple[np.ndarray, ...] = ()
    """The losses of both cells, if `a` and `b` are their distances from the median instead."""

    @property
    def estimate(self) -> float:
        """Difference of the means; infinite if one side diverged, NaN if both did."""
        if np.isinf(self.a).any() and np.isinf(self.b).any():
            return math.nan
        return float(self.b.mean() - self.a.mean())

    @property
    def n(self) -> int:
        """Number of seeds of the side that has fewer."""
        return min(len(self.a), len(self.b))

    @property
    def testable(self) -> bool:
        """True if both sides have at least two seeds, or if counts are compared."""
        return self.n >= 2 or self.metric in COUNTED_METRICS

    def reversed(self) -> Self:
        """Return the opposite difference, which claims that `a` is worse than `b` by more than minus the threshold."""
        cells, names, seeds = self.cells[::-1], self.names[::-1], self.seeds[::-1]
        return replace(self, a=self.b, b=self.a, threshold=-self.threshold, cells=cells, names=names, seeds=seeds)

    @property
    def by_ranks(self) -> bool:
        """True if only ranks can be tested: a run diverged, or the seeds show no spread."""
        if not np.isfinite(self.a).all() or not np.isfinite(self.b).all():
            return True
        if self.paired:
            a, b = self._pairs
            return is_constant(b - a)
        return is_constant(self.a) and is_constant(self.b)

    @property
    def _pairs(self) -> tuple[np.ndarray, np.ndarray]:
        """The losses of the seeds that both sides have."""
        return self.a[: self.n], self.b[: self.n]

    def error(self) -> tuple[float, float]:
        """Return the standard error of the estimate and its degrees of freedom, for at least two seeds with some spread."""
        a, b = self._pairs
        return standard_error([b - a] if self.paired else [self.a, self.b])

    def rank_p(self) -> float:
        """Return the one-sided p-value of "b is worse than a" by the rank sum. Diverged runs tie as the worst.

        The test is exact if the permutations of the ranks are few enough to enumerate, and otherwise the normal approximation.
        """
        a, b = self.a + self.threshold, self.b
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

    @property
    def identity(self) -> Hashable:
        """Key of the comparison: the cells in order, the metric, the threshold, and means or spreads."""
        if not self.cells:
            return id(self.a), id(self.b), self.threshold, bool(self.seeds)
        return tuple(cell.label for cell in self.cells), self.metric, self.threshold, bool(self.seeds)


def standard_error(samples: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return the standard error of a sum of means of independent samples, and its degrees of freedom (Welch, Satterthwaite).

    The degrees of freedom of more than two samples count the largest variance twice: if one sample is much noisier than the
    others and its variance is underestimated, Satterthwaite's formula takes the error to be known far better than it is.
    """
    squares = np.array([sample.var(ddof=1) / len(sample) for sample in samples])
    freedom = np.array([len(sample) - 1 for sample in samples])
    weighted = squares * np.where((squares == squares.max()) & (len(squares) > 2), 2.0, 1.0)
    return math.sqrt(squares.sum()), float(weighted.sum() ** 2 / (weighted**2 / freedom).sum())


def is_constant(values: np.ndarray, size: float = 0.0) -> bool:
    """Return True if all values agree but for the last digits of a float, be it theirs or one of the given size."""
    return bool(np.ptp(values) <= 1e-12 * max(size, np.abs(values).max()))


def noncentrality(df: float, level: float) -> float:
    """Return the noncentrality of the t distribution at which a one-sided test at `level` has the usual power."""
    critical = special.stdtrit(df, 1 - level)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - POWER, 0.0, 20 * critical + 20))


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """Return the seeds per side that tell apart two cells that differ by `effect`; None if 1000 do not suffice."""
    if not 0 < abs(effect) < math.inf or not sd > 0:
        return None

    def enough(n: int) -> bool:
        # Many seeds use the normal approximation.
        normal = float(special.ndtri(1 - level) + special.ndtri(POWER))
        return abs(effect) / (sd * math.sqrt(2 / n)) >= (noncentrality(2 * (n - 1), level) if n <= 101 else normal)

    # Power grows with the number of seeds, so bisection finds the smallest number.
    n = bisect.bisect_left(range(2, _MAX_SEEDS + 1), True, key=enough) + 2
    return n if n <= _MAX_SEEDS else None
