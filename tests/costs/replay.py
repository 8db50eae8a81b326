"""Replay a finished scale: rebuild its folder as it was at a moment, and compare the predicted time with the true one.

`python -m tests.costs.replay results/demo` prints the errors over the course of a scale.
"""

import csv
import itertools
import json
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from stlight.costs.overview import Follower, Overview
from stlight.experiments import load_plan
from tests.conftest import WORKFLOW

# What the last item and the report take after the last run, by the times of the kept demo's logs and report.
AFTER_LAST_RUN = 15.0


@dataclass(frozen=True)
class Past:
    """A run of the finished scale, by its own record and history."""

    name: str
    config_hash: str
    num_epochs: int
    start: float
    end: float
    beats: list[float]
    """When each epoch ended."""


class Replay:
    """The course of a scale of which all runs have finished."""

    def __init__(self, plan, results):
        self.plan, self.results = plan, results
        self.runs = [_past(results / "runs" / name, name) for name in plan.runs]
        self.start = min(run.start for run in self.runs)
        self.end = max(run.end for run in self.runs) + AFTER_LAST_RUN

    def look(self, time: float, folder: Path) -> Overview:
        """Write the results folder as it was at a Unix time, and return what the follower says about it."""
        for kind in ("speed", "complexity"):
            if (self.results / kind).exists():
                shutil.copytree(self.results / kind, folder / kind)
        for run in self.runs:
            if run.start <= time:
                _write_run(run, self.results / "runs" / run.name, folder / "runs" / run.name, time)
        ends = {run.name: run.end for run in self.runs}
        for name, experiment in self.plan.experiments.items():
            if time > (made := max((ends[run] for run in experiment.run_names), default=self.start) + 4.0):
                for path in (f"tables/{name}.csv", f"figures/{name}.png", f"examples/{name}.png"):
                    _touch(folder / path, made)
        return Follower(self.plan, folder).look(time)

    def error(self, share: float) -> float:
        """Return the relative error of the remaining time when a share of the whole time is over; above 0 if it is too long."""
        predicted = self.at(share).remaining_seconds
        return predicted / ((1 - share) * (self.end - self.start)) - 1

    def at(self, share: float) -> Overview:
        """Return what the follower says when a share of the whole time is over."""
        with tempfile.TemporaryDirectory() as folder:
            return self.look(self.start + share * (self.end - self.start), Path(folder))


def _past(folder, name):
    record = json.loads((folder / "record.json").read_text())
    start, total = datetime.fromisoformat(record["provenance"]["started"]).timestamp(), record["seconds"]["total"]
    with (folder / "history.csv").open() as file:
        took = [float(row["train_seconds"]) + float(row["evaluation_seconds"]) for row in csv.DictReader(file)]
    # Most of what no epoch took is the start.
    begin = start + 0.8 * (total - sum(took))
    beats = [begin + seconds for seconds in itertools.accumulate(took)]
    return Past(name, record["config_hash"], record["config"]["training"]["num_epochs"], start, start + total, beats)


def _write_run(run, source, folder, time):
    folder.mkdir(parents=True)
    if run.end <= time:
        shutil.copy(source / "record.json", folder)
        os.utime(folder / "record.json", (run.end, run.end))
        return
    # On a host of its own, which keeps its lock alive by renewing the file.
    holder = {"pid": 7, "host": "node1", "since": "2026-01-01 00:00:00", "kernel": "of node1", "token": "1"}
    (folder / ".lock").write_text(json.dumps(holder))
    over = [beat for beat in run.beats if beat <= time]
    beat = over[-1] if over else run.start
    progress = {"pid": 7, "host": "node1", "config_hash": run.config_hash, "num_epochs": run.num_epochs, "gpus": []}
    progress |= {"epoch": len(over), "seconds": beat - run.start}
    (folder / "progress.json").write_text(json.dumps(progress))
    os.utime(folder / "progress.json", (beat, beat))


def _touch(path, time):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    os.utime(path, (time, time))


if __name__ == "__main__":
    finished = Path(sys.argv[1])
    replay = Replay(load_plan(WORKFLOW, finished.name, Path("nowhere")), finished)
    for percent in range(5, 100, 5):
        print(f"{percent} %: {replay.error(percent / 100):+.0%}")
