"""Write the verdicts, the errata and the page, from the runs there are."""

import argparse
from pathlib import Path

from stlight.commands.common import load, scale_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options beyond the common ones."""


def run(options: argparse.Namespace) -> None:
    """Write claims.csv, errata.md, noise_floor.csv, selection_audit.csv and report.html."""
    from stlight.analysis.evidence import load_evidence
    from stlight.analysis.report import write_report
    from stlight.analysis.values import Values

    plan, folder = load(options), scale_folder(options)
    values = {name: Values(evidence) for name, evidence in load_evidence(plan, folder).items()}
    write_report(plan, values, options.workflow, folder, repeated_options(options))


def repeated_options(options: argparse.Namespace) -> list[str]:
    """Return the options that differ from their defaults and are needed to repeat a run."""
    chosen = (("--results", options.results, "results"), ("--data-root", options.data_root, "data"))
    return [text for name, value, default in chosen if value != Path(default) for text in (name, str(value))]
