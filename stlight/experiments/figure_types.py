"""The kinds of figures that an experiment can ask for, and its two-way table: each with its options and their checks."""

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from stlight.experiments.yaml_files import FileModel

if TYPE_CHECKING:
    from stlight.experiments.plan import Experiment


class TwoWayTable(FileModel):
    """A table of one metric by two axes."""

    rows: str
    """Axis down the side."""
    columns: str
    """Axis across the top."""

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid does not fit."""
        _check_axis(experiment, "table.rows", self.rows)
        _check_axis(experiment, "table.columns", self.columns)
        _check_cells(experiment, "table", self.rows, self.columns)


class _Figure(FileModel):
    axis_options: ClassVar[tuple[str, ...]] = ()
    metric_options: ClassVar[tuple[str, ...]] = ()
    required_axis: ClassVar[str] = ""
    of_counts: ClassVar[bool] = False
    """True for a figure of what is counted, for experiments that train nothing."""

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        if experiment.train == self.of_counts:
            raise ValueError("figure: kind growth is for experiments with train: false, and they have no other")
        if self.required_axis and self.required_axis not in experiment.axes:
            raise ValueError(f"figure: the grid must have an axis {self.required_axis} for this kind")
        for option in self.axis_options:
            _check_axis(experiment, f"figure.{option}", getattr(self, option))
        for option in self.metric_options:
            _check_choice(f"figure.{option}", getattr(self, option), set(experiment.known_metrics))


class HeatmapFigure(_Figure):
    """A metric by two axes."""

    kind: Literal["heatmap"]
    axis_options = ("x", "y")
    metric_options = ("metric",)
    x: str
    """Axis across."""
    y: str
    """Axis down."""
    metric: str

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        super().check(experiment)
        _check_cells(experiment, "figure", self.y, self.x)


class LinesFigure(_Figure):
    """Each metric along each axis."""

    kind: Literal["lines"]


class BarsFigure(_Figure):
    """Bars that compare models on each data set."""

    kind: Literal["bars"]
    required_axis = "dataset"


class DotsFigure(_Figure):
    """Each variant's metrics as a dot with its interval."""

    kind: Literal["dots"]


class CurvesFigure(_Figure):
    """A metric by epoch, one curve for each value of an axis."""

    kind: Literal["curves"]
    axis_options = ("hue",)
    metric_options = ("y",)
    hue: str
    """Axis that a colour stands for."""
    y: str
    """Metric."""


class ScatterFigure(_Figure):
    """A metric against the number of parameters, one colour for each value of an axis."""

    kind: Literal["scatter"]
    axis_options = ("hue",)
    metric_options = ("y",)
    x: Literal["num_params"]
    y: str
    """Metric."""
    hue: str
    """Axis that a colour stands for."""


class TradeoffFigure(_Figure):
    """A metric of several models against what they cost."""

    kind: Literal["tradeoff"]
    required_axis = "model"
    metric_options = ("y",)
    y: str
    """Metric."""


class GrowthFigure(_Figure):
    """Parameters by component as the model grows, beside their closed forms."""

    kind: Literal["growth"]
    of_counts = True


Figure = Annotated[
    HeatmapFigure | LinesFigure | BarsFigure | DotsFigure | CurvesFigure | ScatterFigure | TradeoffFigure | GrowthFigure,
    Field(discriminator="kind"),
]
"""The table of figure kinds: a new kind is a class above and its name here."""


def _check_axis(experiment: "Experiment", place: str, name: str) -> None:
    _check_choice(place, name, {*experiment.axes, *(["model"] if experiment.quoted else [])})


def _check_choice(place: str, name: str, known: set[str]) -> None:
    if name not in known:
        raise ValueError(f"{place}: must be one of {', '.join(sorted(known))}, got {name!r}")


def _check_cells(experiment: "Experiment", place: str, row: str, column: str) -> None:
    cells = [(variant.axes[row], variant.axes[column]) for variant in experiment.variants]
    if len(set(cells)) < len(cells):
        raise ValueError(f"{place}: several points of the grid share one cell of {row} × {column}")
