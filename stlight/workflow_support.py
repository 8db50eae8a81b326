"""Settings, inputs and targets of the workflow's rules. Imports no torch, because Snakemake loads it for each job."""

import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator

from stlight.config import error_words
from stlight.experiments import Experiment, load_plan
from stlight.registry.dataset_specs import DATASETS
from stlight.runs.record import load_valid_record
from stlight.runs.rounds import Round, basis_of, path_of, read_rounds, seeds_after
from stlight.runtime.atomic_files import has_changed
from stlight.runtime.process import kernels_are_off
from stlight.runtime.run_lock import living_holder

Folder = Annotated[str, Field(min_length=1)]
"""A folder's path. An empty one would be the root of the disk to Snakemake, and the current folder to a job."""


class Settings(BaseModel):
    """The values of `snakemake --config`."""

    # Snakemake parses values of its command line: "5" becomes a number, and "yes" becomes True.
    model_config = ConfigDict(frozen=True, coerce_numbers_to_str=True)

    scale: str = "demo"
    results: Folder = "results"
    data: Folder = "data"
    experiments: str = "experiments"
    """Folder of the experiments' files, beside the Snakefile's rules."""
    slots_per_gpu: int | Literal["auto"] = 1
    """Runs that may share a GPU; a job states its share in whole percents. `auto`: as many as fit by `device_rate`."""
    device_rate: str | None = None
    """File that `python -m benchmarks gpu` wrote on the GPUs' model."""
    mixed_versions: bool = False
    hours: Annotated[PositiveFloat, Field(allow_inf_nan=False)] | None = None
    """Budget in core hours, which rounds spend where runs settle most sentences; without it, seeds are as the scale says."""
    container: Annotated[str, Field(min_length=1)] | None = None
    """Image of the jobs in Apptainer, a file or an address; without it, containers/stlight.sif beside the Snakefile."""

    @field_validator("slots_per_gpu", mode="before")
    @classmethod
    def _check_slots(cls, value: Any) -> Any:
        if value != "auto" and not (str(value).isdecimal() and 1 <= int(value) <= 100):
            raise ValueError(f"must be auto or a number from 1 to 100, got {value!r}")
        return value

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Settings":
        """Check and return the settings. Raises `ValueError` if one is unknown or has a wrong value.

        So does an environment variable of the jobs, because otherwise the first job would be the one to say it.
        """
        kernels_are_off()
        for name in config.keys() - cls.model_fields:
            raise ValueError(f"--config {name}: unknown; the settings are {', '.join(cls.model_fields)}")
        try:
            settings = cls(**config)
        except ValidationError as error:
            wrong = error.errors()[0]
            raise ValueError(f"--config {wrong['loc'][0]}: {error_words(wrong)}") from error
        if (settings.slots_per_gpu == "auto") != (settings.device_rate is not None):
            raise ValueError("--config slots_per_gpu=auto and device_rate=FILE: one needs the other")
        if settings.device_rate is not None and not Path(settings.device_rate).is_file():
            raise ValueError(f"--config device_rate: {settings.device_rate} is not a file")
        return settings

    @property
    def out(self) -> str:
        """The folder that holds the scale's results."""
        return f"{self.results}/{self.scale}"

    def check_folders(self) -> None:
        """Raise `ValueError` if a file lies where the folder of results or data would be."""
        for name, folder in (("results", self.out), ("data", self.data)):
            if not (found := _existing(Path(folder))).is_dir():
                raise ValueError(f"--config {name}: {found} is not a folder: move it away, or choose another folder")

    def check_writable(self) -> None:
        """Raise `ValueError` if results cannot be written. A dry run, or one that has nothing to do, need not write."""
        if not os.access(found := _existing(Path(self.out)), os.W_OK | os.X_OK):
            raise ValueError(f"--config results: {found} cannot be written: choose another folder with --config results=…")

    def shell_prefix(self, python: str, workflow: Path, source: str) -> str:
        """Return the shell code before each rule's command: `stlight` calls this suite's command line with these settings.

        The jobs refuse to run if their code is not of the version `source`. The settings are no params of the rules, because a
        moved folder is no reason to train again.
        """
        options = ["--scale", self.scale, "--results", self.results, "--data-root", self.data]
        options += ["--workflow", str(workflow), "--experiments", self.experiments]
        options += ["--mixed-versions"] if self.mixed_versions else []
        options += ["--rounds"] if self.hours else []
        options += ["--planned-source", source]
        # Snakemake, too, imports the package beside the Snakefile, if there is one.
        folders = [str(workflow.parent.resolve())] if (workflow.parent / "stlight").is_dir() else []
        # What Snakemake's interpreter imports from elsewhere may not fit another one.
        folders += filter(None, [os.environ.get("PYTHONPATH") if python == sys.executable else None])
        command = ["env", f"PYTHONPATH={os.pathsep.join(folders)}", python]
        # `exec` replaces the shell, so that a signal to the job reaches the process that must save its state. Therefore
        # `stlight` must be the last command of a rule. With -P, Python imports nothing from the current folder.
        call = f'stlight() {{ exec {shlex.join(command)} -P -m stlight "$@" {shlex.join(options)}; }}; '
        # Snakemake formats the prefix.
        return call.replace("{", "{{").replace("}", "}}")


