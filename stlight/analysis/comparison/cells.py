"""Decide for many cells at once whether two samples of runs differ. Pure functions on losses by seed.

All tests of a comparison share one level by Holm's method, so that two folders of the same distribution are called different in
5 % of cases at most, however many cells they have.
"""

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from scipy import special, stats

from stlight.analysis.verdicts.differences import Difference
from stlight.analysis.verdicts.judging import LEVEL, holm

Outcome = Literal["same", "noise", "different", "undecided"]
"""same: all seeds of both sides have equal values, to the bit. noise: a test finds no difference. different: a test finds one.
undecided: no test of these seeds could find one."""

ROUNDING = 1e-5
"""Runs of the same seeds whose values agree to this share of their size differ by rounding only. Rounding errors of a backend
can have one sign in all seeds, which a paired test would take for a difference."""

_BORROWED_FREEDOM = 2
"""Degrees of freedom, at most, of the test of a single seed. The cell may be noisier than those that lend it their spread, or
have heavy tails, and nothing in a single seed shows it. With 3, pairs of five cells with lognormal noise are called
different in 9 % of cases; with 2, in 3 %."""


@dataclass(frozen=True, eq=False)
class Pair:
    """One metric of one cell on both sides. Losses by seed: lower is better, infinite if the run diverged or has no value."""

    a: Mapping[int, float]
    b: Mapping[int, float]
    alike: Hashable = None
    """Equal for cells that may lend each other their spread, if one has a single seed: those of one data set and metric."""
    unequal: frozenset[int] = frozenset()
    """Seeds whose recorded values differ although both losses are infinite."""

    @property
    def same(self) -> bool:
        """True if both sides have the same seeds with the same values, to the bit."""
        return self.a.keys() == self.b.keys() and self.equal_seeds == len(self.a) > 0

    @property
    def equal_seeds(self) -> int:
        """Number of seeds that have the same value on both sides, to the bit."""
        common = (self.a.keys() & self.b.keys()) - self.unequal
        return sum(self.a[seed] == self.b[seed] for seed in common)

    @property
    def n(self) -> int:
        """Number of seeds of the side that has fewer."""
        return min(len(self.a), len(self.b))

    @property
    def paired(self) -> bool:
        """True if the seeds of one side are among those of the other, so that runs are compared seed by seed."""
        return len(self.a.keys() & self.b.keys()) == self.n

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the losses of both sides, (n_a,) and (n_b,); those of the common seeds, in one order, if they are paired."""
        if self.paired and self.n >= 2:
            seeds = sorted(self.a.keys() & self.b.keys())
            return np.array([self.a[seed] for seed in seeds]), np.array([self.b[seed] for seed in seeds])
        return np.array(list(self.a.values())), np.array(list(self.b.values()))


@dataclass(frozen=True)
class Decision:
    """Outcome of the comparison of one pair, with the p-values of its test."""

    outcome: Outcome
    test: str = ""
    """Name of the test; empty if none was needed."""
    p: float = math.nan
    """Two-sided p-value before the correction; NaN without a test."""
    adjusted: float = math.nan
    """p-value after Holm's correction over all tests."""
    least: float = math.nan
    """The smallest difference of the means that would have counted; NaN if ranks were tested."""
    why: str = ""
    """Why nothing could be decided."""


@dataclass(frozen=True)
class _Tested:
    """A test before the correction. `floor` is the smallest p-value that this number of seeds can reach."""

    name: str
    p: float
    error: float = math.nan
    df: float = math.nan
    floor: float = 0.0


def decide(pairs: Sequence[Pair], runs: Iterable[Pair] = ()) -> tuple[list[Decision], Decision | None]:
    """Decide each pair, and whether runs diverge more often on one side; None if no run of either side diverged.

    `runs` holds for each cell 1 for a diverged run and 0 for another, by seed. A test of each cell alone cannot see that all
    cells diverge: five against five seeds reach a p-value of 0.008 at best.
    """
    spreads = _spreads(pairs)
    tests: dict[int, _Tested | str] = {i: _test(pair, spreads) for i, pair in enumerate(pairs) if not pair.same}
    tested = {i: test for i, test in tests.items() if isinstance(test, _Tested)}
    p = {i: test.p for i, test in tested.items()}
    divergence = divergence_p(runs)
    adjusted = holm(p | ({} if divergence is None else {-1: divergence}))
    level = LEVEL / max(1, len(adjusted))
    found = []
    for i in range(len(pairs)):
        test = tests.get(i)
        if test is None:
            found.append(Decision("same"))
        elif isinstance(test, str):
            found.append(Decision("undecided", why=test))
        else:
            found.append(_decided(test, adjusted[i], level))
    if divergence is None:
        return found, None
    outcome: Outcome = "different" if adjusted[-1] <= LEVEL else "noise"
    return found, Decision(outcome, "permutation of diverged runs", divergence, adjusted[-1])


