"""Figures of an experiment, raster and vector."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")  # Before pyplot is imported, because jobs have no display.

import matplotlib.pyplot as plt
import seaborn as sns
from matplotlib.figure import Figure

from stlight.analysis.escaping import plain
from stlight.analysis.figures import cells, runs
from stlight.analysis.figures.tradeoff import draw_tradeoff
from stlight.analysis.values import Values

DRAWING_BY_KIND: dict[str, Callable[..., Figure]] = {
    "heatmap": cells.draw_heatmap,
    "lines": cells.draw_lines,
    "bars": cells.draw_bars,
    "dots": cells.draw_dots,
    "growth": cells.draw_growth,
    "curves": runs.draw_curves,
    "scatter": runs.draw_scatter,
    "tradeoff": draw_tradeoff,
}
"""For each kind of figure that an experiment can ask for: its options and the experiment's values to a figure."""


def draw(values: Values) -> Figure:
    """Draw the figure that an experiment asks for."""
    options = values.experiment.figure
    return DRAWING_BY_KIND[options.kind](options, values)


def write_figures(values: Values, into: Path) -> None:
    """Write figures/<item> (PNG, SVG, PDF) and, for an experiment that trains, examples/<item> (PNG, SVG) under a folder."""
    experiment, scale = values.experiment, values.evidence.scale
    # Text becomes outlines in SVG and TrueType in PDF, so that no font needs to be installed.
    fonts = {"svg.fonttype": "path", "pdf.fonttype": 42}
    # Identifiers within an SVG derive from the salt: drawing the same numbers twice gives the same file. Without mathtext, a
    # dollar is a dollar.
    settings = fonts | {"svg.hashsalt": experiment.name, "text.parse_math": False}
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9, rc=settings)
    figure = draw(values)
    note = ", with stand-in data" * (experiment.train and "stand-in" in set(values.cells["data"]))
    title = plain(f"{experiment.item}: {experiment.title} (scale {scale.name}{note})")
    figure.suptitle(title, fontsize="large")
    _save(figure, into / "figures" / experiment.name, (".png", ".svg", ".pdf"))
    if experiment.train:
        _save(runs.draw_examples(values), into / "examples" / experiment.name, (".png", ".svg"))


def _save(figure: Figure, path: Path, suffixes: tuple[str, ...]) -> None:
    """Write a figure once per suffix and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.draw_without_rendering()
    # The layout is computed once: all files look alike, and later ones take half the time.
    figure.set_layout_engine("none")
    # No date in the file: drawing the same numbers twice gives the same file.
    dates: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    for suffix in suffixes:
        figure.savefig(path.with_name(path.name + suffix), dpi=130, metadata=dates.get(suffix))
    plt.close(figure)
