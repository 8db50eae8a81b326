"""Helpers that several verbs share."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stlight.experiments import Plan


def load(options: argparse.Namespace) -> "Plan":
    """Load and check the experiments at the chosen scale.

    Raises:
        ValueError: an experiment, claim or scale file is wrong; the message names the file and the field.
    """
    from stlight.experiments import load_plan

    return load_plan(options.workflow, options.scale, options.data_root)


def scale_folder(options: argparse.Namespace) -> Path:
    """Return the folder that holds the results of the chosen scale."""
    return Path(options.results / options.scale)


def tell(line: str) -> None:
    """Print a message to stderr at once. Stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def check_range(options: argparse.Namespace, name: str, low: float, high: float = float("inf")) -> None:
    """Raise `ValueError` if the option is given and lies outside `low` to `high`, both included."""
    value = getattr(options, name)
    if value is not None and not low <= value <= high:
        bounds = f"at least {low:g}" if high == float("inf") else f"from {low:g} to {high:g}"
        raise ValueError(f"--{name.replace('_', '-')} must be {bounds}, got {value:g}")
