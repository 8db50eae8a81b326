"""The paper's numbers, as an experiment's file states them or as CSV files under `workflow/published` hold them."""

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from pydantic import Field, GetJsonSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema

from stlight.config import error_words
from stlight.experiments.field_types import AxisValue, PrintedNumber, Text
from stlight.experiments.yaml_files import ExperimentError, FileModel, parse, read_bytes
from stlight.registry.metric_specs import METRICS


class PublishedEntry(FileModel):
    """Numbers that the paper prints for one point of the grid, or for a model that it quotes."""

    model: str | None = None
    source: str = ""
    """Where the paper has a quoted model's numbers from."""
    coordinates: dict[str, AxisValue]
    """Axis values, with `model` if it is given."""
    numbers: dict[str, PrintedNumber]
    """By metric."""
    corrected: dict[str, PrintedNumber] = Field(default_factory=dict)
    """Numbers that claims are tested with instead, because another place of the paper shows a misprint."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, stated: Any) -> Any:
        """Sort the keys of the file, which are axes, metrics, `model` and `source`."""
        if not isinstance(stated, dict) or "numbers" in stated:
            return stated
        return {key: stated[key] for key in ("model", "source", "corrected") if key in stated} | {
            "coordinates": {key: value for key, value in stated.items() if key not in (*METRICS, "source", "corrected")},
            "numbers": {key: value for key, value in stated.items() if key in METRICS},
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "object",
            "description": cls.__doc__,
            "properties": {name: {"type": "string"} for name in ("model", "source")} | {"corrected": {"type": "object"}},
            "additionalProperties": {"type": ["number", "string", "boolean"]},
        }


class PublishedData(FileModel):
    """Numbers of a published figure, in a CSV file under workflow/published."""

    file: str = Field(pattern=r"^[\w-]+\.csv$")
    """Name of the file."""
    source: Text
    """Publication, figure, and how the numbers were read from it."""


class PublishedCurves(PublishedData):
    """Learning curves of a published figure, and what steps to learn are counted by."""

    steps_per_epoch: int | None = Field(default=None, ge=1)
    """Optimizer steps in an epoch of the published runs."""
    common_error: float | None = Field(default=None, gt=0)
    """Error that curves are compared at: that of the best trivial predictor on the same data, in the curves' metric."""

    @model_validator(mode="after")
    def _both_or_neither(self) -> Self:
        if (self.steps_per_epoch is None) != (self.common_error is None):
            raise ValueError("steps_per_epoch and common_error must be given together")
        return self


@dataclass(frozen=True)
class PublishedBand:
    """A published learning curve of several runs: the lowest and the highest value at each epoch."""

    coordinates: dict[str, Any]
    metric: str
    low: dict[int, float] = field(default_factory=dict)
    """By epoch, from 0. A point that the figure does not draw is left out."""
    high: dict[int, float] = field(default_factory=dict)
    steps_per_epoch: int | None = None
    common_error: float | None = None


def read_points(data: PublishedData, folder: Path, axes: Iterable[str]) -> list[PublishedEntry]:
    """Return an entry for each row of a file. Columns are axes and metrics; others say more for readers and are left out.

    Raises `ExperimentError`, in one line, for a file that cannot be read or a value that is not a number.
    """
    entries = []
    for place, row in _rows(data, folder):
        stated = {name: parse(text.encode(), place) for name, text in row.items() if name in axes}
        stated |= {name: text for name, text in row.items() if name in METRICS}
        try:
            entries.append(PublishedEntry.model_validate(stated))
        except ValidationError as error:
            detail = error.errors()[0]
            raise ExperimentError(f"{place}: {detail['loc'][-1]}: {error_words(detail)}") from error
    return entries


def read_curves(data: PublishedCurves, folder: Path, axes: Iterable[str]) -> list[PublishedBand]:
    """Return the bands of a file whose columns are axes, `bound` (min or max), `epoch` and one metric.

    Raises `ExperimentError`, in one line, for a file that cannot be read, a column that is missing or a wrong value.
    """
    bands: dict[str, PublishedBand] = {}
    common: dict[str, Any] = {"steps_per_epoch": data.steps_per_epoch, "common_error": data.common_error}
    for place, row in _rows(data, folder):
        metrics = [name for name in row if name in METRICS]
        if len(metrics) != 1 or not {"bound", "epoch"} <= row.keys():
            raise ExperimentError(f"{place}: the columns must be axes, bound, epoch and one metric, got {', '.join(row)}")
        coordinates = {name: parse(text.encode(), place) for name, text in row.items() if name in axes}
        band = bands.setdefault(str(coordinates), PublishedBand(coordinates, metrics[0], **common))
        bounds = {"min": band.low, "max": band.high}
        try:
            known, epoch, value = bounds[row["bound"]], int(row["epoch"]), PrintedNumber(row[metrics[0]]).value
        except (KeyError, ValueError) as error:
            words = f"bound must be min or max, epoch a whole number and {metrics[0]} a number"
            raise ExperimentError(f"{place}: {words}, got {', '.join(row.values())}") from error
        if epoch in known:
            raise ExperimentError(f"{place}: {row['bound']} at epoch {epoch} is published twice")
        known[epoch] = value
    return list(bands.values())


def read_text(data: PublishedData, folder: Path) -> str:
    """Return a file's text. Raises `ExperimentError`, in one line, if it cannot be read."""
    path = folder / "published" / data.file
    try:
        return read_bytes(path).decode()
    except UnicodeDecodeError as error:
        raise ExperimentError(f"{path}: cannot be read: {error}") from error


def _rows(data: PublishedData, folder: Path) -> Iterable[tuple[str, dict[str, str]]]:
    """Yield each row with its place in the file."""
    path = folder / "published" / data.file
    try:
        for number, row in enumerate(csv.DictReader(read_text(data, folder).splitlines()), 2):
            place = f"{path}: line {number}"
            if None in row or None in row.values():
                raise ExperimentError(f"{place}: has another number of columns than the first line")
            yield place, row
    except csv.Error as error:
        raise ExperimentError(f"{path}: not valid CSV: {error}") from error
