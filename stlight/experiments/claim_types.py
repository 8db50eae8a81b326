"""Claims: sentences of the paper, each with the one test that decides it, and the cells of the grid that they compare."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from pydantic import ConfigDict, Field, model_validator
from typing_extensions import TypeAliasType

from stlight.experiments.field_types import Coordinates, MetricName, OneOrMore, PositiveFloat, PrintedNumber, Text
from stlight.experiments.yaml_files import FileModel, check_known, state
from stlight.registry.metric_specs import COUNTED_METRICS, metrics_from
from stlight.registry.model_specs import OURS

if TYPE_CHECKING:
    from stlight.experiments.plan import Experiment, Variant

Places = TypeAliasType("Places", OneOrMore[Coordinates])
Component = Literal["patch_encoder", "mixers", "patch_reassemble"]

KINDS_OF_COMPARISONS = ("better", "optimum_in", "as_good_as_best", "improves_along", "gains", "smaller_spread")
KINDS_OF_COUNTS = ("counts_equal", "count_grows")
KINDS = (*KINDS_OF_COMPARISONS, *KINDS_OF_COUNTS, "untested")
"""The fields of `Claim` that hold a test. A claim has one of them."""


@dataclass(frozen=True)
class GridCell:
    """One of our variants, or a model that the paper quotes."""

    label: str
    coordinates: dict[str, Any]
    """Values on the experiment's axes and `model`; of a quoted model, those that its row gives."""
    variant: "Variant | None" = None
    """None for a quoted model, which has no runs."""
    printed: dict[str, PrintedNumber] = field(default_factory=dict, compare=False)
    """The paper's numbers by metric."""

    @property
    def quoted(self) -> bool:
        """True for a model that the paper quotes and the grid does not have."""
        return self.variant is None


def cells_of(experiment: "Experiment") -> list[GridCell]:
    """Return a cell for each variant and each quoted row, with the paper's numbers."""
    ours = [
        GridCell(f"{v.dataset}/{v.name}", {"model": OURS} | v.axes, v, experiment.all_printed(v)) for v in experiment.variants
    ]
    return ours + [GridCell(str(entry.model), entry.coordinates, None, entry.numbers) for entry in experiment.quoted]


def select(cells: list[GridCell], places: list[Coordinates]) -> list[GridCell]:
    """Return the cells at any of the coordinates, in order. Coordinates without a model select our own variants only."""
    # The paper's "other models" are those that it prints numbers of, not a baseline added since.
    only_printed = any(cell.printed for cell in cells if cell.coordinates.get("model") != OURS)
    return [cell for cell in cells if any(_is_at(cell, place, only_printed) for place in places)]


def _is_at(cell: GridCell, place: Coordinates, only_printed: bool) -> bool:
    if "model" not in place and cell.quoted:
        return False
    for key, value in place.items():
        values = value if isinstance(value, list) else [value]
        if key == "model" and values == ["others"]:
            if cell.coordinates.get("model") == OURS or (only_printed and not cell.printed):
                return False
        elif cell.coordinates.get(key) not in values:
            return False
    return True


class Sides(FileModel):
    """Two sets of cells that are compared."""

    this: Places
    than: Places


class AsGoodAsBest(FileModel):
    """Cells and how much worse than the best they may be."""

    places: Places
    margin: PositiveFloat
    """In the paper's units."""


class Gain(FileModel):
    """An improvement, in the paper's units."""

    this: Places
    over: Places
    by: float
    margin: PositiveFloat
    """How far from `by` the improvement may be."""


class EqualCount(FileModel):
    """A component and how far from its closed form the count may be."""

    component: Component
    within: PositiveFloat
    """Share of the closed form."""


class CountGrowth(FileModel):
    """The power of an axis that a component's count is said to grow with."""

    component: Component
    axis: str
    exponent: float
    within: PositiveFloat
    """How far from `exponent` the measured one may be."""


