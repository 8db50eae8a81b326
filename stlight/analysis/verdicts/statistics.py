"""The rule by which a difference between cells counts, and a sentence holds: docs/statistics.md in code.

Pure functions on the values of each seed. A value is a loss here: lower is better, infinite where the run diverged.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import optimize, special, stats

LEVEL = 0.04
"""Of a verdict. Nominal: unequal spreads and the choice between paired and unpaired add to it, and the sum stays below 5 %."""
CONFIDENCE = 0.95
"""Of every interval."""
POWER = 0.8
"""Chance of seeing a difference that a number of seeds is said to suffice for."""

_HOMOGENEOUS = 0.1
_SHARED_SEEDS = 0.01
_MIN_POOLED_DF = 10
_MAX_SEEDS = 1000
_MAX_EXACT = 9999

Verdict = Literal["reproduced", "contradicted", "undecided"]


def seeds_move_together(cells: Sequence[np.ndarray]) -> bool:
    """Whether seeds shift all cells of a grid alike, so that cells are to be compared seed by seed."""
    balanced = len(cells) > 1 and len({len(cell) for cell in cells}) == 1 and len(cells[0]) > 1
    return balanced and all(np.isfinite(cell).all() for cell in cells) and _shared_by_seed(np.stack(cells)) < _SHARED_SEEDS


@dataclass(frozen=True)
class Noise:
    """What the seeds of a grid say of its noise. It describes: no verdict rests on it."""

    sd: float = math.nan
    """Pooled over the cells; NaN where they are not alike or too few."""
    why: str = ""


def fit_noise(cells: Sequence[np.ndarray]) -> Noise:
    """The pooled spread of a grid's cells, where they have one."""
    repeated = [cell for cell in cells if len(cell) > 1]
    df = sum(len(cell) - 1 for cell in repeated)
    if not repeated:
        return Noise(why="one seed" if any(map(len, cells)) else "no run")
    if not all(np.isfinite(cell).all() for cell in repeated):
        return Noise(why="a run diverged")
    if len(repeated) < 2 or df < _MIN_POOLED_DF or any(map(_constant, repeated)):
        return Noise(why="too few seeds to say whether the cells' spreads are alike")
    homogeneity = float(stats.bartlett(*repeated).pvalue)
    if homogeneity < _HOMOGENEOUS:
        return Noise(why=f"the cells' spreads differ (Bartlett p = {homogeneity:.2g})")
    sd = math.sqrt(sum((len(cell) - 1) * cell.var(ddof=1) for cell in repeated) / df)
    return Noise(sd, f"the cells' spreads are alike (Bartlett p = {homogeneity:.2g})")


def _constant(values: np.ndarray) -> bool:
    """Whether no value differs from another by more than the last digits of a float."""
    return bool(np.ptp(values) <= 1e-12 * np.abs(values).max())


def _shared_by_seed(values_CS: np.ndarray) -> float:
    """p of "no seed shifts all cells alike": the seeds' effect in a two-way analysis of variance."""
    cells, seeds = values_CS.shape
    residual = values_CS - values_CS.mean(1, keepdims=True) - values_CS.mean(0) + values_CS.mean()
    df = (cells - 1) * (seeds - 1)
    left, between = float((residual**2).sum() / df), float(cells * values_CS.mean(0).var(ddof=1))
    if left <= 1e-12 * between or not between:
        # Shifted alike to the last digit, or not at all: no noise to measure a difference by.
        return 1.0
    return float(special.fdtrc(seeds - 1, df, between / left))


@dataclass(frozen=True)
class Difference:
    """By how much `b` is worse than `a`, minus `threshold`: positive where `a` is better by more than that."""

    a: np.ndarray
    b: np.ndarray
    paired: bool = False
    """Compared seed by seed."""
    threshold: float = 0.0
    resolution: float = 0.0
    """Of the values themselves: what is nearer to the threshold than this is neither above nor below it."""
    label: str = ""
    """What is compared, for a reader."""
    metric: str = ""
    shown: tuple[np.ndarray, np.ndarray] | None = None
    """The seeds' own values, where `a` and `b` are something made of them."""

    @property
    def estimate(self) -> float:
        """Difference of the means; infinite where one diverged, NaN where both have."""
        if np.isinf(self.a).any() and np.isinf(self.b).any():
            return math.nan
        return float(self.b.mean() - self.a.mean())

    @property
    def n(self) -> int:
        """Seeds on the side that has fewer."""
        return min(len(self.a), len(self.b))

    @property
    def by_ranks(self) -> bool:
        """Means say nothing where a run diverged or no seed differs from another: then only the order of the values counts."""
        if not (np.isfinite(self.a).all() and np.isfinite(self.b).all()):
            return True
        return _constant(self.b - self.a) if self._paired else _constant(self.a) and _constant(self.b)

    @property
    def _paired(self) -> bool:
        return self.paired and len(self.a) == len(self.b)

    def error(self) -> tuple[float, float]:
        """Standard error of the estimate and its degrees of freedom: of the paired t test, or Welch's."""
        if self._paired:
            return float((self.b - self.a).std(ddof=1)) / math.sqrt(self.n), self.n - 1.0
        parts = [float(side.var(ddof=1)) / len(side) for side in (self.a, self.b)]
        total = sum(parts)
        return math.sqrt(total), total**2 / sum(p**2 / (len(s) - 1) for p, s in zip(parts, (self.a, self.b), strict=True))

    @cached_property
    def p_above(self) -> float:
        """One-sided p of "the true difference is above the threshold"; 1 with fewer than two seeds on a side."""
        if self.n < 2:
            return 1.0
        if self.by_ranks:
            return _rank_p(self.a + self.threshold, self.b)
        error, df = self.error()
        return float(special.stdtr(df, (self.threshold - self.estimate) / error))

    def interval(self) -> tuple[float, float]:
        """t interval of the difference, NaN where there is none."""
        if self.n < 2 or self.by_ranks:
            return math.nan, math.nan
        error, df = self.error()
        half = special.stdtrit(df, (1 + CONFIDENCE) / 2) * error
        return self.estimate - half, self.estimate + half

    def detectable(self, level: float) -> float:
        """The smallest true difference that these seeds would have seen with a chance of 80 %; NaN where none can be."""
        if self.n < 2 or self.by_ranks:
            return math.nan
        error, df = self.error()
        return error * _noncentrality(df, level) if error else math.nan


