"""From differences to a verdict: the decision rule of docs/statistics.md."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

from stlight.analysis.verdicts.difference import Difference

Decision = Literal["reproduced", "contradicted", "undecided"]
Verdict = Literal[Decision, "untested"]
VERDICTS: tuple[Verdict, ...] = (*get_args(Decision), "untested")

LEVEL = 0.04
"""Nominal level of a verdict. Unequal spreads and the choice between paired and unpaired tests add to the error, which stays
below 5 %."""

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
    adjusted, running = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        running = max(running, min(1.0, (size - rank) * p[name]))
        adjusted[name] = running
    return adjusted


def arithmetic(test: Test) -> Decision:
    """Judge single numbers by comparing them. Differences within the rounding error decide nothing."""

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
