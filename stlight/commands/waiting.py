"""Say which cells wait and why; write the tables of the others."""

import argparse
from typing import TYPE_CHECKING

from stlight.commands.analyse import UNFINISHED, write_item
from stlight.commands.common import load, scale_folder, tell
from stlight.commands.report import repeated_options

if TYPE_CHECKING:
    from stlight.analysis.evidence import Evidence


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options beyond the common ones."""


def run(options: argparse.Namespace) -> None:
    """Write what there is of incomplete experiments, and the report. The workflow calls this after a job has failed."""
    from stlight.analysis.evidence import load_evidence
    from stlight.analysis.report import write_report
    from stlight.analysis.values import Values

    plan, folder = load(options), scale_folder(options)
    values = {name: Values(evidence) for name, evidence in load_evidence(plan, folder).items()}
    for name, one in values.items():
        evidence = one.evidence
        _print_missing(evidence)
        incomplete = evidence.missing or evidence.unmeasured
        if incomplete and evidence.records:
            try:
                write_item(one, folder / UNFINISHED, options.mixed_versions)
                print(f"  its other cells: {folder / UNFINISHED / 'tables' / name}.md")
            except (ValueError, OSError) as error:
                tell(f"stlight: {error}")
    write_report(plan, values, options.workflow, folder, repeated_options(options))
    print(f"all that is there: {folder / 'report.html'}")


def _print_missing(evidence: "Evidence") -> None:
    name, missing = evidence.experiment.name, evidence.missing
    for why in evidence.unmeasured:
        print(f"{name}: {why}")
    begun = {run: why for run, why in missing.items() if why != "waiting"}
    idle = f" ({len(missing) - len(begun)} not begun)" if len(begun) < len(missing) else ""
    if missing:
        print(f"{name}: {len(missing)} of its {len(evidence.experiment.run_names)} runs are not there{idle}")
    for run, why in begun.items():
        print(f"  {run}: {why}")
