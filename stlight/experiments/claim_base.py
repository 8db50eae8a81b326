"""Base classes of claims: a sentence of the paper, and a claim that compares cells."""

from collections.abc import Iterable
from typing import Any, ClassVar

from pydantic import Field

from stlight.experiments.claim_terms import AsGoodAsBest, Domination, Gain, Sides
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


class ComparisonClaim(BaseClaim):
    """A claim that compares cells by one or more metrics."""

    two_cells: ClassVar[bool] = False
    """True if each side must be a single cell."""

    paired: bool = True
    """false: compare cells as independent even if they share their seeds."""

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
        check_axes("each", self.each, axes)
        check_axes("among", self.among, axes)
        if self.among and not select(cells, [self.among]):
            raise ValueError(f"among: no cell has {state(self.among)}")
        self._check_sides(self.groups(cells), axes)

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        this, than = self._places
        for place in [*this, *than]:
            check_axes(self.kind, place, [*axes, "model"])
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


def check_axes(place: str, names: Iterable[str], axes: list[str]) -> None:
    """Raise `ValueError` for a name that is no axis."""
    for name in names:
        check_known(f"{place}: unknown axis", name, axes)


def check_numbers(place: str, axis: str, groups: list[list[GridCell]], axes: list[str]) -> None:
    """Raise `ValueError` if an axis does not take two numbers in each group."""
    check_known(f"{place}: unknown axis", axis, axes)
    for group in groups:
        values = {cell.coordinates[axis] for cell in group}
        numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
        grows = place == "count_grows"
        if len(values) < 2 or not numbers or (min(values) <= 0 if grows else len(values) < len(group)):
            needs = "above zero" if grows else "or more, each once: say `among` which cells"
            raise ValueError(f"{place}: {axis} must take two numbers {needs}")
