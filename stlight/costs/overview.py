"""Show a whole scale at one moment: progress, remaining time, what runs where, what failed and why. Imports no torch."""

import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from stlight.costs.jobs import Job, JobStatus, job_states
from stlight.costs.order import expected_work
from stlight.costs.remaining import Observed, Predictor, Timing, schedule, seconds_by_kind
from stlight.experiments import Experiment, Plan
from stlight.runs.survey import RunState, Status, Survey, number
from stlight.runtime.trust import read_file

# Finished runs that tell how many run at a time, and how much time passes between two.
_LAST = 20
# Seconds between the end of a run and the start of the next, and of making an item, until they are measured; and of the report.
_GAP, _ANALYSIS, _REPORT = 3.0, 4.0, 7.0


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class Active(_Model):
    """A run or another job that is under way."""

    name: str
    """Run, or job and experiment: `measure table2_openstl`."""
    status: Literal["starting", "running"]
    """starting: a process waits for a GPU or loads."""
    epoch: int | None
    """Finished epochs; null for a job that is no run, as are the next five fields."""
    num_epochs: int | None
    host: str | None
    pid: str | None
    gpus: list[str]
    since: str
    """When it started, by the clock of its host."""
    remaining_seconds: float | None
    """Until the run ends; null if nothing is known."""


class Failure(_Model):
    """A run or another job that failed."""

    name: str
    why: str
    """Reason that the run's process stated, or else the last line of its log."""
    log: str
    """Path of the log."""


class Item(_Model):
    """An experiment that belongs to the scale."""

    name: str
    runs: int
    finished: int
    """Runs that are done or diverged."""
    active: int
    failed: int
    table: JobStatus
    """State of its table and figure."""


class Kind(_Model):
    """The runs of one model on one data set for one number of epochs."""

    dataset: str
    model: str
    num_epochs: int
    runs: int
    finished: int
    median_seconds: float | None
    """Median seconds of the finished runs."""
    remaining_seconds: float | None
    """Seconds of the unfinished runs, one after the other, without those that failed."""


class Overview(_Model):
    """State of a scale, as `stlight status --json` prints it."""

    scale: str
    time: datetime
    """When the folder was read."""
    finished: bool
    """True if every run is recorded, and every table and the report are made."""
    runs: dict[Status, int]
    """Number of runs by status; their sum is the number of runs of the scale."""
    share: float | None
    """Computed seconds as a share of all that are expected, from 0 to 1; null if nothing is known."""
    remaining_seconds: float | None
    """Until all runs, tables and the report are made, without what failed; null if nothing is known."""
    ends: datetime | None
    """When that will be."""
    runs_at_a_time: int
    """Runs that the remaining time takes to run at a time: as many as lately did."""
    active: list[Active]
    failures: list[Failure]
    items: list[Item]
    kinds: list[Kind]


