"""Allocate runs to the cells where they settle most sentences per core second, round by round.

docs/statistics.md, "Seeds where they decide", states the method. Everything here is deterministic.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

from scipy import special

PRIOR = 0.5
"""Chance of settling a sentence at a look while nothing is known about it."""

HOPELESS = 0.2
"""A sentence is hopeless if no look settles it with at least this chance."""

_FIRST_SHARE, _SHARE = 1 / 2, 1 / 3
"""Share of what is left of the budget that the first and a later round spend, so that later rounds learn from their results."""


@dataclass(frozen=True, kw_only=True)
class Question:
    """A sentence that seeds can decide, with what is known about it."""

    name: str
    cells: frozenset[str]
    """The cells that it compares; all need as many seeds as a look."""
    looks: tuple[int, ...]
    """Numbers of seeds at which it is looked at."""
    settled: bool = False
    never: str = ""
    """Why no number of seeds can decide it; empty if one may."""
    sides: tuple[float, float] = (1.0, 1.0)
    """One-sided p-values for and against it at its last look."""
    levels: tuple[float, ...] = ()
    """One-sided level of a decision at each of the looks; empty before the first."""
    weight: float = 1.0
    """Probability that it is still open, for forecasts."""

    @property
    def open(self) -> bool:
        """True if more seeds may decide it."""
        return not self.settled and not self.never


@dataclass(frozen=True)
class Choice:
    """The runs that a round adds."""

    seeds: dict[str, int] = field(default_factory=dict)
    """Cells that get more runs, and how many runs each has then."""
    seconds: float = 0.0
    settled: float = 0.0
    """Sentences that are expected to be settled by these runs."""
    chosen: tuple[str, ...] = ()
    """The questions that the runs were chosen for, in this order."""


@cache
def chance(sides: tuple[float, float], seen: int, later: int, level: float) -> float:
    """Return the probability that a test with these one-sided p-values at `seen` seeds decides at `later` seeds.

    This is the predictive power of a sequential test: as seeds are added, the sum of the differences is a Brownian motion whose
    drift is known as well as the data so far tell it (Spiegelhalter, Freedman and Blackburn 1986).
    """
    part = seen / later
    spread = math.sqrt((1 - part) / part)
    critical = -float(special.ndtri(level))
    # Ranks and permutations can give a p-value of 0 or 1.
    z = [-float(special.ndtri(min(max(p, 1e-300), 1 - 1e-16))) for p in sides]
    return min(1.0, sum(float(special.ndtr((one / math.sqrt(part) - critical) / spread)) for one in z))


class Allocation:
    """Questions, the seeds that their cells have, and what a run of each cell costs."""

    def __init__(
        self,
        questions: Iterable[Question],
        seeds: Mapping[str, int],
        seconds: Mapping[str, float],
    ) -> None:
        """Take core seconds per run by cell, for every cell; cells without runs may be missing in `seeds`."""
        self.questions = {question.name: question for question in sorted(questions, key=lambda question: question.name)}
        self.seconds = seconds
        self.seeds = {cell: seeds.get(cell, 0) for cell in seconds}
        asked = [question for question in self.questions.values() if question.open]
        self._neighbours = {one.name: [q for q in asked if q.cells & one.cells] for one in asked}

    def look(self, question: Question, seeds: Mapping[str, int] | None = None) -> int:
        """Return the last look that the seeds of a question's cells allow; 0 before the first."""
        fewest = min((seeds or self.seeds)[cell] for cell in question.cells)
        return max((look for look in question.looks if look <= fewest), default=0)

    def later(self, question: Question) -> list[int]:
        """Return the looks that are still to come."""
        return [look for look in question.looks if look > self.look(question)]

    def chance(self, question: Question, later: int) -> float:
        """Return the probability that a later look settles a question."""
        seen = self.look(question)
        return (
            chance(question.sides, seen, later, question.levels[question.looks.index(later)])
            if seen and question.levels
            else PRIOR
        )

    def best_chance(self, question: Question) -> float:
        """Return the probability at the later look that settles a question most probably; 0 without one."""
        return max((self.chance(question, later) for later in self.later(question)), default=0.0)

    def hopeless(self, question: Question) -> bool:
        """Return True if no later look is likely to settle an open question."""
        return question.open and self.best_chance(question) < HOPELESS

    def cost(self, question: Question, look: int, seeds: Mapping[str, int] | None = None) -> float:
        """Return the core seconds of the runs that bring all cells of a question to a look."""
        have = seeds or self.seeds
        return sum(max(0, look - have[cell]) * self.seconds[cell] for cell in sorted(question.cells))

    def choose(self, budget: float, share: float | None = None) -> Choice:
        """Choose the runs of the next round for a budget in core seconds, of which questions get about `share`.

        Take the question whose best later look is expected to settle most questions per second, buy the runs of its next look,
        and repeat. Questions that share cells are settled together. If the budget can buy no look, it gives cells that have no
        run one each, cheapest first: runs that complete no sentence's cells must not take the budget of those that do.
        """
        share = share or (_SHARE if any(self.seeds.values()) else _FIRST_SHARE)
        have, spent = dict(self.seeds), 0.0
        chosen: list[str] = []
        waiting = {q.name: q for q in self.questions.values() if q.open and self.later(q) and not self.hopeless(q)}
        while waiting and (not chosen or spent < share * budget):
            affordable = {n: q for n, q in waiting.items() if spent + self.cost(q, self.later(q)[0], have) <= budget}
            if not affordable:
                break
            name = min(affordable, key=lambda name: (-self._worth(waiting[name], have), name))
            next_look = self.later(waiting[name])[0]
            spent += self.cost(waiting[name], next_look, have)
            have |= {cell: max(have[cell], next_look) for cell in waiting[name].cells}
            chosen.append(name)
            # Its runs may complete the next look of others too.
            waiting = {n: q for n, q in waiting.items() if self.look(q, have) == self.look(q)}
        for cell in [] if chosen else sorted(have, key=lambda cell: (self.seconds[cell], cell)):
            if not have[cell] and spent + self.seconds[cell] <= budget:
                have[cell] = 1
                spent += self.seconds[cell]
        added = {cell: count for cell, count in have.items() if count > self.seeds[cell]}
        return Choice(added, spent, self._gain(have, self.questions.values()), tuple(chosen))

    def after(self, choice: Choice) -> "Allocation":
        """Return the allocation to expect after a round: each question is settled with its chance."""
        seeds = self.seeds | choice.seeds

        def looked_at(question: Question) -> Question:
            look = self.look(question, seeds)
            left = 1 - self.chance(question, look) if question.open and look > self.look(question) else 1.0
            return replace(question, weight=question.weight * left)

        return Allocation(map(looked_at, self.questions.values()), seeds, self.seconds)

    def _worth(self, question: Question, have: Mapping[str, int]) -> float:
        """Return the questions settled per second by the best later look of a question."""
        rates, near = [], self._neighbours[question.name]
        before = self._gain(have, near)
        for later in self.later(question):
            after = {**have, **{cell: max(have[cell], later) for cell in question.cells}}
            cost = self.cost(question, later, have)
            rates.append((self._gain(after, near) - before) / cost if cost else math.inf)
        return max(rates)

    def _gain(self, seeds: Mapping[str, int], questions: Iterable[Question]) -> float:
        """Return how many of some open questions are expected to be settled with these seeds."""
        looks = ((question, self.look(question), self.look(question, seeds)) for question in questions if question.open)
        return sum(question.weight * self.chance(question, look) for question, seen, look in looks if look > seen)
