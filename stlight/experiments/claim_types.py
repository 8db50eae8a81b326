"""The kinds of claims: sentences of the paper, each with the one test that decides it. One type per kind."""

from typing import Annotated, Any, ClassVar, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag

from stlight.experiments.claim_base import BaseClaim, ComparisonClaim, check_axes, check_numbers
from stlight.experiments.claim_terms import (
    AsGoodAsBest,
    CountGrowth,
    Domination,
    EqualCount,
    Gain,
    Optimum,
    Places,
    Sides,
    Trend,
)
from stlight.experiments.field_types import Text
from stlight.experiments.grid_cells import GridCell
from stlight.experiments.yaml_files import check_known, state
from stlight.registry.metric_specs import METRICS


class UntestedClaim(BaseClaim):
    """A sentence that nothing can test."""

    kind = "untested"
    untested: Text
    """Why nothing can test it."""


class BetterClaim(ComparisonClaim):
    """Every cell of `this` is better than every cell of `than`, or their means are."""

    kind = "better"
    better: Sides
    on_average: list[str] = Field(default_factory=list)
    """Axes: `this` is better than `than` on average over the values of them that both have, instead of cell by cell."""

    def block(self, cell: GridCell) -> tuple[Any, ...]:
        """Return a cell's values on the axes averaged over."""
        return tuple(cell.coordinates.get(axis) for axis in self.on_average)

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        super()._check_sides(groups, axes)
        check_axes("on_average", self.on_average, axes)
        if both := set(self.on_average) & set(self.each):
            raise ValueError(f"on_average: {min(both)} is in each, too")
        for group in groups if self.on_average else []:
            first, second = ({self.block(cell) for cell in side} for side in self.sides(group))
            if alone := first ^ second:
                place = dict(zip(self.on_average, min(alone, key=str), strict=True))
                raise ValueError(f"on_average: nothing to compare at {state(place)}")


class OptimumInClaim(ComparisonClaim):
    """The best cell is one of these."""

    kind = "optimum_in"
    optimum_in: Places


class AsGoodAsBestClaim(ComparisonClaim):
    """None of these cells is worse than any other by more than the margin."""

    kind = "as_good_as_best"
    as_good_as_best: AsGoodAsBest


class NotDominatedClaim(ComparisonClaim):
    """No cell of `by` is both better than a cell of `this` and cheaper: `this` is on the Pareto front."""

    kind = "not_dominated"
    not_dominated: Domination

    @property
    def named_metrics(self) -> list[str]:
        """All metrics that the claim needs: the errors and the cost."""
        return [*self.metrics, self.not_dominated.cost]


class ImprovesAlongClaim(ComparisonClaim):
    """Each step along an axis is an improvement."""

    kind = "improves_along"
    improves_along: str

    def sides(self, group: list[GridCell]) -> tuple[list[GridCell], list[GridCell]]:
        """Return the cells of a group that form the line, and none to compare them with."""
        return [cell for cell in group if not cell.quoted], []

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        check_numbers("improves_along", self.improves_along, [self.sides(group)[0] for group in groups], axes)


class LineClaim(ComparisonClaim):
    """A claim about the cells along an axis, on average over all other axes."""

    least: ClassVar[int]
    """Number of values that the axis must have at each value of the others."""

    def sides(self, group: list[GridCell]) -> tuple[list[GridCell], list[GridCell]]:
        """Return our cells of a group, and none to compare them with."""
        return [cell for cell in group if not cell.quoted], []

    def block(self, cell: GridCell) -> tuple[Any, ...]:
        """Return a cell's values on all other axes."""
        return tuple(value for axis, value in cell.coordinates.items() if axis != self.terms.axis)

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        axis = self.terms.axis
        check_known(f"{self.kind}: unknown axis", axis, axes)
        for group in groups:
            lines: dict[tuple[Any, ...], set[Any]] = {}
            for cell in self.sides(group)[0]:
                lines.setdefault(self.block(cell), set()).add(cell.coordinates[axis])
            values = sorted(set().union(*lines.values()), key=str)
            if not all(isinstance(v, int | float) and not isinstance(v, bool) and v > 0 for v in values):
                raise ValueError(f"{self.kind}: {axis} must have numbers above zero, got {values}")
            if min(map(len, lines.values()), default=0) < self.least:
                raise ValueError(f"{self.kind}: {axis} must take {self.least} numbers or more at each value of the other axes")


