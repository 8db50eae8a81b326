"""The decision rule of docs/statistics.md: tests of the difference between two cells, and the verdict they lead to.

Values are losses, one per seed: lower is better, infinite for a diverged run.
"""

import itertools
import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeVar, get_args

from stlight.analysis.verdicts.contrasts import Contrast
from stlight.analysis.verdicts.differences import Difference

Key = TypeVar("Key", bound=Hashable)

Decision = Literal["reproduced", "contradicted", "undecided"]
Verdict = Literal[Decision, "untested"]
VERDICTS: tuple[Verdict, ...] = (*get_args(Decision), "untested")

LEVEL = 0.04
"""Nominal one-sided level of an item. Unequal spreads and ranks add to the error, which stays below 5 %."""

ERROR_BOUND = 0.05
"""Simulated chance of any wrong verdict in an item, at most."""

Comparison = Difference | Contrast
Group = tuple[Comparison, ...]
"""Comparisons that must all exceed their thresholds."""
Either = tuple[Group, ...]
"""Groups of which one must hold."""


@dataclass(frozen=True, eq=False)
class Test:
    """A claim as comparisons: it holds if each of its parts has a group that does."""

    __test__ = False  # Keeps pytest from collecting it.

    holds: tuple[Either, ...]

    @cached_property
    def fails(self) -> Either:
        """The groups of which one contradicts the sentence.

        A part is contradicted if one comparison of each of its alternatives is reversed, always by the same cell.
        """
        return tuple(tuple(d.reversed() for d in group) for groups in self.holds for group in zip(*groups, strict=True))

    def p(self, contradicted: bool) -> float:
        """Return the one-sided p-value of the claim, or of its opposite.

        All parts must hold: the largest p counts (intersection–union test).
        """
        return p_either(self.fails) if contradicted else max(map(p_either, self.holds))

    @property
    def testable(self) -> bool:
        """True if the design's repeats allow a decision in one of the directions, whatever the values are."""

        def possible(groups: Either) -> bool:
            return any(all(d.testable for d in group) for group in groups)

        return all(map(possible, self.holds)) or possible(self.fails)

    @cached_property
    def identity(self) -> Hashable:
        """A key that is equal for a test and its opposite."""

        def content(parts: Iterable[Either]) -> Hashable:
            return frozenset(frozenset(frozenset(d.identity for d in group) for group in groups) for groups in parts)

        return frozenset([content(self.holds), content([self.fails])])

    def for_it(self) -> Group:
        """Return the comparisons that support the sentence most: the best group of each part."""
        return tuple(difference for groups in self.holds for difference in _strongest(groups))

    def deciding(self, verdict: Verdict) -> Comparison:
        """Return the comparison that a verdict depends on."""
        return max(_strongest(self.fails) if verdict == "contradicted" else self.for_it(), key=_doubt)


def p_either(groups: Either) -> float:
    """Return the p-value of a disjunction: the smallest of the groups' largest p-values, times their number (Bonferroni)."""
    return min(1.0, len(groups) * min(max(d.p_above for d in group) for group in groups))


@dataclass(frozen=True)
class Judgement:
    """The verdict on one reading, with the test and the comparison that decided it."""

    verdict: Decision
    test: Test
    """The test at the look that decided, or at the last look."""
    deciding: Comparison
    p: float
    """One-sided, after the correction for looks, readings and sentences."""
    level: float
    """One-sided level, at the last look, at which the reading is decided whatever the verdicts on the others are."""
    sentences: int
    """Number of sentences that share the error budget."""
    full_level: float
    """One-sided level of all looks together."""


