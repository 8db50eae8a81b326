"""The kinds of figures that an experiment can ask for, and its two-way table: each with its options and their checks."""

from typing import TYPE_CHECKING, Annotated, Literal

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
    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        if not experiment.train:
            raise ValueError("figure: an experiment with train: false needs kind growth")


class HeatmapFigure(_Figure):
    """A metric by two axes."""

    kind: Literal["heatmap"]
    x: str
    """Axis across."""
    y: str
    """Axis down."""
    metric: str

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        super().check(experiment)
        _check_axis(experiment, "figure.x", self.x)
        _check_axis(experiment, "figure.y", self.y)
        _check_metric(experiment, "figure.metric", self.metric)
        _check_cells(experiment, "figure", self.y, self.x)


class LinesFigure(_Figure):
    """Each metric along each axis."""

    kind: Literal["lines"]


class BarsFigure(_Figure):
    """Models side by side, for each data set."""

    kind: Literal["bars"]

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        super().check(experiment)
        if "dataset" not in experiment.axes:
            raise ValueError("figure: kind bars compares models by data set: the grid must have an axis dataset")


class DotsFigure(_Figure):
    """Each variant's metrics as a dot with its interval."""

    kind: Literal["dots"]


class _HuedFigure(_Figure):
    hue: str
    """Axis that a colour stands for."""
    y: str
    """Metric."""

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        super().check(experiment)
        _check_axis(experiment, "figure.hue", self.hue)
        _check_metric(experiment, "figure.y", self.y)


class CurvesFigure(_HuedFigure):
    """A metric by epoch, one curve for each value of an axis."""

    kind: Literal["curves"]


class ScatterFigure(_HuedFigure):
    """A metric against the number of parameters, one colour for each value of an axis."""

    kind: Literal["scatter"]
    x: Literal["num_params"]


class TradeoffFigure(_Figure):
    """A metric of several models against what they cost."""

    kind: Literal["tradeoff"]
    y: str
    """Metric."""

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment's grid or metrics do not fit."""
        super().check(experiment)
        if "model" not in experiment.axes:
            raise ValueError("figure: kind tradeoff compares models: the grid must have an axis model")
        _check_metric(experiment, "figure.y", self.y)


class GrowthFigure(FileModel):
    """Parameters by component as the model grows, beside their closed forms."""

    kind: Literal["growth"]

    def check(self, experiment: "Experiment") -> None:
        """Raise `ValueError` if the experiment is trained."""
        if experiment.train:
            raise ValueError("figure: kind growth is for experiments with train: false")


Figure = Annotated[
    HeatmapFigure | LinesFigure | BarsFigure | DotsFigure | CurvesFigure | ScatterFigure | TradeoffFigure | GrowthFigure,
    Field(discriminator="kind"),
]
"""The table of figure kinds: a new kind is a class above and its name here."""


def _check_axis(experiment: "Experiment", place: str, name: str) -> None:
    _check_choice(place, name, {*experiment.axes, *(["model"] if experiment.quoted else [])})


def _check_metric(experiment: "Experiment", place: str, name: str) -> None:
    _check_choice(place, name, {metric for names in experiment.metrics.values() for metric in names})


def _check_choice(place: str, name: str, known: set[str]) -> None:
    if name not in known:
        raise ValueError(f"{place}: must be one of {', '.join(sorted(known))}, got {name!r}")


def _check_cells(experiment: "Experiment", place: str, row: str, column: str) -> None:
    cells = [(variant.axes[row], variant.axes[column]) for variant in experiment.variants]
    if len(set(cells)) < len(cells):
        raise ValueError(f"{place}: several points of the grid share one cell of {row} × {column}")