def _rank_p(a: np.ndarray, b: np.ndarray) -> float:
    """One-sided p of "b is worse than a" by the sum of ranks; diverged runs tie as the worst.

    Exact, by all ways to share out the ranks, where they are few enough to be counted; then by the normal approximation.
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


def _noncentrality(df: float, level: float) -> float:
    """Of the t distribution, so that a two-sided test at a level is passed with the usual power."""
    critical = special.stdtrit(df, 1 - level / 2)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - POWER, 0.0, 20 * critical + 20))


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """Seeds on each side with which two cells that differ by `effect` would be told apart; None if not even a thousand do."""
    if not effect or not math.isfinite(effect) or not sd > 0:
        return None

    def enough(n: int) -> bool:
        return abs(effect) / (sd * math.sqrt(2 / n)) >= _shift_wanted(n, level)

    # More seeds are never worse, so the first that are enough are found by halving.
    n = bisect.bisect_left(range(2, _MAX_SEEDS + 1), True, key=enough) + 2
    return n if n <= _MAX_SEEDS else None


def seeds_for_order(level: float) -> int:
    """Seeds on each side with which an order can decide at all: if each of one side comes before each of the other."""
    return next(n for n in range(2, _MAX_SEEDS) if 2 / math.comb(2 * n, n) <= level)


def _shift_wanted(n: int, level: float) -> float:
    """In standard errors, of a t test with n values on each side; of a normal one where that makes no difference."""
    df = 2 * (n - 1)
    return _noncentrality(df, level) if df <= 200 else float(special.ndtri(1 - level / 2) + special.ndtri(POWER))


Group = tuple[Difference, ...]
"""All of them must be positive."""
Either = tuple[Group, ...]
"""One of the groups must."""


@dataclass(frozen=True)
class Test:
    """A sentence as differences: it holds if each of `holds` has a group that does, it fails if one group of `fails` does."""

    __test__ = False  # No test of pytest's.

    holds: tuple[Either, ...]
    fails: Either

    def p_holds(self) -> float:
        """All must hold: the largest p."""
        return max(_p_either(groups) for groups in self.holds)

    def p_fails(self) -> float:
        """One must fail."""
        return _p_either(self.fails)

    def for_it(self) -> Group:
        """The comparisons that have most for it, of each part the best group."""
        return tuple(difference for groups in self.holds for difference in strongest(groups))

    def deciding(self, verdict: Verdict) -> Difference:
        """The comparison that a verdict hangs on."""
        return weakest(strongest(self.fails) if verdict == "contradicted" else self.for_it())


def _p_either(groups: Either) -> float:
    """All of a group: the largest p. One group of several: the smallest, times their number (Bonferroni)."""
    return min(1.0, len(groups) * min(max(d.p_above for d in group) for group in groups))


@dataclass(frozen=True)
class Judgement:
    """What the rule says of one sentence, and the difference that decided it."""

    verdict: Verdict
    deciding: Difference
    effect: float
    low: float
    high: float
    n: int
    p: float
    """Two-sided, after Holm."""
    level: float
    """At which one sentence of the item is decided, whatever becomes of the others."""

    @property
    def detectable(self) -> float:
        """The smallest true difference that these seeds would have seen with a chance of 80 %; NaN where none can be."""
        return self.deciding.detectable(self.level)


def judge(tests: Mapping[str, Test], family: int | None = None) -> dict[str, Judgement]:
    """A verdict for each test of one item. `family`: how many sentences the item states, those without data included."""
    size = max(family or 0, len(tests))
    sides = {name: (test.p_holds(), test.p_fails()) for name, test in tests.items()}
    adjusted = holm({name: min(1.0, 2 * min(both)) for name, both in sides.items()}, size)
    judgements = {}
    for name, test in tests.items():
        for_it, against = sides[name]
        decided = adjusted[name] <= LEVEL
        verdict: Verdict = "undecided" if not decided else "reproduced" if for_it < against else "contradicted"
        deciding = test.deciding(verdict)
        low, high = deciding.interval()
        effect, sign = deciding.estimate, -1 if verdict == "contradicted" else 1
        if sign < 0:
            # Of the sentence as it stands: below zero is against it.
            effect, low, high = -effect, -high, -low
        judgements[name] = Judgement(verdict, deciding, effect, low, high, deciding.n, adjusted[name], LEVEL / size)
    return judgements


def holm(p: Mapping[str, float], size: int) -> dict[str, float]:
    """Holm's adjusted p for a family of `size`, of which those not given count as 1."""
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        running = max(running, min(1.0, (size - rank) * p[name]))
        adjusted[name] = running
    return adjusted


