"""The types of values that several models of the workflow's files share."""

from collections.abc import Collection
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema
from typing_extensions import TypeAliasType

from stlight.config import CUSTOM_NAME, SECTION_OF_FIELD
from stlight.experiments.yaml_files import FileModel, nearest
from stlight.registry.dataset_specs import DATASETS
from stlight.registry.metric_specs import METRICS

T = TypeVar("T")

SCALE_FIELDS = ("source", "custom_shape", "clips_per_epoch", "validation_clips", "test_clips")
"""Fields that a scale sets for each data set, and an experiment must not."""


def _not_of_scales(name: str) -> str:
    if name == "custom_shape":
        raise ValueError("the shape of a custom data set is stated under data_sets")
    if name in SCALE_FIELDS:
        raise ValueError(f"{name} is set by the scale, not by an experiment")
    return name


def _one_of(known: Collection[str], thing: str) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {thing} {name!r}{nearest(name, known)}")
        return name

    return AfterValidator(check)


def _distinct(values: list[T]) -> list[T]:
    for number, value in enumerate(values):
        if value in values[:number]:
            raise ValueError(f"{value!r} is given twice")
    return values


class _OneOrMore:
    """Let a file give one item instead of a list of them."""

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        several = handler(schema)
        return {"anyOf": [several["items"], several]}


PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
Text = Annotated[str, Field(min_length=1), AfterValidator(lambda text: " ".join(text.split()))]
"""A sentence or more; line breaks are spaces."""
CustomName = Annotated[str, Field(pattern=CUSTOM_NAME.pattern)]
DatasetName = Annotated[str, _one_of(DATASETS, "data set")]
"""A data set of the benchmark."""
DistinctList = Annotated[list[T], Field(min_length=1), AfterValidator(_distinct)]
OneOrMore = Annotated[
    list[T],
    Field(min_length=1),
    BeforeValidator(lambda value: value if isinstance(value, list) else [value]),
    _OneOrMore(),
]

# JSON Schema refers to the following by name, because they are used many times.
AxisValue = TypeAliasType(
    "AxisValue",
    # Floats become plain ones, because only printed numbers need the digits that they were written with.
    Annotated[bool | int | float | str, AfterValidator(lambda value: float(value) if isinstance(value, float) else value)],
)
FieldName = TypeAliasType(
    "FieldName",
    Annotated[
        str,
        _one_of(SECTION_OF_FIELD, "field"),
        AfterValidator(_not_of_scales),
        WithJsonSchema({"enum": [name for name in SECTION_OF_FIELD if name not in SCALE_FIELDS]}),
    ],
)
"""A field of `stlight.config` that an experiment may state."""
MetricName = TypeAliasType("MetricName", Annotated[str, _one_of(METRICS, "metric"), WithJsonSchema({"enum": list(METRICS)})])
Coordinates = TypeAliasType("Coordinates", Annotated[dict[str, AxisValue | list[AxisValue]], Field(min_length=1)])
"""Axis values, each one or a list of alternatives. `model` may also be a quoted model, or `others`: all models but ours, and of
these only the ones that the paper prints numbers of, if it prints any."""


class ClipCounts(FileModel):
    """Numbers of clips of a data set."""

    clips_per_epoch: PositiveInt
    validation_clips: PositiveInt
    test_clips: PositiveInt
