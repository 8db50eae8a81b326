"""Pack short jobs into few Slurm jobs. A Snakemake profile says which: its resources `pack_minutes`, `pack_cores`, `pack_gpus`.

Snakemake's groups do not serve: on Slurm, the members of a group run one after another; the group asks for the sum of their
resources; it stops at the first failure, and Snakemake then deletes the outputs of all members. In a pack, as many jobs run at
once as fit, each succeeds or fails by itself, and each is retried by itself.

Snakemake offers no hook between choosing jobs and submitting them, so `enable_packing` extends the executor of Snakemake's
Slurm plugin, which still submits and monitors the packs.
"""

import math
import sys
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from snakemake.common.tbdstring import TBDString
from snakemake.iocontainers import ResourceList
from snakemake.jobs import GroupJob
from snakemake_interface_executor_plugins.registry import ExecutorPluginRegistry

# Snakemake hands over at most 100 jobs a second, so that we wait for more before we submit.
_SETTLE_SECONDS = 5.0
# Linux allows arguments of 128 KiB, and a pack's command, which names all jobs, is one argument of `sbatch`.
_MOST_JOBS = 400
# Starting Snakemake and torch from a shared file system, and saving before the time limit.
_SPARE_MINUTES = 10


def enable_packing() -> None:
    """Let Snakemake's Slurm plugin, if it is installed, submit jobs in packs."""
    registry = ExecutorPluginRegistry()
    plugin: Any = registry.get_plugin("slurm") if registry.is_installed("slurm") else None
    if plugin and not issubclass(plugin.executor, PackingExecutor):
        plugin.executor = type("Executor", (PackingExecutor, plugin.executor), {})


