"""The kinds of claims: sentences of the paper, each with the one test that decides it. One type per kind."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Annotated, Any, ClassVar, Literal, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag
from typing_extensions import TypeAliasType

from stlight.experiments import grid_cells
from stlight.experiments.field_types import Coordinates, MetricName, OneOrMore, PositiveFloat, Text
from stlight.experiments.grid_cells import GridCell
from stlight.experiments.yaml_files import FileModel, as_text, nearest
from stlight.registry.metric_specs import COUNTED_METRICS, metrics_from

Places = TypeAliasType("Places", OneOrMore[Coordinates])
Component = Literal["patch_encoder", "mixers", "patch_reassemble"]


class BaseClaim(FileModel):
    """A sentence of the supplement."""

    kind: ClassVar[str]
    """The key in the file that holds the test."""
    subject_at: ClassVar[str] = ""
    """Where the file says which cells the claim is about."""
    reference_at: ClassVar[str] = ""
    """Where the file says which cells they are compared with; empty for all other variants."""
    id: str = Field(pattern="^[a-z][a-z0-9_]*$")
    """Unique among all experiments."""
    sentence: Text
    """As the paper has it."""
    section: str = ""
    """Where the sentence stands, if not in the item's section."""
    metrics: OneOrMore[MetricName] = Field(default_factory=list, alias="metric")
    """The sentence must hold for each of them."""
    each: list[str] = Field(default_factory=list)
    """Axes: the sentence must hold at each value of them."""
    among: Coordinates = Field(default_factory=dict)
    """The part of the grid that the sentence speaks of."""
    note: Text = ""
    """How the sentence was read, if it can be read otherwise."""
    not_on_published: Text = ""
    """Why the printed numbers cannot decide it, if they seem to."""

    @property
    def subject(self) -> list[Coordinates]:
        """The cells that the claim is about."""
        return attrgetter(self.subject_at)(self) if self.subject_at else []

    @property
    def reference(self) -> list[Coordinates] | None:
        """The cells that it compares them with; None for all other variants."""
        return attrgetter(self.reference_at)(self) if self.reference_at else None

    @property
    def statistical(self) -> bool:
        """True if seeds decide the claim, so that the correction for multiple tests counts it."""
        return False

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""


class UntestedClaim(BaseClaim):
    """A sentence that nothing can test."""

    kind = "untested"
    untested: Text
    """Why nothing can test it."""


class ComparisonClaim(BaseClaim):
    """A claim that compares cells by one or more metrics."""

    two_cells: ClassVar[bool] = False
    """True if each side must be a single cell."""

    @property
    def statistical(self) -> bool:
        """True if seeds decide the claim, so that the correction for multiple tests counts it."""
        return not set(self.metrics) <= COUNTED_METRICS

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        if not self.metrics:
            raise ValueError("metric: is missing: the metrics that it must hold for")
        if timed := set(self.metrics) & metrics_from("timed", "recorded"):
            raise ValueError(f"metric: no claim can be about {', '.join(sorted(timed))}, which depend on the machine")
        if not trained and not set(self.metrics) <= COUNTED_METRICS:
            raise ValueError(f"metric: train: false can only have {', '.join(sorted(COUNTED_METRICS))}")
        if len({metric in COUNTED_METRICS for metric in self.metrics}) > 1:
            raise ValueError("metric: what is counted and what is trained for cannot be in one claim: make two of it")
        _check_axes("each", self.each, axes)
        _check_axes("among", self.among, axes)
        if self.among and not grid_cells.select(cells, [self.among]):
            raise ValueError(f"among: no cell has {_state(self.among)}")
        self._check_cells(grid_cells.cells_for(self, cells), axes)

    def _check_cells(self, cells: list[GridCell], axes: list[str]) -> None:
        there = grid_cells.select(cells, [self.among]) if self.among else cells
        for place in [*self.subject, *(self.reference or [])]:
            _check_axes(self.kind, place, [*axes, "model"])
            if not grid_cells.select(there, [place]):
                raise ValueError(f"{self.kind}: no cell has {_state(place)}")
        for group in grid_cells.groups(self, cells):
            subject, reference = grid_cells.sides(self, group)
            if not subject or not reference:
                each = f" at each {', '.join(self.each)}" if self.each else ""
                raise ValueError(f"{self.kind}: nothing to compare{each}")
            if set(map(id, subject)) & set(map(id, reference)):
                raise ValueError(f"{self.kind}: a cell would be compared with itself")
            if self.two_cells and (len(subject), len(reference)) != (1, 1):
                raise ValueError(f"{self.kind}: compares two cells, got {len(subject)} and {len(reference)}")


class Sides(FileModel):
    """Two sets of cells that are compared."""

    this: Places
    than: Places