@dataclass(frozen=True)
class Reading:
    """A claim of one item: one of the ways in which a sentence is read."""

    sentence: str
    looks: tuple[tuple[Test, float], ...] = ()
    """The test at each look at the seeds, first to last, and the share of the level that it may spend. Empty while runs are
    missing: the reading still belongs to the family."""

    @property
    def live(self) -> bool:
        """True unless no data from this many seeds could decide the reading."""
        return not self.looks or any(test.testable for test, _ in self.looks)

    def p(self, contradicted: bool) -> float:
        """Return the p-value of a direction over all looks so far: the smallest, each divided by its share of the level."""
        return min([1.0, *(test.p(contradicted) / share for test, share in self.looks if share)])

    def judged(self, p: float, level: float, sentences: int) -> Judgement:
        """Return the judgement if the corrections make the p-value `p`. The first look that decides is reported."""
        test, share = self.looks[-1]
        verdict: Decision = "undecided"
        if p <= LEVEL:
            against = self.p(True) < self.p(False)
            verdict, bound = ("contradicted" if against else "reproduced"), LEVEL * self.p(against) / p if p else 0.0
            test = next(t for t, share in self.looks if t.p(against) <= bound * share * (1 + 1e-9))
        return Judgement(verdict, test, test.deciding(verdict), p, level * (share or 1.0), sentences, level)


def judge(readings: Mapping[str, Reading]) -> dict[str, Judgement]:
    """Judge the readings of one item's sentences, by name. Readings without a look get no judgement.

    Each direction is tested at the whole level, because only one of them can be wrong (Jones and Tukey). Sentences share the
    level by Holm's method, and the readings of a sentence share the sentence's. A sentence leaves its level to the others once
    all of its readings are decided. A test that no data could decide is left out, and one that repeats or reverses another of
    the same sentence counts once.
    """
    within: dict[str, dict[Hashable, float]] = {}
    for name, reading in readings.items():
        if reading.live:
            identity = reading.looks[-1][0].identity if reading.looks else name
            within.setdefault(reading.sentence, {})[identity] = min(reading.p(False), reading.p(True))
    within = {sentence: holm(tests) for sentence, tests in within.items()}
    factors, left = {}, len(within)
    for sentence in sorted(within, key=lambda name: max(within[name].values())):
        factors[sentence] = left
        left -= left * max(within[sentence].values()) <= LEVEL
    found = {}
    for name, reading in readings.items():
        if reading.looks:
            tests, factor = within.get(reading.sentence, {}), factors.get(reading.sentence, 1)
            p = min(1.0, factor * tests.get(reading.looks[-1][0].identity, 1.0))
            level = LEVEL / max(1, len(within)) / max(1, len(tests))
            found[name] = reading.judged(p if reading.live else 1.0, level, len(within))
    return found


def wrong_items(items: int) -> float:
    """Return the expected number of items with a wrong verdict, at most, among so many items."""
    return items * ERROR_BOUND


def holm(p: Mapping[Key, float]) -> dict[Key, float]:
    """Return Holm's adjusted p-values."""
    order = sorted(p, key=lambda name: p[name])
    adjusted = [min(1.0, (len(p) - rank) * p[name]) for rank, name in enumerate(order)]
    return dict(zip(order, itertools.accumulate(adjusted, max), strict=True))


def arithmetic(test: Test) -> Decision:
    """Judge single numbers by comparing them. Differences within their resolution decide nothing."""

    def holds(groups: Either) -> bool:
        return any(all(d.margin > d.resolution * (1 + 1e-6) for d in group) for group in groups)

    return "reproduced" if all(map(holds, test.holds)) else "contradicted" if holds(test.fails) else "undecided"


def _strongest(groups: Either) -> Sequence[Comparison]:
    """Return the group whose weakest difference is best supported."""
    return min(groups, key=lambda group: max(map(_doubt, group)))


def _doubt(comparison: Comparison) -> tuple[float, float]:
    # With one seed every p-value is 1. The margin relative to the values then orders the differences.
    size = abs(float(comparison.b.mean())) or 1.0
    margin = comparison.margin / size
    return comparison.p_above, -margin if math.isfinite(margin) else 0.0
