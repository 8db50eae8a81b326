"""Read the results of one scale without its plan: the cells that its tables list, the runs behind them, and the verdicts."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from stlight.analysis.evidence import Missing, Recorded, ResultsFolder
from stlight.analysis.values import metrics_of
from stlight.runs.provenance import provenance
from stlight.runs.record import RecordError, RunRecord, read_record

Key = tuple[str, str, str]
"""Experiment, variant and metric."""
Claim = tuple[str, str, str]
"""Experiment, claim and source."""

_COLUMNS = ("metric", "measured", "selection", "runs")


@dataclass(frozen=True)
class Row:
    """A row of a table that has numbers."""

    selection: str
    """Which epoch's metrics are reported; "-" for what is counted or timed."""
    runs: tuple[str, ...]
    """Names of the runs behind it; none if it is counted or timed."""
    measured: float
    """The number that is counted or timed."""


class Results:
    """One folder of results, such as results/demo. Raises `ValueError`, in one line, if there is nothing to compare in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Key, Row] = dict(_rows(path))
        names = {name for row in self.rows.values() for name in row.runs}
        if not self.rows:
            raise ValueError(f"{path} has tables without a single number; finish its runs first")
        results = ResultsFolder(path)
        self.runs = {name: _recorded(results, name) for name in sorted(names)}

    @property
    def scale(self) -> str:
        """Name of the scale: that of the folder."""
        return self.path.resolve().name

    def records(self, row: Row) -> dict[str, RunRecord]:
        """Return the records behind a row by the name of the run."""
        return {name: self.runs[name].record for name in row.runs}

    @cached_property
    def metrics(self) -> dict[str, dict[str, dict[str, float]]]:
        """The metrics of each run, by run and selection."""
        return {name: metrics_of(run) for name, run in self.runs.items()}

    @cached_property
    def verdicts(self) -> dict[Claim, str]:
        """The verdicts of claims.csv as readers see them; empty without the file."""
        path = self.path / "claims.csv"
        if not path.is_file():
            return {}
        table = _read_csv(path, ("experiment", "id", "source", "verdict"))
        return {(row["experiment"], row["id"], row["source"]): row["verdict"] for row in table}


def _rows(path: Path) -> Iterator[tuple[Key, Row]]:
    if not path.is_dir():
        what = "is no folder" if path.exists() else "is missing"
        raise ValueError(f"{path} {what}: compare takes two folders of results of a scale, such as results/demo")
    # Only unfinished experiments have tables here, because the workflow deletes the table when an experiment is finished.
    files = [file for folder in ("tables", "unfinished/tables") for file in sorted((path / folder).glob("*.csv"))]
    if not files:
        inner = [folder.parent.name for folder in sorted(path.glob("*/tables"))]
        hint = f"name one of its scales: {', '.join(inner)}" if inner else "finish its runs, or call `stlight waiting`, first"
        raise ValueError(f"{path} has no tables to compare; {hint}")
    for file in files:
        for row in _read_csv(file, _COLUMNS):
            coordinates = list(row)[: list(row).index("data") if "data" in row else 0]
            runs, number = tuple(filter(None, row["runs"].split(";"))), row["measured"]
            if runs or (row["selection"] == "-" and number):
                variant = ", ".join(f"{axis} = {row[axis]}" for axis in coordinates if row[axis]) or "-"
                yield (file.stem, variant, row["metric"]), Row(row["selection"], runs, float(number) if not runs else 0.0)


def _read_csv(path: Path, columns: tuple[str, ...]) -> list[dict[str, str]]:
    """Return the rows of a CSV file as text. Raises `ValueError` if it lacks one of the columns."""
    try:
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
    except (ValueError, OSError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if absent := [name for name in columns if name not in table]:
        raise ValueError(f"{path} has no column {absent[0]}: another version of the suite wrote it; make it again")
    return [{str(name): text for name, text in row.items()} for row in table.to_dict("records")]


def _recorded(results: ResultsFolder, name: str) -> Recorded:
    path = results.path / "runs" / name / "record.json"
    try:
        run = results.run(name, read_record(path, name).config_hash)
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing, although a table lists its run: make the tables again") from error
    except (RecordError, OSError) as error:
        raise ValueError(f"{error}{_other_version(path)}") from error
    if isinstance(run, Missing):
        raise ValueError(f"{path.parent} cannot be compared: {run}")
    return run


def _other_version(path: Path) -> str:
    """Return words about the version that wrote an invalid record, if it is not this one; empty otherwise."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError):
        stated, ours = json.loads(path.read_bytes())["provenance"], provenance({})
        theirs = _version(stated)
        if theirs != _version(ours):
            return f"; {theirs} wrote it, this is {_version(ours)}: compare with the version that wrote it"
    return ""


def _version(facts: dict[str, Any]) -> str:
    return f"stlight {facts['libraries']['stlight']} with code {facts['source']}"
