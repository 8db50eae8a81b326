"""The decision rule of docs/statistics.md: tests of the difference between two cells, and the verdict they lead to.

Values are losses, one per seed: lower is better, infinite for a diverged run.
"""

import bisect
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

import numpy as np
from scipy import optimize, special, stats

from stlight.registry.metric_specs import COUNTED_METRICS

if TYPE_CHECKING:
    from stlight.experiments.grid_cells import GridCell

Decision = Literal["reproduced", "contradicted", "undecided"]
Verdict = Literal[Decision, "untested"]
VERDICTS: tuple[Verdict, ...] = (*get_args(Decision), "untested")

LEVEL = 0.04
"""Nominal level of a verdict. Unequal spreads and the choice between paired and unpaired tests add to the error, which stays
below 5 %."""

CONFIDENCE = 0.95
"""Confidence level of every interval."""

POWER = 0.8
"""Chance of detecting a difference that a number of seeds is said to suffice for."""

_MAX_SEEDS = 1000
_MAX_EXACT = 9999


@dataclass(frozen=True, eq=False)
class Difference:
    """By how much `b` is worse than `a`. The claim is that it exceeds `threshold`."""

    a: np.ndarray
    b: np.ndarray
    paired: bool = False
    """True if the cells are compared seed by seed."""
    threshold: float = 0.0
    published: bool = False
    """True if the paper's numbers are compared."""
    resolution: float = 0.0
    """A difference of the paper's numbers closer to the threshold than this is not shown."""
    resolution_against: float = 0.0
    """`resolution` of the opposite claim."""
    metric: str = ""
    cells: "tuple[GridCell, ...]" = ()
    names: tuple[str, ...] = ()
    """The settings that tell the two cells apart."""
    seeds: tuple[np.ndarray, ...] = ()
    """The losses of both cells, if `a` and `b` are their distances from the median instead."""

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

    def reversed(self) -> Self:
        """Return the opposite difference, which claims that `a` is worse than `b` by more than minus the threshold."""
        cells, names, seeds = self.cells[::-1], self.names[::-1], self.seeds[::-1]
        changed = replace(self, a=self.b, b=self.a, threshold=-self.threshold, cells=cells, names=names, seeds=seeds)
        return replace(changed, resolution=self.resolution_against, resolution_against=self.resolution)

    @property
    def by_ranks(self) -> bool:
        """True if only ranks can be tested: a run diverged, or the seeds show no spread."""
        if not np.isfinite(self.a).all() or not np.isfinite(self.b).all():
            return True
        return is_constant(self.b - self.a) if self.paired else is_constant(self.a) and is_constant(self.b)

    @cached_property
    def _t_test(self) -> Any:
        """SciPy's paired t test, or Welch's, of the difference."""
        if self.paired:
            return stats.ttest_rel(self.b, self.a)
        with warnings.catch_warnings():
            # SciPy warns about a side whose values are all equal, which Welch's test allows.
            warnings.simplefilter("ignore", RuntimeWarning)
            return stats.ttest_ind(self.b, self.a, equal_var=False)

    @cached_property
    def p_above(self) -> float:
        """One-sided p-value of "the true difference exceeds the threshold"; 1 with fewer than two seeds on a side.

        Counts have no spread: 0 or 1.
        """
        if self.metric in COUNTED_METRICS:
            return float(not self.margin > 0)
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
        error = stats.sem(self.b - self.a) if self.paired else math.hypot(stats.sem(self.a), stats.sem(self.b))
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
    if not 0 < abs(effect) < math.inf or not sd > 0:
        return None

    def enough(n: int) -> bool:
        # Many seeds use the normal approximation.
        normal = float(special.ndtri(1 - level / 2) + special.ndtri(POWER))
        return abs(effect) / (sd * math.sqrt(2 / n)) >= (noncentrality(2 * (n - 1), level) if n <= 101 else normal)

    # Power grows with the number of seeds, so bisection finds the smallest number.
    n = bisect.bisect_left(range(2, _MAX_SEEDS + 1), True, key=enough) + 2
    return n if n <= _MAX_SEEDS else None


