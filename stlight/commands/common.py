"""Helpers that several verbs share."""

import argparse
import math
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stlight.experiments import Plan
    from stlight.runs.rounds import Round

Verb = Callable[[argparse.Namespace], int | None]

ARGUMENTS: defaultdict[Verb, list[tuple[tuple[str, ...], dict[str, Any]]]] = defaultdict(list)
"""Names and settings of each verb's own arguments, for `add_argument`."""


def argument(*names: str, **settings: Any) -> Callable[[Verb], Verb]:
    """Declare an argument of a verb, as `ArgumentParser.add_argument` takes it."""

    def declare(verb: Verb) -> Verb:
        ARGUMENTS[verb].insert(0, (names, settings))
        return verb

    return declare


def load(options: argparse.Namespace) -> "Plan":
    """Load and check the experiments at the chosen scale, with the seeds that its rounds chose if `--rounds` is given.

    Raises `ValueError` if a file is wrong.
    """
    plan = load_static(options)
    return with_rounds(plan, options)[0] if options.rounds else plan


def load_static(options: argparse.Namespace) -> "Plan":
    """Load and check the experiments at the chosen scale, with the seeds that its file states."""
    from stlight.experiments import load_plan

    return load_plan(options.workflow, options.scale, options.data_root, experiments_folder(options))


def experiments_folder(options: argparse.Namespace) -> str:
    """Return the folder of experiments as `load_plan` takes it: by its name in the workflow, or else by its absolute path."""
    named = options.experiments or "experiments"
    own = Path(named).absolute()
    return named if (options.workflow / named).is_dir() or not own.is_dir() else str(own)


def with_rounds(plan: "Plan", options: argparse.Namespace, last: int | None = None) -> "tuple[Plan, list[Round]]":
    """Return the plan with the seeds that its first `last` rounds chose, or all of them, and these rounds."""
    from stlight.runs.rounds import read_rounds, seeds_after

    rounds = read_rounds(scale_folder(options), plan.hash)[:last]
    return plan.for_budget(seeds_after(rounds)), rounds


def scale_folder(options: argparse.Namespace) -> Path:
    """Return the folder that holds the results of the chosen scale."""
    return Path(options.results / options.scale)


def tell(line: str) -> None:
    """Print a message to stderr at once. Stdout is for results."""
    print(line, file=sys.stderr, flush=True)


def check_range(options: argparse.Namespace, name: str, low: float, high: float = math.inf) -> None:
    """Raise `ValueError` if the option is given and lies below `low` or above `high`."""
    value = getattr(options, name)
    if value is not None and not low <= value <= high:
        bound = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ValueError(f"--{name.replace('_', '-')} must be {bound}, got {value:g}")
