"""The kinds of figures that an experiment can ask for, and its two-way table, each with its options."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stlight.experiments.yaml_files import FileModel, check_known

if TYPE_CHECKING:
    from stlight.experiments.plan import Experiment

AxisOption = Annotated[str, "axis"]
MetricOption = Annotated[str, "metric"]


class DisplayOptions(FileModel):
    """The options of a figure or table."""

    place: ClassVar[str] = "figure"
    """Where the file states the options."""
    required_axis: ClassVar[str] = ""

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        if self.place == "figure" and experiment.train == isinstance(self, GrowthFigure):
            raise ValueError("figure: kind growth is for experiments with train: false, and they have no other")
        known = {"axis": [*experiment.axes, *(["model"] if experiment.quoted else [])], "metric": experiment.known_metrics}
        if self.required_axis and self.required_axis not in experiment.axes:
            raise ValueError(f"{self.place}: the grid must have an axis {self.required_axis} for this kind")
        axes = []
        for option, field in type(self).model_fields.items():
            for thing in field.metadata:
                name = check_known(f"{self.place}.{option}: unknown {thing}", getattr(self, option), known[thing])
                axes += [name] if thing == "axis" else []
        points = [tuple(variant.axes.get(axis) for axis in axes) for variant in experiment.variants]
        if len(axes) == 2 and len(set(points)) < len(points):
            raise ValueError(f"{self.place}: several points of the grid share one cell of {axes[0]} × {axes[1]}")


class TwoWayTable(DisplayOptions):
    """A table of one metric by two axes."""

    place = "table"
    rows: AxisOption
    """Axis down the side."""
    columns: AxisOption
    """Axis across the top."""


class HeatmapFigure(DisplayOptions):
    """A metric by two axes."""

    kind: Literal["heatmap"]
    x: AxisOption
    """Axis across."""
    y: AxisOption
    """Axis down."""
    metric: MetricOption


class LinesFigure(DisplayOptions):
    """Each metric along each axis."""

    kind: Literal["lines"]


class BarsFigure(DisplayOptions):
    """Bars that compare models on each data set."""

    kind: Literal["bars"]
    required_axis = "dataset"


class DotsFigure(DisplayOptions):
    """Each variant's metrics as a dot with its interval."""

    kind: Literal["dots"]


class CurvesFigure(DisplayOptions):
    """A metric by epoch, one curve for each value of an axis."""

    kind: Literal["curves"]
    hue: AxisOption
    """Axis that a colour stands for."""
    y: MetricOption


class ScatterFigure(DisplayOptions):
    """A metric against the number of parameters, one colour for each value of an axis."""

    kind: Literal["scatter"]
    x: Literal["num_params"]
    y: MetricOption
    hue: AxisOption
    """Axis that a colour stands for."""


class TradeoffFigure(DisplayOptions):
    """A metric of several models against what they cost."""

    kind: Literal["tradeoff"]
    required_axis = "model"
    y: MetricOption


class GrowthFigure(DisplayOptions):
    """Parameters by component as the model grows, beside their closed forms."""

    kind: Literal["growth"]


Figure = Annotated[
    HeatmapFigure | LinesFigure | BarsFigure | DotsFigure | CurvesFigure | ScatterFigure | TradeoffFigure | GrowthFigure,
    Field(discriminator="kind"),
]
"""The table of figure kinds: a new kind is a class above and its name here."""
