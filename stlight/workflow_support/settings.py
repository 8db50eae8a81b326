"""The configuration of the workflow: checked values, and how they reach the jobs."""

import os
import shlex
import sys
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, field_validator

from stlight.config import error_words
from stlight.runtime.process import kernels_are_off

Folder = Annotated[str, Field(min_length=1)]
"""A folder's path. An empty one would be the root of the disk to Snakemake, and the current folder to a job."""
KEY = "stlight"
"""The key under which a workflow that imports this one may keep the settings, beside keys of its own."""


class Settings(BaseModel):
    """The values of config/config.yaml and of `snakemake --config`."""

    # Snakemake parses values of its command line: "5" becomes a number, and "yes" becomes True.
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True, use_attribute_docstrings=True)

    scale: str = "demo"
    """How large the experiments run: smoke, demo, small, gpu, paper, or the name of your own file in workflow/scales/."""
    hours: Annotated[PositiveFloat, Field(allow_inf_nan=False)] | None = None
    """Budget in core hours, which rounds spend where runs settle most sentences; without it, seeds are as the scale says."""
    results: Folder = "results"
    """Folder of the results."""
    data: Folder = "data"
    """Folder of the data sets."""
    experiments: str = "experiments"
    """Folder of the experiments' files in workflow/."""
    slots_per_gpu: Annotated[int, Field(ge=1, le=100)] | Literal["auto"] = 1
    """Runs that may share a GPU, at most 100; a job states its share in whole percents. auto: as many as fit by device_rate."""
    device_rate: str | None = None
    """File that `python -m benchmarks gpu` wrote on the GPUs' model."""
    mixed_versions: bool = False
    """Allow tables from results of several versions of the code."""
    container: Annotated[str, Field(min_length=1)] | None = None
    """Image of the jobs in Apptainer, a file or an address; without it, containers/stlight.sif of the checkout."""

    @field_validator("slots_per_gpu", mode="before")
    @classmethod
    def _check_slots(cls, value: Any) -> Any:
        if value != "auto" and not (str(value).isdecimal() and 1 <= int(value) <= 100):
            raise ValueError(f"must be auto or a number from 1 to 100, got {value!r}")
        return value

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, imported: bool = False) -> "Settings":
        """Check and return the settings. Raises `ValueError` if one is unknown or has a wrong value.

        So does an environment variable of the jobs, because otherwise the first job would be the one to say it.
        """
        kernels_are_off()
        hint = ""
        if imported and KEY in config:
            config = config[KEY] or {}
            if not isinstance(config, Mapping):
                raise ValueError(f"--config {KEY}: must hold the settings {', '.join(cls.model_fields)}, got {config!r}")
        elif imported and not any(map(_resembles_setting, config)):
            # All keys are the importer's own.
            config = {}
        elif imported:
            hint = f"; beside keys of your own, put them under the key {KEY}"
        # A misspelling first, because the other keys may be the importer's.
        if unknown := sorted((key for key in config if key not in cls.model_fields), key=_resembles_setting, reverse=True):
            raise ValueError(f"--config {unknown[0]}: unknown; the settings are {', '.join(cls.model_fields)}{hint}")
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

    def on_disk(self, modify: Callable[[str], str]) -> "Settings":
        """Return the settings with the folders where they are if Snakemake changes a rule's paths with `modify`."""
        folders = {"results": self.results, "data": self.data}
        return self.model_copy(update={name: str(modify(f"{path}/")).removesuffix("/") for name, path in folders.items()})

    def check_folders(self) -> None:
        """Raise `ValueError` if a file lies where the folder of results or data would be."""
        for name, folder in (("results", self.out), ("data", self.data)):
            if not (found := _existing(Path(folder))).is_dir():
                raise ValueError(f"--config {name}: {found} is not a folder: move it away, or choose another folder")

    def check_writable(self) -> None:
        """Raise `ValueError` if results cannot be written. A dry run, or one that has nothing to do, need not write."""
        if not os.access(found := _existing(Path(self.out)), os.W_OK | os.X_OK):
            raise ValueError(f"--config results: {found} cannot be written: choose another folder with --config results=…")

    def shell_command(self, python: str, workflow: Path, source: str) -> str:
        """Return the shell code that calls this suite's command line with these settings. A verb and its arguments follow it.

        The jobs refuse to run if their code is not of the version `source`.
        """
        options = ["--scale", self.scale, "--results", self.results, "--data-root", self.data]
        options += ["--workflow", str(workflow), "--experiments", self.experiments]
        options += ["--mixed-versions"] if self.mixed_versions else []
        options += ["--rounds"] if self.hours else []
        options += ["--planned-source", source]
        # Snakemake, too, imports the package beside the workflow, if there is one.
        folders = [str(workflow.parent.resolve())] if (workflow.parent / "stlight").is_dir() else []
        # What Snakemake's interpreter imports from elsewhere may not fit another one.
        folders += filter(None, [os.environ.get("PYTHONPATH") if python == sys.executable else None])
        command = ["env", f"PYTHONPATH={os.pathsep.join(folders)}", python]
        # `exec` replaces the shell, so that a signal to the job reaches the process that must save its state. Therefore
        # `stlight` must be the last command of a rule. With -P, Python imports nothing from the current folder.
        return f'stlight() {{ exec {shlex.join(command)} -P -m stlight "$@" {shlex.join(options)}; }}; stlight'


def _resembles_setting(key: Any) -> bool:
    """Return True for the name of a setting and for a misspelt one."""
    return bool(get_close_matches(str(key), Settings.model_fields, n=1, cutoff=0.8))


def _existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(p for p in (path, *path.parents) if os.path.lexists(p))
