"""Facts about the running Snakemake that its jobs need, from Snakemake's own objects."""

import os
import sys
from pathlib import Path
from typing import Any

from stlight.runtime.containers import container_image
from stlight.workflow_support.settings import Settings

_PACKAGE = Path(__file__).resolve().parent.parent


def folder_of(rules: Any) -> Path:
    """Return the folder `workflow/` around Snakemake's object for the folder `rules/`.

    From GitHub or GitLab Snakemake reads single files only, so the installed package's folder is used.
    """
    if isinstance(rules, os.PathLike):
        return Path(rules).parent
    return next(path for path in (_PACKAGE / "workflow", _PACKAGE.parent / "workflow") if path.is_dir())


def interpreter(workflow: Any) -> str:
    """Return the Python of the jobs: the one that runs Snakemake, even if its environment is not activated.

    With conda or Apptainer it is that of the rule's environment or image.
    """
    return "python" if _deployment_methods(workflow) & {"conda", "apptainer"} else sys.executable


def image(workflow: Any, settings: Settings, home: Path) -> str | None:
    """Return the image that jobs run in, or None if they run without Apptainer, and let containers see the jobs' folders.

    Raises `ValueError` if the image or a folder does not exist, and for conda without a checkout.
    """
    methods = _deployment_methods(workflow)
    if "conda" in methods and not (home / "stlight").is_dir():
        raise ValueError(
            "--software-deployment-method conda needs a checkout, because the rules' environments do not contain"
            f" {home}: leave it out, or run `snakemake` in a clone of the repository"
        )
    return container_image(methods, settings.container, home, settings.results, settings.data)


def _deployment_methods(workflow: Any) -> set[str]:
    return set(map(str, workflow.deployment_settings.deployment_method))


def retries(workflow: Any) -> int:
    """Return how often a failed run is tried again: twice, or as often as a profile says. A run that was killed resumes.

    The Snakemake inside a cluster job makes no retries, because the scheduler's Snakemake retries the whole job.
    """
    return max(2, getattr(workflow.execution_settings, "retries", 0)) if workflow.is_main_process else 0


def newer_than(workflow: Any) -> str:
    """Return the time before which jobs do not restore deleted outputs: the start if Snakemake is to force jobs, else 0."""
    settings = workflow.dag_settings
    forced = settings.forceall or settings.forcetargets or settings.forcerun
    return str(workflow.start_time.timestamp() if forced else 0)