class Claim(FileModel):
    """A sentence of the supplement, and the one test that decides it."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": [kind]} for kind in KINDS]})

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
    better: Sides | None = None
    """Every cell of `this` is better than every cell of `than`."""
    optimum_in: Places | None = None
    """The best cell is one of these."""
    as_good_as_best: AsGoodAsBest | None = None
    """None of these cells is worse than any other by more than the margin."""
    improves_along: str | None = None
    """Each step along this axis is an improvement."""
    gains: Gain | None = None
    """A cell is better than another by an amount, give or take a margin."""
    smaller_spread: Sides | None = None
    """The seeds of one cell differ less than those of another."""
    counts_equal: EqualCount | None = None
    """A component has as many parameters as its closed form says."""
    count_grows: CountGrowth | None = None
    """A component's parameters grow as a power of an axis."""
    untested: Text | None = None
    """Why nothing can test the sentence."""

    @model_validator(mode="before")
    @classmethod
    def _has_one_test(cls, stated: Any) -> Any:
        found = [kind for kind in KINDS if stated.get(kind) is not None] if isinstance(stated, dict) else KINDS[:1]
        if len(found) != 1:
            words = f"gives {' and '.join(found)}" if found else "gives no test"
            raise ValueError(f"{words}: one of {', '.join(KINDS)} is needed")
        return stated

    @property
    def kind(self) -> str:
        """The field that holds the test."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def terms(self) -> Any:
        """The content of the field that holds the test."""
        return getattr(self, self.kind)

    @property
    def compares(self) -> bool:
        """True if the claim compares cells by its metrics."""
        return self.kind in KINDS_OF_COMPARISONS

    @property
    def statistical(self) -> bool:
        """True if seeds decide the claim, so that the correction for multiple tests counts it."""
        return self.compares and not set(self.metrics) <= COUNTED_METRICS

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
        if self.kind == "improves_along":
            return [cell for cell in group if not cell.quoted], []
        this, than = self._places
        first = select(group, this)
        return first, select(group, than) if than else [cell for cell in group if cell not in first and not cell.quoted]

    @property
    def _places(self) -> tuple[list[Coordinates], list[Coordinates]]:
        """The places of both sides; those of the second are empty for all other variants."""
        match self.terms:
            case Sides(this=this, than=than) | Gain(this=this, over=than):
                return this, than
            case AsGoodAsBest(places=places) | list(places):
                return places, []
        return [], []

    def check(self, cells: list[GridCell], axes: list[str], trained: bool) -> None:
        """Raise `ValueError` if the claim speaks of something that the grid does not have."""
        if self.compares:
            self._check_metrics(trained)
            _check_axes("each", self.each, axes)
            _check_axes("among", self.among, axes)
            if self.among and not select(cells, [self.among]):
                raise ValueError(f"among: no cell has {state(self.among)}")
            self._check_sides(self.groups(cells), axes)
        elif self.kind in KINDS_OF_COUNTS and trained:
            raise ValueError(f"{self.kind} is for experiments with train: false")
        elif self.count_grows:
            _check_numbers("count_grows", self.count_grows.axis, [cells], axes)

    def _check_metrics(self, trained: bool) -> None:
        counted = set(self.metrics) & COUNTED_METRICS
        if not self.metrics:
            raise ValueError("metric: is missing: the metrics that it must hold for")
        if timed := set(self.metrics) & metrics_from("timed", "recorded"):
            raise ValueError(f"metric: no claim can be about {', '.join(sorted(timed))}, which depend on the machine")
        if (counted or not trained) and counted != set(self.metrics):
            all_counted = ", ".join(sorted(COUNTED_METRICS))
            raise ValueError(f"metric: train: false can only have {all_counted}, which cannot be in one claim with others")

    def _check_sides(self, groups: list[list[GridCell]], axes: list[str]) -> None:
        if self.improves_along:
            _check_numbers("improves_along", self.improves_along, [self.sides(group)[0] for group in groups], axes)
            return
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
            if self.kind in ("gains", "smaller_spread") and (len(first), len(second)) != (1, 1):
                raise ValueError(f"{self.kind}: compares two cells, got {len(first)} and {len(second)}")


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
