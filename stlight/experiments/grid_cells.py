"""The cells that claims speak of: points of an experiment's grid and models that the paper quotes."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from stlight.experiments.field_types import Coordinates, PrintedNumber
from stlight.experiments.published_data import PublishedBand
from stlight.registry.model_specs import OURS

if TYPE_CHECKING:
    from stlight.experiments.plan import Experiment, Variant


@dataclass(frozen=True)
class GridCell:
    """One of our variants, or a model that the paper quotes."""

    label: str
    coordinates: dict[str, Any]
    """Values on the experiment's axes and `model`; of a quoted model, those that its row gives."""
    variant: "Variant | None" = None
    """None for a quoted model, which has no runs."""
    printed: dict[str, PrintedNumber] = field(default_factory=dict, compare=False)
    """The paper's numbers by metric, without known misprints."""
    band: PublishedBand | None = field(default=None, compare=False)
    """The paper's learning curve."""

    @property
    def quoted(self) -> bool:
        """True for a model that the paper quotes and the grid does not have."""
        return self.variant is None


def cells_of(experiment: "Experiment") -> list[GridCell]:
    """Return a cell for each variant and each quoted row, with the paper's numbers."""
    ours = [
        GridCell(
            f"{v.dataset}/{v.name}", {"model": OURS} | v.axes, v, experiment.all_printed(v, corrected=True), experiment.band(v)
        )
        for v in experiment.variants
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