class Follower:
    """Follow a scale: makes an `Overview` as often as it is asked, from the files of the results folder only."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self._survey = Survey(folder, plan.runs)

    def look(self, now: float) -> Overview:
        """Return what the folder says at the Unix time `now`."""
        plan, states = self.plan, self._survey.states(now)
        jobs = job_states(plan, self.folder, states, now)
        forecast = _Forecast(plan, states, list(_timings(plan, self.folder)), jobs)
        remaining, spent = forecast.remaining(), sum(state.seconds for state in states.values())
        total = None if remaining is None else spent + forecast.waiting_seconds
        finished = all(state.recorded for state in states.values()) and all(job.status == "done" for job in jobs)
        time = datetime.fromtimestamp(now, UTC).astimezone().replace(microsecond=0)
        return Overview(
            scale=plan.scale.name,
            time=time,
            finished=finished,
            runs=dict(Counter(state.status for state in states.values())),
            share=1.0 if finished else (spent / total if total else None),
            remaining_seconds=remaining,
            ends=None if remaining is None else time + timedelta(seconds=min(round(remaining), 10**9)),
            runs_at_a_time=forecast.slots,
            active=[*_active_runs(plan, states, forecast), *_active_jobs(jobs)],
            failures=[
                *(Failure(name=name, why=s.why, log=str(s.log)) for name, s in states.items() if s.status == "failed"),
                *(Failure(name=job.name, why=job.why, log=str(job.log)) for job in jobs if job.status == "failed"),
            ],
            items=[_item(experiment, states, jobs) for experiment in plan.experiments.values()],
            kinds=_kinds(plan, states, forecast),
        )


class _Forecast:
    """Expected seconds of the unfinished runs and jobs of a scale."""

    def __init__(self, plan: Plan, states: dict[str, RunState], timings: list[Timing], jobs: list[Job]) -> None:
        self._plan, self._states, self._jobs = plan, states, jobs
        self._recorded = sorted((s for s in states.values() if s.recorded and math.isfinite(s.started)), key=_end)
        ended = sorted((_end(state), name) for name, state in states.items() if state.recorded)
        partial = [name for name, state in states.items() if state.active]
        observed = [
            Observed(plan.runs[name], states[name].epochs, states[name].seconds, states[name].start)
            for name in (*(name for _, name in ended), *partial)
            if states[name].epochs and states[name].seconds > 0
        ]
        unfinished = {name: config for name, config in plan.runs.items() if not states[name].recorded}
        self.known = bool(observed or timings)
        predictor = Predictor(observed, timings)
        self._start = predictor.start
        self.seconds = seconds_by_kind(predictor, unfinished)
        """Predicted seconds of each run that has no record."""
        self.slots = max(1, self._peak(), len(partial) + sum(job.status == "running" for job in jobs))

    def left(self, name: str) -> float:
        """Return the seconds that a run without a record still takes, from its own pace if it has finished an epoch."""
        state, epochs = self._states[name], self._plan.runs[name].training.num_epochs
        whole = self.seconds[name]
        if state.epochs and state.seconds:
            epoch = max(0.0, state.seconds - self._start) / state.epochs if state.active else whole / epochs
            return max(0.0, epoch * (epochs - state.epochs) - state.age)
        return max(0.0, whole - state.age)

    @property
    def waiting_seconds(self) -> float:
        """Seconds of all unfinished runs, one after the other, without those that failed."""
        return sum(self.left(name) for name in self.seconds if self._states[name].status != "failed")

    def remaining(self) -> float | None:
        """Return the seconds until everything is made that has not failed; None if nothing is known."""
        if not self.known and self.seconds:
            return None
        gap, analysis = self._gap(), self._analysis()
        active = [self.left(name) + gap / 2 for name in self.seconds if self._states[name].active]
        waiting = [name for name in self.seconds if self._states[name].status in ("waiting", "interrupted")]
        waiting.sort(key=lambda name: expected_work(self._plan.runs[name]), reverse=True)
        runs = [self.left(name) + gap for name in waiting]
        todo = Counter(job.kind for job in self._jobs if job.status in ("waiting", "running"))
        # The last run is followed by an item that waits for it, and that one by the report.
        tables = [analysis] * (todo["analyse"] - 1)
        last = analysis * (todo["analyse"] > 0) + _REPORT * todo["report"]
        return schedule(active, runs + tables, self.slots) + last

    def _peak(self) -> int:
        """Return how many of the last finished runs, with other jobs beside them, ran at a time at most."""
        last = self._recorded[-_LAST:]
        spans = [(run.started, _end(run)) for run in last]
        begin = min((start for start, _ in spans), default=math.inf)
        # A job that ran when the runs began took the place of one. `measure` takes all cores.
        ends = [(job.since, job.since + job.seconds) for job in self._jobs if job.seconds and job.kind != "measure"]
        spans += [(max(start, begin), end) for start, end in ends if end > begin]
        events = [event for start, end in spans for event in ((start, 1), (end, -1))]
        running = peak = 0
        for _, change in sorted(events):
            running += change
            peak = max(peak, running)
        return peak

    def _gap(self) -> float:
        """Return the median seconds between the end of a run and the start of the next one in its place."""
        starts = sorted(run.started for run in self._recorded)
        gaps, place = [], 0
        for end in map(_end, self._recorded):
            while place < len(starts) and starts[place] < end:
                place += 1
            if place < len(starts):
                gaps.append(starts[place] - end)
                place += 1
        return median(gaps[-_LAST:]) if gaps else _GAP

    def _analysis(self) -> float:
        took = [job.seconds for job in self._jobs if job.kind == "analyse" and job.seconds]
        return median(took) if took else _ANALYSIS


def _end(state: RunState) -> float:
    return state.started + state.seconds if math.isfinite(state.started) else -math.inf


def _timings(plan: Plan, folder: Path) -> Iterator[Timing]:
    """Read what the job `measure` timed, as far as it is of the present configuration."""
    for experiment in plan.experiments.values():
        if experiment.timed:
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                found = json.loads(read_file(folder / "speed" / f"{experiment.name}.json"))["variants"]
                for variant in experiment.variants:
                    timed = found[f"{variant.dataset}/{variant.name}"]
                    epoch, predicted = number(timed["epoch_seconds"]), number(timed["clips_per_second"])
                    if timed["config_hash"] == variant.config.hash and epoch and predicted:
                        yield Timing(variant.config, epoch / variant.config.data.clips_per_epoch, 1 / predicted)


def _active_runs(plan: Plan, states: dict[str, RunState], forecast: _Forecast) -> Iterator[Active]:
    for name, state in states.items():
        if state.active:
            yield Active(
                name=name,
                status="running" if state.status == "running" else "starting",
                epoch=state.epochs,
                num_epochs=plan.runs[name].training.num_epochs,
                host=state.host,
                pid=state.pid,
                gpus=list(state.gpus),
                since=state.since,
                remaining_seconds=forecast.left(name) if forecast.known else None,
            )


def _active_jobs(jobs: Sequence[Job]) -> Iterator[Active]:
    nothing = dict.fromkeys(("epoch", "num_epochs", "host", "pid", "remaining_seconds"))
    for job in jobs:
        if job.status == "running":
            since = datetime.fromtimestamp(job.since).strftime("%Y-%m-%d %H:%M:%S")
            yield Active(name=job.name, status="running", gpus=[], since=since, **nothing)


def _item(experiment: Experiment, states: dict[str, RunState], jobs: Sequence[Job]) -> Item:
    runs = [states[name] for name in experiment.run_names]
    return Item(
        name=experiment.name,
        runs=len(runs),
        finished=sum(run.recorded for run in runs),
        active=sum(run.active for run in runs),
        failed=sum(run.status == "failed" for run in runs),
        table=next(job.status for job in jobs if job.kind == "analyse" and job.experiment == experiment.name),
    )


def _kinds(plan: Plan, states: dict[str, RunState], forecast: _Forecast) -> list[Kind]:
    groups: dict[tuple[str, str, int], list[str]] = {}
    for name, config in plan.runs.items():
        groups.setdefault((config.data.dataset, config.model.model, config.training.num_epochs), []).append(name)
    kinds = []
    for (dataset, model, num_epochs), names in groups.items():
        done = [states[name].seconds for name in names if states[name].recorded]
        left = [forecast.left(name) for name in names if not states[name].recorded and states[name].status != "failed"]
        kind = Kind(
            dataset=dataset,
            model=model,
            num_epochs=num_epochs,
            runs=len(names),
            finished=len(done),
            median_seconds=median(done) if done else None,
            remaining_seconds=sum(left) if forecast.known or not left else None,
        )
        kinds.append(kind)
    return kinds
