"""Settings, inputs and targets of the workflow's rules. Imports no torch, because Snakemake loads it for each job."""

import os
import re
import shlex
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from stlight.config import RunConfig
from stlight.experiments import load_plan
from stlight.registry.dataset_specs import DATASETS
from stlight.runs.record import load_valid_record
from stlight.runtime.atomic_files import has_changed
from stlight.runtime.run_lock import living_holder


@dataclass(frozen=True)
class Settings:
    """The values of `snakemake --config`."""

    scale: str = "demo"
    results: str = "results"
    data: str = "data"
    slots_per_gpu: str = "1"
    mixed_versions: str = "no"

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Check and return the settings. Raises `ValueError` if one is unknown or has a wrong value."""
        known = [field.name for field in fields(cls)]
        for name in config:
            if name not in known:
                raise ValueError(f"--config {name}: unknown; the settings are {', '.join(known)}")
        # Snakemake parses a "yes" of its command line as True.
        words = {name: ("no", "yes")[value] if isinstance(value, bool) else str(value) for name, value in config.items()}
        settings = cls(**words)
        if not re.fullmatch("[1-9][0-9]*", settings.slots_per_gpu):
            raise ValueError(f"--config slots_per_gpu: must be a number from 1, got {settings.slots_per_gpu!r}")
        if settings.mixed_versions not in ("yes", "no"):
            raise ValueError(f"--config mixed_versions: must be yes or no, got {settings.mixed_versions!r}")
        return settings

    @property
    def out(self) -> str:
        """The folder that holds the scale's results."""
        return f"{self.results}/{self.scale}"

    def shell_prefix(self, python: list[str], workflow: Path) -> str:
        """Return the shell code before each rule's command: `stlight` calls this suite's command line with these settings.

        The settings are no params of the rules, because a moved folder is no reason to train again.
        """
        options = ["--scale", self.scale, "--results", self.results, "--data-root", self.data]
        options += ["--workflow", str(workflow), "--slots-per-gpu", self.slots_per_gpu]
        options += ["--mixed-versions"] if self.mixed_versions == "yes" else []
        # `exec` replaces the shell, so that a signal to the job reaches the process that must save its state. Therefore
        # `stlight` must be the last command of a rule.
        call = f'stlight() {{ exec {shlex.join(python)} -m stlight "$@" {shlex.join(options)}; }}; '
        # Snakemake formats the prefix.
        return call.replace("{", "{{").replace("}", "}}")


