"""Write an experiment's table, figure and example predictions from its records."""

import argparse
from pathlib import Path

from stlight.commands.common import load, scale_folder
from stlight.experiments import Experiment, Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment")
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
    from stlight.analysis.figures import write_figures
    from stlight.analysis.tables import write_tables

    if not mixed_versions:
        check_versions(experiment, load_records(experiment, folder))
    table = aggregate(experiment, folder)
    write_tables(experiment, plan.scale, table, folder, into)
    write_figures(experiment, plan.scale, table, folder, into)
