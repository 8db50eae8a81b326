"""Terms of a claim's test, the cells it compares and the amounts it expects: the content of the field named like its kind."""

from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypeAliasType

from stlight.experiments.field_types import Coordinates, OneOrMore, PositiveFloat
from stlight.experiments.yaml_files import FileModel

Places = TypeAliasType("Places", OneOrMore[Coordinates])
Component = Literal["patch_encoder", "mixers", "patch_shuffle", "patch_reassemble"]


class Sides(FileModel):
    """Two sets of cells that are compared."""

    this: Places
    than: Places


class AsGoodAsBest(FileModel):
    """Cells and how much worse than the best they may be."""

    places: Places
    margin: PositiveFloat
    """In the paper's units."""


class Domination(FileModel):
    """Cells, and those that might be better than they are at a lower cost."""

    this: Places
    by: Places
    cost: Literal["num_params", "benchmark_flops", "prediction_flops"]


class Gain(FileModel):
    """An improvement, in the paper's units."""

    this: Places
    over: Places
    by: float
    margin: PositiveFloat
    """How far from `by` the improvement may be."""


class Trend(FileModel):
    """An axis, and what happens along it."""

    axis: str
    becomes: Literal["better", "worse"]


class Optimum(FileModel):
    """The value of an axis at which the error is said to be lowest."""

    axis: str
    near: PositiveFloat
    factor: Annotated[float, Field(gt=1)]
    """The optimum is near `near` if it lies between `near / factor` and `near * factor`."""


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
