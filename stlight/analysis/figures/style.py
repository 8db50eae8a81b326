"""Colours and axes that all figures share. Meaning is never carried by colour alone."""

import math
from collections.abc import Callable

from matplotlib.axis import Axis
from matplotlib.ticker import LogLocator, NullFormatter, NullLocator

# Distinct in hue (for the colour-blind), in lightness (for greyscale), in marker and in line.
COLOURS = ["#0b3c5d", "#d1662b", "#5aa469", "#a05195"]
MARKERS = ["o", "s", "^", "D"]
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
LINES = ["-", "--", ":", "-."]


def write_out_numbers(axis: Axis, text: Callable[[float], str] = "{:,.6g}".format, base: int = 10) -> None:
    """Write a few numbers along a logarithmic axis, instead of powers of its base."""
    low, high = axis.get_view_interval()
    if base == 2:
        steps: tuple[float, ...] = (1,) if high > 4 * low else (1, 1.125, 1.25, 1.375, 1.5, 1.625, 1.75)
    else:
        steps = (1,) if high > 60 * low else (1, 2, 5) if high > 6 * low else (1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 4, 5, 6, 8)
    axis.set_major_locator(LogLocator(base=base, subs=steps, numticks=12))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: text(value))


def write_powers(axis: Axis) -> None:
    """Write powers of ten along a logarithmic axis without mathtext."""
    axis.set_minor_formatter(NullFormatter())
    axis.set_major_formatter(lambda value, _: "10" + str(round(math.log10(value))).translate(_SUPERSCRIPTS))
