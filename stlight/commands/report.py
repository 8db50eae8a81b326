"""Write the verdicts, the errata and the page, from the runs there are."""

import argparse
from pathlib import Path

from stlight.commands.common import load, scale_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    from stlight.analysis.report import write_report

    # What repeats a run: the settings that differ from the defaults.
    settings = [
        text
        for name, value, default in (
            ("--results", options.results, Path("results")),
            ("--data-root", options.data_root, Path("data")),
        )
        if value != default
        for text in (name, str(value))
    ]
    write_report(load(options), options.workflow, scale_folder(options), settings)
    return None
