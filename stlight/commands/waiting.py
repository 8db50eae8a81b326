"""Say which cells wait and why; write the tables of the others."""

import argparse

from stlight.commands import report
from stlight.commands.analyse import _UNFINISHED, _write_item
from stlight.commands.common import load, scale_folder, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    """What the workflow calls when something has failed for good: the cells there are, and why the others are not."""
    from stlight.analysis.aggregate import missing_runs, missing_speeds

    plan, folder = load(options), scale_folder(options)
    for experiment in plan.experiments.values():
        missing = missing_runs(experiment, folder)
        if unmeasured := missing_speeds(experiment, folder):
            print(f"{experiment.name}: {unmeasured}")
        if not missing and not unmeasured:
            continue
        begun = {name: why for name, why in missing.items() if why != "waiting"}
        idle = f" ({len(missing) - len(begun)} not begun)" if len(begun) < len(missing) else ""
        if missing:
            print(f"{experiment.name}: {len(missing)} of its {len(experiment.run_names)} runs are not there{idle}")
        for name, why in begun.items():
            print(f"  {name}: {why}")
        if len(missing) < len(experiment.run_names):
            try:
                _write_item(plan, experiment, folder, options.mixed_versions, folder / _UNFINISHED)
                print(f"  its other cells: {folder / _UNFINISHED / 'tables' / experiment.name}.md")
            except (ValueError, OSError) as error:
                tell(f"stlight: {error}")
    report.run(options)
    print(f"all that is there: {folder / 'report.html'}")
    return None
