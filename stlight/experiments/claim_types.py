"""The kinds of claims: sentences of the paper, each with the one test that decides it. One type per kind."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, get_args

from pydantic import BeforeValidator, Discriminator, Field, Tag

from stlight.experiments.claim_terms import AsGoodAsBest, CountGrowth, Domination, EqualCount, Gain, Places, Sides
from stlight.experiments.field_types import Coordinates, MetricName, OneOrMore, Text
from stlight.experiments.grid_cells import GridCell, select
from stlight.experiments.yaml_files import FileModel, check_known, state
from stlight.registry.metric_specs import COUNTED_METRICS, metrics_from


class BaseClaim(FileModel):
    """A sentence of the supplement. A subclass holds the one test that decides it, in the field that is its kind."""

    kind: ClassVar[str]

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
    absolute: bool = False
    """The sentence states a value that only the paper's size has, so that smaller runs cannot test it."""
    note: Text = ""
    """How the sentence was read, if it can be read otherwise."""
    not_on_published: Text = ""
    """Why the printed numbers cannot decide it, if they seem to."""

    @property
    def terms(self) -> Any:
        """The content of the field that holds the test."""
        return getattr(self, self.kind)

    @property
    def named_metrics(self) -> list[str]:
        """All metrics that the claim needs."""
        return self.metrics

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

    def groups(self, cells: Iterable[GridCell]) -> list[list[GridCell]]:
        """Return the cells in `among`, one list for each combination of values of the axes in `each`."""
        # A quoted row must have all of the claim's metrics.
        usable = [cell for cell in cells if not cell.quoted or set(self.metrics) <= cell.printed.keys()]
        found: dict[tuple[Any, ...], list[GridCell]] = {}
        for cell in select(usable, [self.among]) if self.among else usable:
            if all(axis in cell.coordinates for axis in self.each):
                found.setdefault(tuple(cell.coordinates[axis] for axis in self.each), []).append(cell)
        return list(found.values())

    def sides(self, group: list[GridCell]) -> tuple[list[GridCell], list[GridCell]]:
        """Return the cells of a group that the claim is about, and those that it compares them with."""
        this, than = self._places
        first = select(group, this)
        return first, select(group, than) if than else [cell for cell in group if cell not in first and not cell.quoted]

    @property
    def _places(self) -> tuple[list[Coordinates], list[Coordinates]]:
        """The places of both sides; those of the second are empty for all other variants."""
        match self.terms:
            case Sides(this=this, than=than) | Gain(this=this, over=than) | Domination(this=this, by=than):
                return this, than
            case AsGoodAsBest(places=places) | list(places):
                return places, []
        return [], []

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        counted, others = set(self.metrics) & COUNTED_METRICS, set(self.metrics) - COUNTED_METRICS
        if not self.metrics:
            raise ValueError("metric: is missing: the metrics that it must hold for")
        if timed := set(self.metrics) & metrics_from("timed", "recorded"):
            raise ValueError(f"metric: no claim can be about {', '.join(sorted(timed))}, which depend on the machine")
        if others and not trained:
            raise ValueError(f"metric: train: false can only have {', '.join(sorted(COUNTED_METRICS))}, got {min(others)}")
        if others and counted:
            words = f"{', '.join(sorted(counted))} is counted, {', '.join(sorted(others))} is trained for"
            raise ValueError(f"metric: {words}: they cannot be in one claim")
        _check_axes("each", self.each, axes)
        _check_axes("among", self.among, axes)
        if self.among and not select(cells, [self.among]):
            raise ValueError(f"among: no cell has {state(self.among)}")
        self._check_sides(self.groups(cells), axes)

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        this, than = self._places
        for place in [*this, *than]:
            _check_axes(self.kind, place, [*axes, "model"])
            if not any(select(group, [place]) for group in groups):
                raise ValueError(f"{self.kind}: no cell has {state(place)}")
        for group in groups:
            first, second = self.sides(group)
            if not first or not second:
                each = f" at each {', '.join(self.each)}" if self.each else ""
                raise ValueError(f"{self.kind}: nothing to compare{each}")
            if set(map(id, first)) & set(map(id, second)):
                raise ValueError(f"{self.kind}: a cell would be compared with itself")
            if self.two_cells and (len(first), len(second)) != (1, 1):
                raise ValueError(f"{self.kind}: compares two cells, got {len(first)} and {len(second)}")


class BetterClaim(ComparisonClaim):
    """Every cell of `this` is better than every cell of `than`."""

    kind = "better"
    better: Sides


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
        _check_numbers("improves_along", self.improves_along, [self.sides(group)[0] for group in groups], axes)


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
        _check_numbers("count_grows", self.count_grows.axis, [cells], axes)


def _check_axes(place: str, names: Iterable[str], axes: list[str]) -> None:
    for name in names:
        check_known(f"{place}: unknown axis", name, axes)


def _check_numbers(place: str, axis: str, groups: list[list[GridCell]], axes: list[str]) -> None:
    check_known(f"{place}: unknown axis", axis, axes)
    for group in groups:
        values = {cell.coordinates[axis] for cell in group}
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        grows = place == "count_grows"
        if len(values) < 2 or not numbers or (min(values) <= 0 if grows else len(values) < len(group)):
            needs = "above zero" if grows else "or more, each once: say `among` which cells"
            raise ValueError(f"{place}: {axis} must take two numbers {needs}")


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