class BetterClaim(ComparisonClaim):
    """Every cell of `this` is better than every cell of `than`."""

    kind = "better"
    subject_at = "better.this"
    reference_at = "better.than"
    better: Sides


class OptimumInClaim(ComparisonClaim):
    """The best cell is one of these."""

    kind = "optimum_in"
    subject_at = "optimum_in"
    optimum_in: Places


class AsGoodAsBest(FileModel):
    """Cells and how much worse than the best they may be."""

    places: Places
    margin: PositiveFloat
    """In the paper's units."""


class AsGoodAsBestClaim(ComparisonClaim):
    """None of these cells is worse than any other by more than the margin."""

    kind = "as_good_as_best"
    subject_at = "as_good_as_best.places"
    as_good_as_best: AsGoodAsBest


class ImprovesAlongClaim(ComparisonClaim):
    """Each step along an axis is an improvement."""

    kind = "improves_along"
    improves_along: str

    def _check_cells(self, cells: list[GridCell], axes: list[str]) -> None:
        axis = self.improves_along
        if axis not in axes:
            raise ValueError(f"improves_along: must be one of {', '.join(axes)}, got {axis!r}")
        for group in grid_cells.groups(self, [cell for cell in cells if not cell.quoted]):
            values = [cell.coordinates[axis] for cell in group]
            if len(values) < 2 or len(set(values)) < len(values) or not all(map(_is_number, values)):
                raise ValueError(f"improves_along: {axis} must take two numbers or more, each once: say `among` which cells")


class Gain(FileModel):
    """An improvement, in the paper's units."""

    this: Places
    over: Places
    by: float
    margin: PositiveFloat
    """How far from `by` the improvement may be."""


class GainsClaim(ComparisonClaim):
    """A cell is better than another by an amount, give or take a margin."""

    kind = "gains"
    subject_at = "gains.this"
    reference_at = "gains.over"
    two_cells = True
    gains: Gain


class SmallerSpreadClaim(ComparisonClaim):
    """The seeds of one cell differ less than those of another."""

    kind = "smaller_spread"
    subject_at = "smaller_spread.this"
    reference_at = "smaller_spread.than"
    two_cells = True
    smaller_spread: Sides


class CountClaim(BaseClaim):
    """A claim about a component's number of parameters, which needs no training."""

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        if trained:
            raise ValueError(f"{self.kind} is for experiments with train: false")


class EqualCount(FileModel):
    """A component and how far from its closed form the count may be."""

    component: Component
    within: PositiveFloat
    """Share of the closed form."""


class CountsEqualClaim(CountClaim):
    """A component has as many parameters as its closed form says."""

    kind = "counts_equal"
    counts_equal: EqualCount


class CountGrowth(FileModel):
    """The power of an axis that a component's count is said to grow with."""

    component: Component
    axis: str
    exponent: float
    within: PositiveFloat
    """How far from `exponent` the measured one may be."""


class CountGrowsClaim(CountClaim):
    """A component's parameters grow as a power of an axis."""

    kind = "count_grows"
    count_grows: CountGrowth

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        super().check(cells, axes, trained)
        axis = self.count_grows.axis
        if axis not in axes:
            raise ValueError(f"axis: must be one of {', '.join(axes)}, got {axis!r}")
        values = {cell.coordinates[axis] for cell in cells}
        if len(values) < 2 or not all(_is_number(value) and value > 0 for value in values):
            raise ValueError(f"axis: {axis} must take two numbers above zero or more")


def _check_axes(place: str, names: Iterable[str], axes: list[str]) -> None:
    for name in names:
        if name not in axes:
            raise ValueError(f"{place}: unknown axis {name!r}{nearest(name, axes)}")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _state(place: Coordinates) -> str:
    return ", ".join(f"{name} = {as_text(value)}" for name, value in place.items())


def _check_one_test(stated: Any) -> Any:
    if not isinstance(stated, dict):
        raise ValueError(f"a claim must be a mapping, got {stated!r}")
    found = [kind for kind in KINDS if kind in stated]
    if len(found) != 1:
        words = f"gives {' and '.join(found)}" if found else "gives no test"
        raise ValueError(f"{words}: one of {', '.join(KINDS)} is needed")
    return stated


def _tag_of(stated: Any) -> str:
    # Not the kind alone, because the path in an error message would take it for the key of that name.
    kind = stated.kind if isinstance(stated, BaseClaim) else next(kind for kind in KINDS if kind in stated)
    return f"claim {kind}"


Claim = Annotated[
    Annotated[BetterClaim, Tag("claim better")]
    | Annotated[OptimumInClaim, Tag("claim optimum_in")]
    | Annotated[AsGoodAsBestClaim, Tag("claim as_good_as_best")]
    | Annotated[ImprovesAlongClaim, Tag("claim improves_along")]
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
