"""Inputs and targets of the workflow's rules. Imports no torch, because Snakemake loads it for each job."""

import math
import os
import re
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from stlight.costs.order import expected_work
from stlight.experiments import Experiment, load_plan
from stlight.registry.dataset_specs import DATASETS
from stlight.runs.record import load_valid_record
from stlight.runs.rounds import Round, basis_of, path_of, read_rounds, seeds_after
from stlight.runtime.atomic_files import has_changed
from stlight.runtime.run_lock import living_holder
from stlight.workflow_support.settings import Settings

# Enough for most runs of a scale on a slow core or a small GPU. Short runs share a job of a cluster, which has time for all.
_RUN_MINUTES = {"smoke": 1, "demo": 2, "small": 10, "gpu": 20}
_LONG_RUN_MINUTES = 1440


class Workflow:
    """The plan of a scale, and the functions that look up inputs and params for rules. They take Snakemake's wildcards."""

    def __init__(self, workflow: Path, settings: Settings, on_disk: Settings | None = None) -> None:
        """Load and check all experiments. Raises `ValueError` if a file is wrong.

        `on_disk` are the settings with the folders where they are, if Snakemake adds a prefix to the paths that rules state.
        """
        self._folder, self._data, self._out = workflow, settings.data, settings.out
        on_disk = on_disk or settings
        self._data_on_disk, self._out_on_disk = Path(on_disk.data), Path(on_disk.out)
        self.run_minutes = _RUN_MINUTES.get(settings.scale, _LONG_RUN_MINUTES)
        """Time limit of a run on a cluster; one that takes longer resumes."""
        self._hours, self._slots, self._device_rate = settings.hours, settings.slots_per_gpu, settings.device_rate
        self.plan = load_plan(workflow, settings.scale, self._data_on_disk, settings.experiments)
        self.rounds: list[Round] = []
        """The rounds of the budget so far; none without a budget."""
        if settings.hours:
            self.read_rounds()

    def read_rounds(self) -> None:
        """Read the rounds that are there and give each cell the seeds that they chose."""
        self.rounds = read_rounds(self._out_on_disk, self.plan.hash)
        self.plan = self.plan.for_budget(seeds_after(self.rounds))

    def is_last_round(self, number: int) -> bool:
        """Return True if the rounds end with this one. Raises `ValueError` if its file is not of this plan and budget.

        Snakemake makes such a file again, unless its records of how files were made are lost.
        """
        found = self.rounds[number - 1] if number <= len(self.rounds) else None
        if not found or (found.stop == "budget" and found.hours < (self._hours or 0)):
            raise ValueError(
                f"{path_of(self._out_on_disk, number)} is of another plan or budget: delete it and the rounds after it"
            )
        return bool(found.stop)

    def round_files(self) -> list[str]:
        """Return the files of the rounds so far."""
        return [str(path_of(Path(self._out), found.number)) for found in self.rounds]

    def round_basis(self, wildcards: Any) -> dict[str, Any]:
        """Return the plan and the budget that a round is made for."""
        return basis_of(self.rounds, int(wildcards.round), self.plan.hash, self._hours or 0.0)

    def round_inputs(self, wildcards: Any) -> list[str]:
        """Return what a round decides on: the records of all earlier rounds, and counts. `read_rounds` must have seen these.

        Without counts, a round would take models of other relative sizes than the paper's for comparable.
        """
        earlier = self.plan.with_seeds(seeds_after(self.rounds[: int(wildcards.round) - 1]))
        records = [f"{self._out}/runs/{name}/record.json" for name in earlier.runs]
        return records + (self.count_files() if records else [])

    def export_slots(self) -> None:
        """Choose how many runs may share a GPU. Jobs inherit the number, because `auto` loads torch and takes seconds.

        Raises `ValueError` if the file of `device_rate` is not from the GPU benchmark.
        """
        slots = self._slots
        if slots == "auto":
            from stlight.costs.estimate import slots_for

            slots = slots_for(self.plan, Path(str(self._device_rate)))
            print(f"slots_per_gpu=auto: {slots}", file=sys.stderr)
        os.environ["STLIGHT_SLOTS_PER_GPU"] = str(slots)

    def slots_per_gpu(self, wildcards: Any, attempt: int) -> int:
        """Return the chosen slots; 1 after a failure, because it may have been a lack of memory."""
        return int(os.environ["STLIGHT_SLOTS_PER_GPU"]) if attempt == 1 else 1

    def gpu_percent(self, wildcards: Any, attempt: int) -> int:
        """Return the share of a GPU that a run takes."""
        return 100 // self.slots_per_gpu(wildcards, attempt)

    def run_name(self, wildcards: Any) -> str:
        """Return a run's name, `<dataset>/<variant>/seed<k>`."""
        return f"{wildcards.dataset}/{wildcards.variant}/seed{wildcards.seed}"

    def config_hash(self, wildcards: Any) -> str:
        """Return the hash of a run's resolved configuration."""
        return self.plan.run(self.run_name(wildcards)).hash

    def experiment_hash(self, wildcards: Any) -> str:
        """Return a hash that changes with whatever an experiment's table and figure show."""
        return self.plan.experiment(wildcards.experiment).hash

    def paper_item(self, wildcards: Any) -> str:
        """Return the item of the paper that an experiment repeats."""
        return self.plan.experiment(wildcards.experiment).item

    def fetch_marker(self, wildcards: Any) -> list[str]:
        """Return the marker file that `request_files` wrote for a data set, if it wrote one."""
        marker = f"fetched/{wildcards.dataset}.asked"
        return [f"{self._data}/{marker}"] if (self._data_on_disk / marker).exists() else []

    def source_files(self, wildcards: Any) -> list[str]:
        """Return the inputs of preparing a data set from files: what verified them, or a custom data set's arrays."""
        if wildcards.source != "files":
            return []
        if wildcards.dataset not in DATASETS:
            arrays = (f"{wildcards.dataset}/{split}.npy" for split in ("train", "validation", "test"))
            return [f"{self._data}/{array}" for array in arrays if (self._data_on_disk / array).exists()]
        # The marker too, because the verification's output is deleted when a file turns out to be wrong.
        return [f"{self._data}/fetched/{wildcards.dataset}.json", *self.fetch_marker(wildcards)]

    def run_priority(self, wildcards: Any) -> float:
        """Return a number from 0 to 1 that is higher the more work a run is. Snakemake starts the highest first."""
        # Snakemake's solver multiplies priorities, so that they must not be huge.
        return round(math.log(expected_work(self.plan.run(self.run_name(wildcards)))) / 100, 3)

    def prepared_data(self, wildcards: Any) -> list[str]:
        """Return the prepared file that a run reads, if its clips are not generated."""
        data = self.plan.run(self.run_name(wildcards)).data
        return [] if data.source == "stand_in" else [f"{self._data}/prepared/{data.dataset}-{data.source}.npz"]

    def experiment_inputs(self, wildcards: Any) -> list[str]:
        """Return the records of an experiment's runs, and its counts and speeds if it shows any."""
        experiment = self.plan.experiment(wildcards.experiment)
        records = [f"{self._out}/runs/{name}/record.json" for name in experiment.run_names]
        speeds = [f"{self._out}/speed/{experiment.name}.json"] if experiment.timed else []
        return records + self._counts(experiment) + speeds

    def experiments(self, *, trained: bool) -> list[str]:
        """Return the names of the experiments that train, or of those that only count."""
        return [name for name, experiment in self.plan.experiments.items() if experiment.train == trained]

    def counted(self) -> dict[str, str]:
        """Return the hashes of the experiments that show counts, by name."""
        return {name: experiment.hash for name, experiment in self.plan.experiments.items() if experiment.counts}

    def items(self) -> list[str]:
        """Return every table, figure and set of example predictions."""
        ends = {"tables": ("csv", "md", "tex"), "figures": ("png", "svg", "pdf")}
        items = [(kind, name, end) for kind in ends for name in self.plan.experiments for end in ends[kind]]
        items += [("examples", name, end) for name in self.experiments(trained=True) for end in ("png", "svg")]
        return [f"{self._out}/{kind}/{name}.{end}" for kind, name, end in items]

    def count_files(self) -> list[str]:
        """Return the files of all experiments' counts."""
        return [path for experiment in self.plan.experiments.values() for path in self._counts(experiment)]

    def report_inputs(self) -> list[str]:
        """Return all items, the counts that claims need, and the stated errata. A custom workflow may have none."""
        counts = self.count_files()
        stated = [self._folder / name for name in ("errata.yaml", "quoted_sources.yaml")]
        return self.items() + counts + [str(path) for path in stated if path.exists()]

    def request_files(self) -> None:
        """Write a marker for each data set whose benchmark files must be fetched or verified again.

        The files cannot be rule inputs because they may not exist when the DAG is built. A marker holds the time, because
        Snakemake compares the content of small inputs.
        """
        for dataset in sorted({c.data.dataset for c in self.plan.runs.values() if c.data.source == "files"} & set(DATASETS)):
            marker = self._data_on_disk / "fetched" / f"{dataset}.asked"
            if not marker.exists() or has_changed(marker.with_suffix(".json"), self._data_on_disk):
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.write_text(str(time.time_ns()))

    def set_aside_damaged_records(self, wildcards: Any) -> None:
        """Rename records of an experiment that are damaged or lack an output, and its table.

        Snakemake looks only at the times of files that it asks for.
        """
        experiment = self.plan.experiment(wildcards.experiment)
        table = self._out_on_disk / "tables" / f"{experiment.name}.csv"
        for name in experiment.run_names:
            folder = self._out_on_disk / "runs" / name
            record = folder / "record.json"
            if record.exists() and not living_holder(folder):
                load_valid_record(folder, self.plan.run(name).hash, name)
                if not record.exists() and table.exists():
                    table.replace(f"{table}.set-aside")

    def _counts(self, experiment: Experiment) -> list[str]:
        return [f"{self._out}/complexity/{experiment.name}.json"] if experiment.counts else []


def any_of(names: Iterable[str]) -> str:
    """Return a wildcard constraint that matches the names, or nothing if there are none."""
    return "|".join(map(re.escape, names)) or r"(?!)"
