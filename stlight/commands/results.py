"""Verbs that show what the records of runs hold: analyse, waiting and report."""

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from stlight.commands.common import argument, load, scale_folder, tell

if TYPE_CHECKING:
    from stlight.analysis.evidence import Evidence
    from stlight.analysis.values import Values
    from stlight.experiments import Plan

UNFINISHED = "unfinished"
"""Folder for tables and figures of incomplete experiments, because the workflow takes an output that exists for complete."""


@argument("experiment")
@argument("--complete", action="store_true", help="refuse if a run, a count or a timing is missing")
def analyse(options: argparse.Namespace) -> None:
    """Write an experiment's table, figure and example predictions from its records."""
    from stlight.analysis.evidence import load_evidence
    from stlight.analysis.values import Values

    folder = scale_folder(options)
    (evidence,) = load_evidence(load(options), folder, [options.experiment]).values()
    if options.complete:
        evidence.check_complete()
    _write_item(Values(evidence), folder, options.mixed_versions)
    for path in (folder / UNFINISHED).glob(f"*/{options.experiment}.*"):
        path.unlink()


def report(options: argparse.Namespace) -> None:
    """Write the verdicts, the errata and the page, from the runs there are."""
    plan = load(options)
    _write_report(plan, _load_values(plan, options), options)


def waiting(options: argparse.Namespace) -> None:
    """Say which cells wait and why; write the tables of the others. The workflow calls this after a job has failed."""
    plan, folder = load(options), scale_folder(options)
    loaded = _load_values(plan, options)
    for name, values in loaded.items():
        evidence = values.evidence
        _print_missing(evidence)
        if (evidence.missing or evidence.unmeasured) and evidence.records:
            try:
                _write_item(values, folder / UNFINISHED, options.mixed_versions)
                print(f"  its other cells: {folder / UNFINISHED / 'tables' / name}.md")
            except (ValueError, OSError) as error:
                tell(f"stlight: {error}")
    # Last, because it shows the unfinished figures.
    _write_report(plan, loaded, options)
    print(f"all that is there: {folder / 'report.html'}")


def _write_item(values: "Values", into: Path, mixed_versions: bool) -> None:
    from stlight.analysis.figures import write_figures
    from stlight.analysis.tables import write_tables

    if not mixed_versions:
        values.evidence.check_versions()
    write_tables(values, into)
    write_figures(values, into)


def _load_values(plan: "Plan", options: argparse.Namespace) -> "dict[str, Values]":
    from stlight.analysis.evidence import load_evidence
    from stlight.analysis.values import Values

    return {name: Values(evidence) for name, evidence in load_evidence(plan, scale_folder(options)).items()}


def _write_report(plan: "Plan", values: "dict[str, Values]", options: argparse.Namespace) -> None:
    """Write claims.csv, errata.md, noise_floor.csv, selection_audit.csv and report.html."""
    from stlight.analysis.report import write_report
    from stlight.runs.rounds import read_rounds

    folders = (("--results", options.results, "results"), ("--data-root", options.data_root, "data"))
    needed = [text for name, value, default in folders if value != Path(default) for text in (name, str(value))]
    needed += ["--rounds"] if options.rounds else []
    rounds = read_rounds(scale_folder(options), plan.hash) if options.rounds else []
    write_report(plan, values, options.workflow, scale_folder(options), needed, rounds)


def _print_missing(evidence: "Evidence") -> None:
    name, missing = evidence.experiment.name, evidence.missing
    for why in evidence.unmeasured:
        print(f"{name}: {why}")
    states = Counter(found.state for found in missing.values())
    if missing:
        runs, words = len(evidence.experiment.run_names), ", ".join(f"{n} {state}" for state, n in states.items())
        print(f"{name}: {len(missing)} of its {runs} runs are not there ({words})")
    for run, found in missing.items():
        if found.why or found.state != "waiting":
            print(f"  {run}: {found}")
