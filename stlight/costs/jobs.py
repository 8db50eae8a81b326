"""Tell the state of a scale's other jobs, which make counts, timings, tables and the report, from their files and logs."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from stlight.experiments import Experiment, Plan
from stlight.runs.survey import RunState, changed, last_line

JobStatus = Literal["waiting", "running", "blocked", "failed", "done"]
"""blocked: it needs something that failed."""

# Seconds that the files of one copy or checkout may differ in age. A table that is older than its records by more is stale.
_COPIED_WITHIN = 10.0
# Seconds after which a job that has logged nothing counts as killed. Longer than the longest such job is given.
_GIVEN_UP_AFTER = 4 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job that is no run."""

    kind: Literal["count", "measure", "analyse", "report"]
    experiment: str = ""
    status: JobStatus
    log: Path
    why: str = ""
    """Last line of the log if it failed."""
    since: float = -math.inf
    """Unix time at which it started."""
    seconds: float = 0.0
    """Seconds that it took, if it is done and logged nothing."""

    @property
    def name(self) -> str:
        """Name of the verb, and of the experiment if it is about one."""
        return f"{self.kind} {self.experiment}".strip()


def job_states(plan: Plan, folder: Path, runs: Mapping[str, RunState], now: float) -> list[Job]:
    """Return the jobs of a scale at the Unix time `now`."""
    jobs = list(_jobs(plan, folder, runs, now))
    blocked = any(job.status in ("blocked", "failed") for job in jobs)
    tables = [folder / "tables" / f"{name}.csv" for name in plan.experiments]
    ready = all(job.status == "done" for job in jobs)
    report = _job("report", "", folder / "logs" / "report.log", [folder / "report.html"], max(map(changed, tables)), ready, now)
    return [*jobs, _blocked(report) if blocked else report]


def _jobs(plan: Plan, folder: Path, runs: Mapping[str, RunState], now: float) -> Iterator[Job]:
    counts = [folder / "complexity" / f"{name}.json" for name, experiment in plan.experiments.items() if experiment.counts]
    counted = _job("count", "", folder / "logs" / "count.log", counts, -math.inf, True, now)
    yield counted
    for name, experiment in plan.experiments.items():
        needs = [counted] if experiment.counts else []
        if experiment.timed:
            log, made = folder / "logs" / "measure" / f"{name}.log", folder / "speed" / f"{name}.json"
            needs.append(_job("measure", name, log, [made], -math.inf, True, now))
            yield needs[-1]
        yield _analysis(experiment, folder, [runs[run] for run in experiment.run_names], needs, now)


def _analysis(experiment: Experiment, folder: Path, runs: list[RunState], needs: list[Job], now: float) -> Job:
    name = experiment.name
    outputs = [folder / "tables" / f"{name}.csv", folder / "figures" / f"{name}.png"]
    if experiment.train:
        outputs.append(folder / "examples" / f"{name}.png")
    ready = all(run.recorded for run in runs) and all(job.status == "done" for job in needs)
    newest = max((run.written for run in runs), default=-math.inf)
    job = _job("analyse", name, folder / "logs" / "analyse" / f"{name}.log", outputs, newest, ready, now)
    blocked = any(run.status == "failed" for run in runs) or any(need.status == "failed" for need in needs)
    return _blocked(job) if blocked else job


def _job(
    kind: Literal["count", "measure", "analyse", "report"],
    experiment: str,
    log: Path,
    outputs: list[Path],
    newest_input: float,
    ready: bool,
    now: float,
) -> Job:
    """Return the state of a job. A log is opened when its job starts, and stays empty unless there is something to say."""
    made, started = [changed(path) for path in outputs], changed(log)
    if ready and all(time > newest_input - _COPIED_WITHIN and time > -math.inf for time in made):
        quiet = not last_line(log) and -math.inf < started <= max(made, default=-math.inf)
        seconds = max(made) - started if quiet else 0.0
        return Job(kind=kind, experiment=experiment, status="done", log=log, since=started, seconds=seconds)
    # A log that is older than what the job needs is that of an earlier start.
    if not ready or started < max(newest_input - _COPIED_WITHIN, *made) or started == -math.inf:
        return Job(kind=kind, experiment=experiment, status="waiting", log=log)
    if why := last_line(log):
        return Job(kind=kind, experiment=experiment, status="failed", log=log, why=why)
    alive = now - started < _GIVEN_UP_AFTER
    return Job(kind=kind, experiment=experiment, status="running" if alive else "waiting", log=log, since=started)


def _blocked(job: Job) -> Job:
    return job if job.status in ("done", "failed") else replace(job, status="blocked")