class Workflow:
    """The plan of a scale, and the functions that look up inputs and params for rules. They take Snakemake's wildcards."""

    def __init__(self, workflow: Path, settings: Settings) -> None:
        """Load and check all experiments. Raises `ValueError` if a file is wrong."""
        self._folder, self._data, self._out = workflow, settings.data, settings.out
        self._hours, self._slots, self._device_rate = settings.hours, settings.slots_per_gpu, settings.device_rate
        self.plan = load_plan(workflow, settings.scale, Path(settings.data), settings.experiments)
        self.rounds: list[Round] = []
        """The rounds of the budget so far; none without a budget."""
        if settings.hours:
            self.read_rounds()

    def read_rounds(self) -> None:
        """Read the rounds that are there and give each cell the seeds that they chose."""
        self.rounds = read_rounds(Path(self._out), self.plan.hash)
        self.plan = self.plan.for_budget(seeds_after(self.rounds))

    def is_last_round(self, number: int) -> bool:
        """Return True if the rounds end with this one. Raises `ValueError` if its file is not of this plan and budget.

        Snakemake makes such a file again, unless its records of how files were made are lost.
        """
        found = self.rounds[number - 1] if number <= len(self.rounds) else None
        if not found or (found.stop == "budget" and found.hours < (self._hours or 0)):
            raise ValueError(
                f"{path_of(Path(self._out), number)} is of another plan or budget: delete it and the rounds after it"
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
            marker = self._marker(dataset)
            if not marker.exists() or has_changed(marker.with_suffix(".json"), Path(self._data)):
                marker.parent.mkdir(parents=True, exist_ok=True)
                marker.write_text(str(time.time_ns()))

    def set_aside_damaged_records(self, wildcards: Any) -> None:
        """Rename records of an experiment that are damaged or lack an output, and its table.

        Snakemake looks only at the times of files that it asks for.
        """
        experiment = self.plan.experiment(wildcards.experiment)
        table = Path(self._out, "tables", f"{experiment.name}.csv")
        for name in experiment.run_names:
            folder = Path(self._out, "runs", name)
            record = folder / "record.json"
            if record.exists() and not living_holder(folder):
                load_valid_record(folder, self.plan.run(name).hash, name)
                if not record.exists() and table.exists():
                    table.replace(f"{table}.set-aside")

    def _counts(self, experiment: Experiment) -> list[str]:
        return [f"{self._out}/complexity/{experiment.name}.json"] if experiment.counts else []

    def _marker(self, dataset: str) -> Path:
        return Path(self._data) / "fetched" / f"{dataset}.asked"


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))


def any_of(names: Iterable[str]) -> str:
    """Return a wildcard constraint that matches the names, or nothing if there are none."""
    return "|".join(map(re.escape, names)) or r"(?!)"


def note_forced(settings: Any) -> None:
    """Export the time before which jobs do not restore deleted outputs: now if Snakemake's DAG settings force jobs, else 0."""
    forced = settings.forceall or settings.forcetargets or settings.forcerun
    os.environ["STLIGHT_NEWER_THAN"] = str(time.time() if forced else 0)