Group = tuple[Difference, ...]
"""Differences that must all be positive."""
Either = tuple[Group, ...]
"""Groups of which one must hold."""


@dataclass(frozen=True, eq=False)
class Test:
    """A sentence as differences: it holds if each of its parts has a group that does."""

    __test__ = False  # Keeps pytest from collecting it.

    holds: tuple[Either, ...]

    @cached_property
    def fails(self) -> Either:
        """The groups of which one contradicts the sentence.

        A part is contradicted if one comparison of each of its alternatives is reversed, always by the same cell.
        """
        return tuple(tuple(d.reversed() for d in group) for groups in self.holds for group in zip(*groups, strict=True))

    def for_it(self) -> Group:
        """Return the comparisons that support the sentence most: the best group of each part."""
        return tuple(difference for groups in self.holds for difference in _strongest(groups))

    def deciding(self, verdict: Verdict) -> Difference:
        """Return the comparison that a verdict depends on."""
        return max(_strongest(self.fails) if verdict == "contradicted" else self.for_it(), key=_doubt)


def p_either(groups: Either) -> float:
    """Return the p-value of a disjunction: the smallest of the groups' largest p-values, times their number (Bonferroni)."""
    return min(1.0, len(groups) * min(max(d.p_above for d in group) for group in groups))


@dataclass(frozen=True)
class Judgement:
    """The verdict on one sentence, with the difference that decided it."""

    verdict: Decision
    deciding: Difference
    p: float
    """Two-sided, after Holm's correction."""
    level: float
    """Level at which this sentence is decided whatever the verdicts on the others are."""


def judge(tests: Mapping[str, Test], family: int = 0) -> dict[str, Judgement]:
    """Judge the sentences of one item. `family` is how many sentences it states, including those without data.

    All parts of a sentence must hold: the largest p counts (intersection–union test).
    """
    size = max(family, len(tests))
    sides = {name: (max(map(p_either, test.holds)), p_either(test.fails)) for name, test in tests.items()}
    adjusted = holm({name: min(1.0, 2 * min(both)) for name, both in sides.items()}, size)
    judgements = {}
    for name, (for_it, against) in sides.items():
        verdict: Decision = "undecided" if adjusted[name] > LEVEL else "reproduced" if for_it < against else "contradicted"
        judgements[name] = Judgement(verdict, tests[name].deciding(verdict), adjusted[name], LEVEL / size)
    return judgements


def holm(p: Mapping[str, float], size: int) -> dict[str, float]:
    """Return Holm's adjusted p-values for a family of `size` hypotheses; those without a p-value count as 1."""
    order = sorted(p, key=lambda name: p[name])
    adjusted = [min(1.0, (size - rank) * p[name]) for rank, name in enumerate(order)]
    return dict(zip(order, itertools.accumulate(adjusted, max), strict=True))


def arithmetic(test: Test) -> Decision:
    """Judge single numbers by comparing them. Differences within their resolution decide nothing."""

    def holds(groups: Either) -> bool:
        return any(all(d.margin > d.resolution * (1 + 1e-6) for d in group) for group in groups)

    return "reproduced" if all(map(holds, test.holds)) else "contradicted" if holds(test.fails) else "undecided"


def _strongest(groups: Either) -> Sequence[Difference]:
    """Return the group whose weakest difference is best supported."""
    return min(groups, key=lambda group: max(map(_doubt, group)))


def _doubt(difference: Difference) -> tuple[float, float]:
    # With one seed every p-value is 1. The margin relative to the values then orders the differences.
    size = abs(float(difference.b.mean())) or 1.0
    margin = difference.margin / size
    return difference.p_above, -margin if math.isfinite(margin) else 0.0