class Workflow:
    """The plan of a scale and the functions that rules look inputs and params up with. They take Snakemake's wildcards."""

    def __init__(self, workflow: Path, settings: Settings) -> None:
        """Load and check all experiments. Raises `ValueError` if a file is wrong."""
        self._folder = workflow
        self._data = settings.data
        self._out = settings.out
        self.plan = load_plan(workflow, settings.scale, Path(settings.data))

    def run_name(self, wildcards: Any) -> str:
        """Return a run's name, `<dataset>/<variant>/seed<k>`."""
        return f"{wildcards.dataset}/{wildcards.variant}/seed{wildcards.seed}"

    def config_hash(self, wildcards: Any) -> str:
        """Return the hash of a run's resolved configuration."""
        return self._config(wildcards).hash

    def experiment_hash(self, wildcards: Any) -> str:
        """Return a hash that changes with whatever an experiment's table and figure show."""
        return self.plan.experiment(wildcards.experiment).hash

    def fetch_marker(self, wildcards: Any) -> list[str]:
        """Return the marker file that `request_files` wrote for a data set, if it wrote one."""
        marker = self._marker(wildcards.dataset)
        return [str(marker)] if marker.exists() else []

    def source_files(self, wildcards: Any) -> list[str]:
        """Return the inputs of preparing a data set from files: what verified them, or a custom data set's arrays."""
        if wildcards.source != "files":
            return []
        if wildcards.dataset not in DATASETS:
            arrays = (f"{self._data}/{wildcards.dataset}/{split}.npy" for split in ("train", "validation", "test"))
            return [path for path in arrays if Path(path).exists()]
        # The marker too, because the verification's output is deleted when a file turns out to be wrong.
        return [f"{self._data}/fetched/{wildcards.dataset}.json", *self.fetch_marker(wildcards)]

    def prepared_data(self, wildcards: Any) -> list[str]:
        """Return the prepared file that a run reads, if its clips are not generated."""
        data = self._config(wildcards).data
        return [] if data.source == "stand_in" else [f"{self._data}/prepared/{data.dataset}-{data.source}.npz"]

    def experiment_inputs(self, wildcards: Any) -> list[str]:
        """Return the records of an experiment's runs, and its counts and speeds if it shows any."""
        experiment = self.plan.experiment(wildcards.experiment)
        records = [f"{self._out}/runs/{name}/record.json" for name in experiment.run_names]
        counts = [f"{self._out}/complexity/{experiment.name}.json"] if experiment.counts else []
        speeds = [f"{self._out}/speed/{experiment.name}.json"] if experiment.timed else []
        return records + counts + speeds

    def experiments(self, *, trained: bool) -> list[str]:
        """Return the names of the experiments that train, or of those that only count."""
        return [name for name, experiment in self.plan.experiments.items() if experiment.train == trained]

    def items(self) -> list[str]:
        """Return every table, figure and set of example predictions."""
        kinds: tuple[tuple[str, Iterable[str], tuple[str, ...]], ...] = (
            ("tables", self.plan.experiments, ("csv", "md", "tex")),
            ("figures", self.plan.experiments, ("png", "svg", "pdf")),
            ("examples", self.experiments(trained=True), ("png", "svg")),
        )
        return [f"{self._out}/{kind}/{name}.{end}" for kind, names, ends in kinds for name in names for end in ends]

    def report_inputs(self) -> list[str]:
        """Return all items, the counts that claims need, and the stated errata. A custom workflow may have none."""
        counts = [f"{self._out}/complexity/{e.name}.json" for e in self.plan.experiments.values() if e.counts]
        stated = [self._folder / name for name in ("errata.yaml", "quoted_sources.yaml")]
        return self.items() + counts + [str(path) for path in stated if path.exists()]

    def request_files(self) -> None:
        """Write a marker for each data set whose benchmark files must be fetched or verified again.

        The files cannot be rule inputs because they may not exist when the DAG is built. A marker holds the time, because
        Snakemake compares the content of small inputs.
        """
        for dataset in sorted({c.data.dataset for c in self.plan.runs.values() if c.data.source == "files"} & set(DATASETS)):
            marker = self._marker(dataset)
            if not marker.exists() or has_changed(marker.with_suffix(".json"), Path(self._data)):
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.write_text(str(time.time_ns()))

    def set_aside_damaged_records(self, wildcards: Any) -> None:
        """Rename damaged records of an experiment and its table, because Snakemake looks only at files and times."""
        experiment = self.plan.experiment(wildcards.experiment)
        table = Path(self._out) / "tables" / f"{experiment.name}.csv"
        damaged = [name for name in experiment.run_names if self._set_aside_if_damaged(name)]
        if damaged and table.exists():
            table.replace(f"{table}.set-aside")

    def _set_aside_if_damaged(self, name: str) -> bool:
        folder = Path(self._out) / "runs" / name
        record = folder / "record.json"
        if not record.exists() or living_holder(folder):
            return False
        load_valid_record(folder, self.plan.run(name).hash)
        return not record.exists()

    def _config(self, wildcards: Any) -> RunConfig:
        return self.plan.run(self.run_name(wildcards))

    def _marker(self, dataset: str) -> Path:
        return Path(self._data) / "fetched" / f"{dataset}.asked"


def any_of(names: Iterable[str]) -> str:
    """Return a wildcard constraint that matches the names, or nothing if there are none."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def note_forced(settings: Any) -> None:
    """Export the time before which jobs take records as outdated: now if Snakemake's DAG settings force jobs, else 0."""
    forced = settings.forceall or settings.forcetargets or settings.forcerun
    os.environ["STLIGHT_NEWER_THAN"] = str(time.time() if forced else 0)
