"""The content of an experiment's file: its grid, table, figure, published numbers and claims."""

from typing import Annotated, Any, Literal

from pydantic import Field, GetJsonSchemaHandler, model_validator
from pydantic_core import CoreSchema

from stlight.experiments.claim_types import Claim
from stlight.experiments.field_types import (
    AxisValue,
    ClipCounts,
    CustomName,
    DistinctList,
    FieldName,
    MetricName,
    OneOrMore,
    PositiveInt,
)
from stlight.experiments.figure_types import Figure, TwoWayTable
from stlight.experiments.printed_number import PrintedNumber
from stlight.experiments.yaml_files import FileModel
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.metric_specs import METRICS

Grid = Annotated[dict[FieldName, DistinctList[AxisValue]], Field(min_length=1)]


class PaperItem(FileModel):
    """Where the paper has it."""

    section: str
    """Section of the supplement, or "-" for an experiment of your own."""
    item: str
    """Table or figure, as the supplement calls it."""


class CustomDataset(ClipCounts):
    """A custom data set: a folder under the data root with train.npy, test.npy and perhaps validation.npy, (N, T, C, H, W)."""

    context_frames: PositiveInt
    horizon_frames: PositiveInt
    channels: PositiveInt
    height: PositiveInt
    width: PositiveInt

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `stlight.config` that the statement sets."""
        stated = self.model_dump()
        return {"source": "files", "custom_shape": ClipShape(*(stated.pop(name) for name in ClipShape._fields)), **stated}


class PublishedEntry(FileModel):
    """Numbers that the paper prints for one point of the grid, or for a model that it quotes."""

    model: str | None = None
    source: str = ""
    """Where the paper has a quoted model's numbers from."""
    coordinates: dict[str, AxisValue]
    """Axis values, with `model` if it is given."""
    numbers: dict[str, PrintedNumber]
    """By metric."""

    @model_validator(mode="before")
    @classmethod
    def _split(cls, stated: Any) -> Any:
        """Sort the keys of the file, which are axes, metrics, `model` and `source`."""
        if not isinstance(stated, dict) or "numbers" in stated:
            return stated
        return {key: stated[key] for key in ("model", "source") if key in stated} | {
            "coordinates": {key: value for key, value in stated.items() if key not in METRICS and key != "source"},
            "numbers": {key: value for key, value in stated.items() if key in METRICS},
        }

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {
            "type": "object",
            "description": cls.__doc__,
            "properties": {name: {"type": "string"} for name in ("model", "source")},
            "additionalProperties": {"type": ["number", "string", "boolean"]},
        }


class ExperimentFile(FileModel):
    """One item of the paper."""

    title: str
    paper: PaperItem
    summary: str
    """Describes the fields varied and the outcome to look for."""
    train: bool = True
    """false: only count parameters and FLOPs, at the paper's size."""
    seeds: PositiveInt = 1
    """At least so many seeds for each variant."""
    base: dict[FieldName, AxisValue] = Field(default_factory=dict)
    """Fields of stlight/config.py, in the paper's units, that all variants share."""
    scales: list[str] = Field(default_factory=list)
    """Scales that have the experiment; all of them if none is named."""
    shorter: dict[str, Annotated[float, Field(gt=0, le=1)]] = Field(default_factory=dict)
    """Scales at which runs train for a share of the stated epochs, and that share."""
    data_sets: dict[CustomName, CustomDataset] = Field(default_factory=dict)
    """Custom data sets by name."""
    grid: OneOrMore[Grid]
    """Values for each field varied; every combination is a variant. A list of grids is their union."""
    metrics: DistinctList[MetricName] | Annotated[dict[str, DistinctList[MetricName]], Field(min_length=1)]
    """Metrics in the order of the table's columns; for several data sets, those of each."""
    selection: Literal["last", "best_on_validation", "best_on_test"] = "last"
    """Which epoch's metrics are reported."""
    published: list[PublishedEntry] = Field(default_factory=list)
    """The paper's numbers: axis values and metrics, or a quoted model's name and metrics."""
    table: TwoWayTable | None = None
    figure: Figure
    claims: list[Claim] = Field(default_factory=list)
    """Sentences of the paper about this item, each with the one test that decides it."""
