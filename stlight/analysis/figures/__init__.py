"""Figures of an experiment, raster and vector: one module per kind."""

from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")  # Before pyplot is imported, because jobs have no display.

import seaborn as sns
from matplotlib.figure import Figure

from stlight.analysis.figures.bars import draw_bars
from stlight.analysis.figures.curves import draw_curves
from stlight.analysis.figures.dots import draw_dots
from stlight.analysis.figures.examples import draw_examples
from stlight.analysis.figures.growth import draw_growth
from stlight.analysis.figures.heatmap import draw_heatmap
from stlight.analysis.figures.lines import draw_lines
from stlight.analysis.figures.scatter import draw_scatter
from stlight.analysis.figures.style import save
from stlight.analysis.figures.tradeoff import draw_tradeoff
from stlight.analysis.values import Values

KINDS: dict[str, Callable[..., Figure]] = {
    "heatmap": draw_heatmap,
    "lines": draw_lines,
    "bars": draw_bars,
    "dots": draw_dots,
    "curves": draw_curves,
    "scatter": draw_scatter,
    "tradeoff": draw_tradeoff,
    "growth": draw_growth,
}
"""For each kind of figure that an experiment can ask for: its options and the experiment's values to a figure."""


def draw(values: Values) -> Figure:
    """Draw the figure that an experiment asks for."""
    options = values.experiment.figure
    return KINDS[options.kind](options, values)


def write_figures(values: Values, into: Path) -> None:
    """Write figures/<item> (PNG, SVG, PDF) and, for an experiment that trains, examples/<item> (PNG, SVG) under a folder."""
    experiment, scale = values.experiment, values.evidence.scale
    # Text becomes outlines in SVG and TrueType in PDF, so that no font needs to be installed.
    fonts = {"svg.fonttype": "path", "pdf.fonttype": 42}
    # Identifiers within an SVG derive from the salt: drawing the same numbers twice gives the same file.
    sns.set_theme(context="notebook", style="ticks", font_scale=0.9, rc=fonts | {"svg.hashsalt": experiment.name})
    figure = draw(values)
    stand_in = any(variant.config.data.source == "stand_in" for variant in experiment.variants)
    note = f"scale {scale.name}, with stand-in data" if experiment.train and stand_in else f"scale {scale.name}"
    figure.suptitle(f"{experiment.item}: {experiment.title} ({note})", fontsize="large")
    save(figure, into / "figures" / experiment.name, (".png", ".svg", ".pdf"))
    if experiment.train:
        save(draw_examples(values), into / "examples" / experiment.name, (".png", ".svg"))
