"""Write an experiment's table, figure and example predictions from its records."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from stlight.commands.common import load, scale_folder

if TYPE_CHECKING:
    from stlight.analysis.values import Values

UNFINISHED = "unfinished"
"""Folder for tables and figures of incomplete experiments, because the workflow takes an output that exists for complete."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment")
    parser.add_argument("--complete", action="store_true", help="refuse if a run, a count or a timing is missing")


def run(options: argparse.Namespace) -> None:
    """Write the item, and remove its unfinished form. With `--complete`, raises `IncompleteError` if results are missing."""
    from stlight.analysis.evidence import load_evidence
    from stlight.analysis.values import Values

    folder = scale_folder(options)
    (evidence,) = load_evidence(load(options), folder, [options.experiment]).values()
    if options.complete:
        evidence.check_complete()
    write_item(Values(evidence), folder, options.mixed_versions)
    for path in (folder / UNFINISHED).glob(f"*/{options.experiment}.*"):
        path.unlink(missing_ok=True)


def write_item(values: "Values", into: Path, mixed_versions: bool) -> None:
    """Write the table and figures of an experiment under a folder. Raises `MixedVersionsError` unless these are allowed."""
    from stlight.analysis.figures import write_figures
    from stlight.analysis.tables import write_tables

    if not mixed_versions:
        values.evidence.check_versions()
    write_tables(values, into)
    write_figures(values, into)