def pack_size(resources: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many jobs with these resources run at once in a pack, and how many it holds at most."""
    minutes, runtime = resources.get("pack_minutes", 0), resources.get("runtime", 0)
    if not minutes or not runtime:
        return 1, 1
    at_once = resources.get("pack_cores", 1) // resources["_cores"]
    if resources.get("gpu"):
        at_once = min(at_once, 100 * resources.get("pack_gpus", 1) // resources.get("gpu_percent", 100))
    at_once = max(1, at_once)
    return at_once, min(_MOST_JOBS, max(1, at_once * ((minutes - _SPARE_MINUTES) // runtime)))


def pack_resources(resources: Mapping[str, Any], at_once: int, jobs: int) -> dict[str, Any]:
    """Return what a pack of `jobs` jobs with these resources asks for, if `at_once` of them run at once."""
    at_once = min(at_once, jobs)
    # Values that Snakemake knows only when the job runs.
    known = {name: value for name, value in resources.items() if not isinstance(value, TBDString)}
    total: dict[str, Any] = {name: at_once * known[name] for name in ("_cores", "mem_mb") if name in known}
    total["runtime"] = _SPARE_MINUTES + math.ceil(jobs / at_once) * known["runtime"]
    if known.get("gpu"):
        total["gpu"] = math.ceil(at_once * known.get("gpu_percent", 100) / 100)
    return known | total


def split_evenly(jobs: list[Any], most: int) -> list[list[Any]]:
    """Split a list into as few parts as possible of at most `most` elements; their lengths differ by one at most."""
    parts = math.ceil(len(jobs) / most)
    return [jobs[part::parts] for part in range(parts)]


class Pack(GroupJob):  # type: ignore[misc]
    """Jobs of one rule and attempt that share a Slurm job. To Snakemake's Slurm plugin it is a group."""

    def __init__(self, jobs: list[Any], at_once: int) -> None:
        first = jobs[0]
        super().__init__(first.rule.name, frozenset(jobs), {})
        self.rule = first.rule
        # Not by its setter, which would set it for the members, too.
        self._attempt = first.attempt
        self.asks_for = pack_resources(dict(first.resources.items()), at_once, len(jobs))
        self.finalize()

    @property
    def resources(self) -> ResourceList:
        """Resources that the Slurm job requests, by name."""
        return ResourceList(fromdict=self.asks_for)


class PackingExecutor:
    """The part of an executor that packs jobs; the Slurm plugin's executor is the other.

    Jobs wait until no more came for some seconds, and while there are as many Slurm jobs as Snakemake's resource
    `slurm_jobs` allows.
    """

    workflow: Any
    dag: Any
    tmpdir: str
    next_seconds_between_status_checks: float | None

    def __post_init__(self, *arguments: Any, **options: Any) -> None:
        """Called at the end of the executor's constructor."""
        super().__post_init__(*arguments, **options)  # type: ignore[misc]
        self._waiting: list[Any] = []
        self._num_submitted = 0
        self._changing = threading.Lock()
        self._timer: threading.Timer | None = None

    def run_jobs(self, jobs: list[Any]) -> None:
        """Let jobs wait for others to be packed with."""
        with self._changing:
            self._waiting += jobs
        self._submit_in(_SETTLE_SECONDS)

    def format_job_exec(self, job: Any) -> str:
        """Return the command of a Slurm job: in a pack, a Snakemake that runs the members as on a single machine."""
        command: str = super().format_job_exec(job)  # type: ignore[misc]
        if not isinstance(job, Pack):
            return command
        options = f"--cores {job.threads} --keep-going"
        if gpus := job.asks_for.get("gpu"):
            options += f" --resources gpu_percent={100 * gpus}"
        command = command.replace(self.additional_general_args(), options)  # type: ignore[attr-defined]
        # As a job step, so that Slurm's signals reach the runs and not only the job's shell.
        step = f"srun --nodes=1 --ntasks=1 --cpus-per-task={job.threads} --cpu-bind=quiet"
        python = f"{self.get_python_executable()} -m snakemake"  # type: ignore[attr-defined]
        return command.replace(python, f"{step} {python}", 1)

    def report_job_success(self, job_info: Any) -> None:
        """Report each job of a pack."""
        self._ended()
        for job in _members(job_info.job):
            super().report_job_success(replace(job_info, job=job))  # type: ignore[misc]

    def report_job_error(self, job_info: Any, *arguments: Any, **options: Any) -> None:
        """Report each job of a pack that failed: those that had finished before succeeded."""
        self._ended()
        for job in _members(job_info.job):
            if isinstance(job_info.job, Pack) and self._has_finished(job, job_info.job):
                super().report_job_success(replace(job_info, job=job))  # type: ignore[misc]
            else:
                super().report_job_error(replace(job_info, job=job), *arguments, **options)  # type: ignore[misc]

    def cancel(self) -> None:
        """Cancel all jobs, and submit none that waits."""
        self._stop_timer()
        super().cancel()  # type: ignore[misc]

    async def sleep(self) -> None:
        """Wait before the next question to Slurm. The plugin alone would wait ever longer, up to three minutes."""
        longest = self.workflow.executor_settings.init_seconds_before_status_checks
        self.next_seconds_between_status_checks = min(self.next_seconds_between_status_checks or longest, longest)
        await super().sleep()  # type: ignore[misc]

    def _submit_in(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = threading.Timer(seconds, self._submit)
        self._timer.daemon = True
        self._timer.start()

    def _stop_timer(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _submit(self) -> None:
        try:
            with self._changing:
                if self._stops():
                    self._drop_waiting()
                packs = _packs(sorted(self._waiting, key=self.dag.priority, reverse=True))
                chosen = packs[: max(0, self._limit() - self._num_submitted)]
                self._waiting = [job for pack in packs[len(chosen) :] for job in _members(pack)]
                self._num_submitted += len(chosen)
            for pack in chosen:
                if isinstance(pack, Pack):
                    self._start_of(pack).touch()
            super().run_jobs(chosen)  # type: ignore[misc]
        except Exception as error:
            # In a thread of its own the error would be lost, and Snakemake would wait forever.
            self.workflow.scheduler.executor_error_callback(error)

    def _stops(self) -> bool:
        scheduler = self.workflow.scheduler
        return bool(scheduler._user_kill or (scheduler._errors and not scheduler.keepgoing))

    def _drop_waiting(self) -> None:
        """Take back the jobs that wait, because a Snakemake that stops waits for all that it has handed over."""
        scheduler = self.workflow.scheduler
        with scheduler._lock:
            scheduler.running.difference_update(self._waiting)
        self._waiting = []
        scheduler._open_jobs.release()

    def _limit(self) -> int:
        limit: int | None = self.workflow.global_resources.get("slurm_jobs").value
        return sys.maxsize if limit is None else limit

    def _ended(self) -> None:
        with self._changing:
            self._num_submitted -= 1
            waits = bool(self._waiting)
        if waits:
            self._submit_in(0)

    def _start_of(self, pack: Pack) -> Path:
        return Path(self.tmpdir, f"{pack.jobid}.started")

    def _has_finished(self, job: Any, pack: Pack) -> bool:
        """Return True if the outputs are newer than the pack: Snakemake deletes those of a job that fails or is interrupted.

        A run that is killed leaves outputs of which the record, the last to be written, is missing.
        """
        started = self._start_of(pack).stat().st_mtime
        return all(Path(path).exists() and Path(path).stat().st_mtime >= started for path in job.output)


def _packs(jobs: Iterable[Any]) -> list[Any]:
    """Return packs, and jobs that are too long for one. A pack is of one rule and attempt, whose jobs ask for the same."""
    packs: list[Any] = []
    alike = defaultdict(list)
    for job in jobs:
        if job.is_group():
            packs.append(job)
        else:
            alike[job.rule.name, job.attempt].append(job)
    for members in alike.values():
        at_once, most = pack_size(dict(members[0].resources.items()))
        packs += [Pack(part, at_once) for part in split_evenly(members, most)] if most > 1 else members
    return packs


def _members(job: Any) -> list[Any]:
    return list(job) if isinstance(job, Pack) else [job]