def arithmetic(test: Test) -> Verdict:
    """The verdict on single numbers: whether they stand as the sentence says. Within their rounding nothing is decided."""

    def holds(groups: Either) -> bool:
        return any(all(d.estimate - d.threshold > d.resolution * (1 + 1e-6) for d in group) for group in groups)

    return "reproduced" if all(map(holds, test.holds)) else "contradicted" if holds(test.fails) else "undecided"


def weakest(group: Sequence[Difference]) -> Difference:
    """The difference on which a group hangs."""
    return max(group, key=_doubt)


def strongest(groups: Either) -> tuple[Difference, ...]:
    """The group that has most for it."""
    return min(groups, key=lambda group: _doubt(weakest(group)))


def _doubt(difference: Difference) -> tuple[float, float]:
    # With one seed every p is 1: then the size of the difference beside the values themselves.
    size = abs(float(difference.b.mean())) or 1.0
    margin = (difference.estimate - difference.threshold) / size
    return difference.p_above, -margin if math.isfinite(margin) else 0.0


@dataclass(frozen=True)
class Ranking:
    """What the seeds say about the order of a grid's cells; by the place of each cell."""

    noise: Noise
    paired: bool
    """Whether cells were compared seed by seed."""
    smallest_difference: float = math.nan
    """From the best cell, so that a cell can be told from it: the median over the cells."""
    ties: list[bool] = field(default_factory=list)
    """Whether a cell cannot be told from the best (multiple comparisons with the best)."""
    p_best: list[float] = field(default_factory=list)
    """Probability of each cell to be the best one, were the seeds drawn again; NaN with one seed."""
    stability: float = math.nan
    """Mean rank correlation (Kendall's τ) of the orders that two seeds give; NaN with one seed."""


def rank(cells: Sequence[np.ndarray], draws: int = 20_000) -> Ranking:
    """Compare the cells of a grid with the best of them. A cell without a value is no tie and cannot be the best."""
    noise, paired = fit_noise(cells), seeds_move_together(cells)
    there = [i for i, cell in enumerate(cells) if len(cell) and not np.isnan(cell).any()]
    means = {i: float(cells[i].mean()) for i in there}
    ties, p_best = [False] * len(cells), [math.nan] * len(cells)
    finite = [i for i in there if math.isfinite(means[i])]
    if not finite or len(there) < 2:
        return Ranking(noise, paired, ties=ties, p_best=p_best)
    best = min(finite, key=lambda i: means[i])
    for i in there:
        ties[i] = i == best or (len(there) - 1) * Difference(cells[best], cells[i], paired).p_above > (1 - CONFIDENCE)
    seeds = min(len(cells[i]) for i in there)
    if seeds < 2:
        return Ranking(noise, paired, ties=ties, p_best=p_best)
    drawn = _draw_means([cells[i] for i in finite], draws)
    wins = np.bincount(drawn.argmin(0), minlength=len(finite)) / draws
    for i in there:
        p_best[i] = float(wins[finite.index(i)]) if i in finite else 0.0
    orders = np.array([[cells[i][seed] for i in there] for seed in range(seeds)])
    pairs = [(one, two) for one in range(seeds) for two in range(one)]
    taus = [float(stats.kendalltau(orders[one], orders[two]).statistic) for one, two in pairs]
    others = [Difference(cells[best], cells[i], paired) for i in finite if i != best]
    least = [_least(d.error(), (1 - CONFIDENCE) / (len(there) - 1)) for d in others if not d.by_ranks]
    return Ranking(noise, paired, float(np.median(least)) if least else math.nan, ties, p_best, float(np.mean(taus)))


def _least(error_df: tuple[float, float], level: float) -> float:
    error, df = error_df
    return float(error * special.stdtrit(df, 1 - level))


def _draw_means(cells: Sequence[np.ndarray], draws: int) -> np.ndarray:
    """Means of the cells, drawn with the uncertainty that their seeds leave: (cells, draws). The same for the same values."""
    rng = np.random.default_rng(0)
    return np.array([c.mean() + c.std(ddof=1) / math.sqrt(len(c)) * rng.standard_t(len(c) - 1, draws) for c in cells])
