"""Axis values and fields as readers see them. Metrics format themselves: `METRICS[name].format`."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from stlight.analysis.escaping import plain

_FIELD_LABELS = {"max_lr": "LR", "num_epochs": "epochs"}


def axis_text(value: Any) -> str:
    """Return an axis value as text; empty if there is none."""
    if pd.isna(value):
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, int | float | np.number) else plain(str(value))


def field_label(name: str) -> str:
    """Return what a reader calls a field."""
    return _FIELD_LABELS.get(name, name.replace("_", " "))


def settings_text(coordinates: "Mapping[str, Any] | pd.Series[Any]", axes: Iterable[str], equals: str = " = ") -> str:
    """Return the values of some axes as a list, without the empty ones: "depth = 16, LR = 0.001"."""
    texts = {axis: axis_text(coordinates[axis]) for axis in axes}
    return ", ".join(f"{field_label(axis)}{equals}{text}" for axis, text in texts.items() if text)