class TrendClaim(LineClaim):
    """Along an axis the cells become better, or worse, from step to step on average."""

    kind = "trend"
    least = 2
    trend: Trend


class OptimumClaim(LineClaim):
    """The best value of an axis, by a parabola through the logarithm of the error, is near a stated one."""

    kind = "optimum"
    least = 3
    optimum: Optimum

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        super()._check_sides(groups, axes)
        if better := [metric for metric in self.metrics if METRICS[metric].higher_is_better]:
            raise ValueError(f"metric: an optimum is that of an error, got {better[0]}, of which more is better")


class GainsClaim(ComparisonClaim):
    """A cell is better than another by an amount, give or take a margin."""

    kind = "gains"
    two_cells = True
    gains: Gain


class SmallerSpreadClaim(ComparisonClaim):
    """The seeds of one cell differ less than those of another."""

    kind = "smaller_spread"
    two_cells = True
    smaller_spread: Sides


class CountClaim(BaseClaim):
    """A claim about a component's number of parameters, which needs no training."""

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        if trained:
            raise ValueError(f"{self.kind} is for experiments with train: false")


class CountsEqualClaim(CountClaim):
    """A component's convolutions have as many weights as its closed form says."""

    kind = "counts_equal"
    counts_equal: EqualCount


class CountGrowsClaim(CountClaim):
    """A component's parameters grow as a power of an axis."""

    kind = "count_grows"
    count_grows: CountGrowth

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        super().check(cells, axes, trained)
        check_numbers("count_grows", self.count_grows.axis, [cells], axes)


def _check_one_test(stated: Any) -> Any:
    found = [kind for kind in KINDS if kind in stated] if isinstance(stated, dict) else KINDS[:1]
    if len(found) != 1:
        words = f"gives {' and '.join(found)}" if found else "gives no test"
        raise ValueError(f"{words}: one of {', '.join(KINDS)} is needed")
    return stated


def _tag_of(stated: Any) -> str | None:
    # Not the kind alone, because the path in an error message would take it for the key of that name.
    kinds = [stated.kind] if isinstance(stated, BaseClaim) else [k for k in KINDS if isinstance(stated, dict) and k in stated]
    return f"claim {kinds[0]}" if kinds else None


Claim = Annotated[
    Annotated[BetterClaim, Tag("claim better")]
    | Annotated[OptimumInClaim, Tag("claim optimum_in")]
    | Annotated[AsGoodAsBestClaim, Tag("claim as_good_as_best")]
    | Annotated[NotDominatedClaim, Tag("claim not_dominated")]
    | Annotated[ImprovesAlongClaim, Tag("claim improves_along")]
    | Annotated[TrendClaim, Tag("claim trend")]
    | Annotated[OptimumClaim, Tag("claim optimum")]
    | Annotated[GainsClaim, Tag("claim gains")]
    | Annotated[SmallerSpreadClaim, Tag("claim smaller_spread")]
    | Annotated[CountsEqualClaim, Tag("claim counts_equal")]
    | Annotated[CountGrowsClaim, Tag("claim count_grows")]
    | Annotated[UntestedClaim, Tag("claim untested")],
    Discriminator(_tag_of),
    BeforeValidator(_check_one_test),
]
"""The table of claim kinds: a new kind is a class above and its name here."""
KINDS = tuple(get_args(member)[0].kind for member in get_args(get_args(Claim)[0]))
