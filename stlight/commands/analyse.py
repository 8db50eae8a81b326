"""Write an experiment's table, figure and example predictions from its records."""

import argparse
from pathlib import Path
<<<<<<< HEAD

from stlight.commands.common import load, scale_folder
from stlight.experiments import Experiment, Plan
=======
from typing import TYPE_CHECKING

from stlight.commands.common import load, scale_folder

if TYPE_CHECKING:
    from stlight.analysis.values import Values

UNFINISHED = "unfinished"
"""Folder for tables and figures of incomplete experiments, because the workflow takes an output that exists for complete."""
>>>>>>> analysis


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment")
<<<<<<< HEAD
    parser.add_argument("--complete", action="store_true", help="refuse if a run has no valid record yet")


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    from stlight.analysis.aggregate import load_speeds, missing_runs

    plan = load(options)
    experiment, folder = plan.experiment(options.experiment), scale_folder(options)
    missing = missing_runs(experiment, folder)
    if options.complete and missing:
        name, why = next(iter(missing.items()))
        raise ValueError(
            f"{experiment.name}: {len(missing)} of its {len(experiment.run_names)} runs have no record: {name}: {why}"
        )
    if options.complete:
        load_speeds(experiment, folder)
    _write_item(plan, experiment, folder, options.mixed_versions)
    for path in (folder / _UNFINISHED).glob(f"*/{experiment.name}.*"):
        path.unlink(missing_ok=True)
    return None


# Apart from the outputs that the workflow knows: it takes one that exists for finished.
_UNFINISHED = "unfinished"


def _write_item(plan: Plan, experiment: Experiment, folder: Path, mixed_versions: bool, into: Path | None = None) -> None:
    from stlight.analysis.aggregate import aggregate, check_versions, load_records
=======
    parser.add_argument("--complete", action="store_true", help="refuse if a run, a count or a timing is missing")


def run(options: argparse.Namespace) -> None:
    """Write the item, and remove its unfinished form.

    Raises:
        IncompleteError: `--complete` is given and results are missing.
        MixedVersionsError: different versions of the code made the records, and `--mixed-versions` is not given.
    """
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
    """Write the table and figures of an experiment under a folder. Raises `MixedVersionsError` unless allowed."""
>>>>>>> analysis
    from stlight.analysis.figures import write_figures
    from stlight.analysis.tables import write_tables

    if not mixed_versions:
<<<<<<< HEAD
        check_versions(experiment, load_records(experiment, folder))
    table = aggregate(experiment, folder)
    write_tables(experiment, plan.scale, table, folder, into)
    write_figures(experiment, plan.scale, table, folder, into)
=======
        values.evidence.check_versions()
    write_tables(values, into)
    write_figures(values, into)
>>>>>>> analysis
