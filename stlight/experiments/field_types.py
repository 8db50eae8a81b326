"""The types of values that several models of the workflow's files share."""

import math
import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Self, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler, WithJsonSchema
from pydantic_core import CoreSchema, core_schema
from typing_extensions import TypeAliasType

from stlight.config import CUSTOM_NAME, SECTION_OF_FIELD
from stlight.experiments.yaml_files import FileModel, check_known
from stlight.registry.dataset_specs import DATASETS
from stlight.registry.metric_specs import METRICS

T = TypeVar("T")

SCALE_FIELDS = ("source", "custom_shape", "clips_per_epoch", "validation_clips", "test_clips")
"""Fields that a scale sets for each data set, and an experiment must not."""


@dataclass(frozen=True)
class PrintedNumber:
    """A number with the digits and the unit that the paper prints, because 21.80 says more than 21.8.

    Raises `ValueError` for a text that is not a number, which may end in K, M or G.
    """

    text: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?[KMG]?", self.text):
            raise ValueError(f"must be a number, which may end in K, M or G, got {self.text[:50]!r}")
        if not math.isfinite(self.value):
            raise ValueError(f"must be a finite number, got one of {len(self.text)} characters")

    def __str__(self) -> str:
        return self.text

    @property
    def value(self) -> float:
        """The number: 32.9e6 for "32.9M"."""
        return float(self.text.rstrip("KMG")) * self._unit

    @property
    def half_unit(self) -> float:
        """Half of the last printed digit: the printed number says nothing finer about what was rounded to it."""
        return 0.5 * self._unit * 10.0 ** -len(self.text.rstrip("KMG").partition(".")[2])

    @property
    def _unit(self) -> float:
        return {"K": 1e3, "M": 1e6, "G": 1e9}.get(self.text[-1], 1.0)

    def differs(self, other: Self) -> bool:
        """True if no single number rounds to both."""
        # The millionth is for sums of floats, which miss ties.
        return abs(self.value - other.value) > max(self.half_unit, other.half_unit) * (1 + 1e-6)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda written: cls(getattr(written, "text", str(written))), serialization=core_schema.to_string_ser_schema()
        )


def _field_of_experiments(name: str) -> str:
    if name in SCALE_FIELDS:
        raise ValueError(f"{name} is set by the scale or under data_sets, not by an experiment's base or grid")
    return check_known("unknown field", name, SECTION_OF_FIELD)


def _one_of(known: Collection[str], thing: str) -> AfterValidator:
    return AfterValidator(lambda name: check_known(f"unknown {thing}", name, known))


def _distinct(values: list[T]) -> list[T]:
    for value, times in Counter(values).items():
        if times > 1:
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
        AfterValidator(_field_of_experiments),
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
