"""Colours, axes and files that all figures share. Meaning is never carried by colour alone."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from stlight.analysis.text import axis_text

# Distinct in hue (for the colour-blind), in lightness (for greyscale), in marker and in line.
COLOURS = ["#0b3c5d", "#d1662b", "#5aa469", "#a05195"]
MARKERS = ["o", "s", "^", "D"]
LINES = ["-", "--", ":", "-."]


def save(figure: Figure, path: Path, suffixes: tuple[str, ...]) -> None:
    """Write a figure once per suffix and close it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.canvas.draw()
    # The layout is computed once: all files look alike, and later ones take half the time.
    figure.set_layout_engine("none")
    # No date in the file: drawing the same numbers twice gives the same file.
    dates: dict[str, dict[str, Any]] = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
    for suffix in suffixes:
        figure.savefig(path.with_name(path.name + suffix), dpi=130, metadata=dates.get(suffix))
    plt.close(figure)


def write_out_numbers(axis: Axis) -> None:
    """Write a few numbers along a logarithmic axis, instead of powers of ten."""
    axis.set_major_locator(LogLocator(base=10, subs=(1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8), numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:,.6g}")


def place_along(ax: Axes, values: "pd.Series[Any]") -> "pd.Series[Any]":
    """Set ticks for the values of an axis and return their places: logarithmic for numbers, side by side for others."""
    if pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values) and (values > 0).all():
        places = values
        ax.set_xscale("log")
    else:
        places = pd.Series(range(len(values)), values.index)
        ax.margins(x=0.25)
    ax.set_xticks(places, [axis_text(value) for value in values])
    ax.minorticks_off()
    return places


def longest_line(table: pd.DataFrame, axis: str, axes: list[str]) -> pd.DataFrame:
    """Return the points that differ along one axis only, at the setting of the others that has most of them."""
    others = [a for a in axes if a != axis]
    groups = [group for _, group in table.groupby(others, sort=False)] if others else [table]
    line = max(groups, key=lambda group: group[axis].nunique())
    # Numbers in ascending order; names in the order of the experiment's file.
    return line.sort_values(axis) if pd.api.types.is_numeric_dtype(line[axis]) else line