def divergence_p(runs: Iterable[Pair]) -> float | None:
    """Return the two-sided p-value of "runs diverge more often on one side"; None if none diverged.

    If both sides are alike, any of a cell's runs may have been those of `b`: the exact distribution of the number of diverged
    ones is the sum of the cells' hypergeometric ones. Cells that share a seed are no independent replicates: one counts.
    """
    ways, observed, used = np.ones(1), 0, set[int]()
    for cell in runs:
        total, diverged = len(cell.a) + len(cell.b), int(sum(cell.a.values()) + sum(cell.b.values()))
        seeds = cell.a.keys() | cell.b.keys()
        if not cell.n or not diverged or seeds & used:
            continue
        used |= seeds
        n = len(cell.b)
        counts = [math.comb(diverged, k) * math.comb(total - diverged, n - k) for k in range(min(diverged, n) + 1)]
        ways = np.convolve(ways, np.array(counts) / math.comb(total, n))
        observed += int(sum(cell.b.values()))
    if not used:
        return None
    return min(1.0, 2 * float(min(ways[: observed + 1].sum(), ways[observed:].sum())))


def _decided(test: _Tested, adjusted: float, level: float) -> Decision:
    least = test.error * float(special.stdtrit(test.df, 1 - level / 2))
    outcome: Outcome = "different" if adjusted <= LEVEL else "undecided" if test.floor > level else "noise"
    why = f"p is at least {test.floor:.2g} by ranks, the level of each test is {level:.2g}" if outcome == "undecided" else ""
    return Decision(outcome, test.name, test.p, adjusted, least, why)


def _test(pair: Pair, spreads: Mapping[Hashable, tuple[float, int]]) -> _Tested | str:
    """Return the test of a pair whose sides are not the same, or why there is none."""
    a, b = pair.arrays()
    if not pair.n:
        return "one side has no run"
    if pair.paired and np.allclose(*_common(pair), rtol=ROUNDING, atol=0):
        return _Tested("rounding", 1.0)
    if pair.n == 1:
        return _single(a, b, spreads.get(pair.alike, (0.0, 0)))
    if np.isinf(a).all() and np.isinf(b).all():
        return "all runs of both sides diverged, or have no value"
    difference = Difference(a=a, b=b, paired=pair.paired)
    if difference.by_ranks:
        ranks = stats.rankdata(np.concatenate([a, b])).tolist()
        p = _rank_p(tuple(sorted(ranks[: len(a)])), tuple(sorted(ranks[len(a) :])))
        return _Tested("ranks", p, floor=min(1.0, 2 / math.comb(len(ranks), len(a))))
    p = 2 * min(difference.p_above, 1 - difference.p_above)
    return _Tested("paired t" if pair.paired else "Welch's t", p, *difference.error())


@cache
def _rank_p(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Return the two-sided p-value of the rank sum. Cached because few orders of few seeds exist, and each takes 10 ms."""
    difference = Difference(a=np.array(a), b=np.array(b))
    return min(1.0, 2 * min(difference.rank_p(), difference.reversed().rank_p()))


def _common(pair: Pair) -> tuple[list[float], list[float]]:
    seeds = pair.a.keys() & pair.b.keys()
    return [pair.a[seed] for seed in seeds], [pair.b[seed] for seed in seeds]


def _single(a: np.ndarray, b: np.ndarray, borrowed: tuple[float, int]) -> _Tested | str:
    """Test a difference of which at least one side has a single seed, by the larger of the cell's own and a borrowed spread."""
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return "one seed, and a run diverged or has no value"
    own, freedom = _pooled([a, b])
    sd, borrowed_freedom = borrowed
    freedom = min(_BORROWED_FREEDOM, max(freedom, borrowed_freedom))
    if not (spread := max(own, sd)):
        return "one seed, and no cell of the data set and metric has several that differ"
    error = spread * math.sqrt(1 / len(a) + 1 / len(b))
    t = abs(float(b.mean() - a.mean())) / error
    return _Tested("t, spread of similar cells" if sd >= own else "t", 2 * float(special.stdtr(freedom, -t)), error, freedom)


def _spreads(pairs: Iterable[Pair]) -> dict[Hashable, tuple[float, int]]:
    """Return the pooled standard deviation within cells, and its degrees of freedom, by the key of cells that are alike."""
    sums: dict[Hashable, tuple[float, int]] = {}
    for pair in pairs:
        sides = [np.array(list(side.values())) for side in (pair.a, pair.b)]
        sd, freedom = _pooled([side[np.isfinite(side)] for side in sides])
        # Runs of the same seeds may be copies, so both sides together count as the larger one.
        freedom = min(freedom, max(map(len, sides)) - 1)
        total, all_freedom = sums.get(pair.alike, (0.0, 0))
        sums[pair.alike] = total + sd**2 * freedom, all_freedom + freedom
    return {key: (math.sqrt(total / freedom), freedom) for key, (total, freedom) in sums.items() if freedom}


def _pooled(samples: Iterable[np.ndarray]) -> tuple[float, int]:
    """Return the pooled standard deviation of samples, and its degrees of freedom; 0 and 0 without repeats."""
    repeated = [sample for sample in samples if len(sample) > 1]
    freedom = sum(len(sample) - 1 for sample in repeated)
    squares = sum(float(((sample - sample.mean()) ** 2).sum()) for sample in repeated)
    return (math.sqrt(squares / freedom), freedom) if freedom else (0.0, 0)
