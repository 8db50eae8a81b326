"""Load the results of a scale for each experiment. Every file is read here, once, and checked here only."""

import io
import json
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from stlight.experiments import Experiment, Plan, Scale, Variant
from stlight.registry.metric_specs import COUNTED_METRICS, TIMED_METRICS
from stlight.runs.record import RecordError, RunRecord, exploded_mse, read_history, read_output, read_record, unfinished_state


class MixedVersionsError(ValueError):
    """Different versions of the code made the results of an experiment. The message says which."""


class IncompleteError(ValueError):
    """Results that a complete table needs are missing; the message names the first one and what to do."""


@dataclass(frozen=True)
class Recorded:
    """A run that has a valid record."""

    record: RunRecord
    history: pd.DataFrame
    """One row per epoch; NaN for what could not be measured."""
    losses: pd.DataFrame
    """Columns step and train_loss: the mean training loss of equally many steps up to each step, at most 500 rows."""

    @property
    def spikes(self) -> int:
        """Number of evaluations before the last whose test MSE exploded, although the training went on."""
        return int((self.history["test_mse"].iloc[:-1] > exploded_mse(self.record.trivial)).sum())


@dataclass(frozen=True)
class Missing:
    """State of a run that has no valid record, and the reason if there is one."""

    state: str
    """As `read_state` names it, or damaged."""
    why: str = ""

    def __str__(self) -> str:
        return f"{self.state}: {self.why}" if self.why else self.state


class ResultsFolder:
    """The results of one scale. Caches each run, because experiments share runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: dict[str, Recorded | Missing] = {}

    def run(self, name: str, config_hash: str) -> Recorded | Missing:
        """Return a run with its files if they are valid and of this configuration, and otherwise its state and why."""
        if name not in self._runs:
            try:
                self._runs[name] = self._read_run(name, config_hash)
            except RecordError as error:
                self._runs[name] = Missing("damaged", str(error))
        return self._runs[name]

    def _read_run(self, name: str, config_hash: str) -> Recorded | Missing:
        folder, otherwise = self.path / "runs" / name, ""
        with suppress(FileNotFoundError):
            record = read_record(folder / "record.json", name)
            if record.config_hash == config_hash:
                history = pd.DataFrame(read_history(folder, record)).replace("", "nan").astype(float)
                losses = pd.read_csv(io.BytesIO(read_output(folder, record, "losses.csv")))
                # Kept results need no examples, but another run's must not pass for this one's.
                if (folder / "examples.npz").exists():
                    read_output(folder, record, "examples.npz")
                return Recorded(record, history, losses)
            otherwise = "its record is of another configuration"
        state = unfinished_state(folder, config_hash)
        why = state.get("error") or state.get("why") or otherwise or self._last_log_line(name)
        return Missing(state["status"], why)

    def _last_log_line(self, name: str) -> str:
        """Return the last line that a run without a state logged; empty if it has not been started."""
        log = self.path / "logs" / "train" / f"{name}.log"
        if not log.is_file():
            return ""
        lines = log.read_text(errors="replace").strip().split("\n")
        return lines[-1] or f"ended without a word in {log}"

    def counts(self, experiment: Experiment) -> dict[str, Any] | str:
        """Return the counts of an experiment, or what to do if they are missing or damaged."""
        named = {metric for metrics in experiment.metrics.values() for metric in metrics}
        wanted = {"parameters", "benchmark_flops"} | named & COUNTED_METRICS - {"num_params"}
        wanted |= set() if experiment.train else {"weights", "closed_forms"}
        return self._read_json("complexity", experiment, "count", lambda counts, variant: wanted <= counts[key(variant)].keys())

    def timings(self, experiment: Experiment) -> dict[str, Any] | str:
        """Return the timings of an experiment, or what to do if they are missing or damaged."""

        def whole(timings: Any, variant: Variant) -> bool:
            found = timings["variants"][key(variant)]
            return found["config_hash"] == variant.config.hash and all(math.isfinite(found[m]) for m in TIMED_METRICS)

        return self._read_json("speed", experiment, "measure", whole)

    def _read_json(
        self, folder: str, experiment: Experiment, verb: str, whole: Callable[[Any, Variant], bool]
    ) -> dict[str, Any] | str:
        path, problem = self.path / folder / f"{experiment.name}.json", "is missing"
        if path.is_file():
            problem = "is damaged or of another grid"
            with suppress(ValueError, TypeError, KeyError, AttributeError):
                content = json.loads(path.read_bytes())
                if all(whole(content, variant) for variant in experiment.variants):
                    return dict(content)
        return f"{path} {problem}: python -m stlight {verb} {experiment.name}"


@dataclass(frozen=True, eq=False)
class Evidence:
    """The results of one experiment at one scale: records, histories, counts, timings, and why any are missing."""

    experiment: Experiment
    scale: Scale
    folder: Path
    """The scale's folder of results."""
    runs: dict[str, Recorded]
    """The runs that have a valid record, by name."""
    missing: dict[str, Missing]
    """State of each other run, by name."""
    counts: dict[str, Any]
    """Parameters and FLOPs at the paper's size by `<dataset>/<variant>`, and their `provenance`; empty if nothing is counted,
    or not yet."""
    timings: dict[str, Any]
    """Device, threads, rounds, and `variants` by `<dataset>/<variant>`; empty if nothing is timed, or not yet."""
    unmeasured: list[str]
    """The remedies for counts and timings that the experiment needs and that are missing or damaged."""

    @property
    def records(self) -> dict[str, RunRecord]:
        """The valid records by run name."""
        return {name: run.record for name, run in self.runs.items()}

    @property
    def provenance(self) -> dict[str, dict[str, Any]]:
        """Where the numbers come from: provenance of the records by run name, of counts and timings by file."""
        files = {"complexity": self.counts, "speed": self.timings}
        made = {f"{kind}/{self.experiment.name}.json": found.get("provenance", {}) for kind, found in files.items() if found}
        return {name: record.provenance for name, record in self.records.items()} | made

    def recorded(self, variant: Variant) -> dict[int, Recorded]:
        """Return the runs of a variant that have a valid record, by the k of their name `seed<k>`."""
        names = self.experiment.runs_of(variant)
        return {k: self.runs[name] for k, name in enumerate(names) if name in self.runs}

    def examples(self, name: str) -> tuple[np.ndarray, ...]:
        """Return context, truth and prediction of a run's example clips, uint8 (clip, time, channel, height, width).

        Raises `RecordError` if the file is damaged or does not have the checksum that the run's record states.
        """
        folder = self.folder / "runs" / name
        content = read_output(folder, self.runs[name].record, "examples.npz")
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:
                return stored["context"], stored["truth"], stored["prediction"]
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise RecordError(
                f"{folder / 'examples.npz'} is damaged: {error}; delete the record to train the run again"
            ) from error

    def check_complete(self) -> None:
        """Raise `IncompleteError` unless every run has a valid record and all counts and timings are there."""
        if self.missing:
            name, why = next(iter(self.missing.items()))
            count = f"{len(self.missing)} of its {len(self.experiment.run_names)} runs"
            raise IncompleteError(f"{self.experiment.name}: {count} have no record: {name}: {why}")
        if self.unmeasured:
            raise IncompleteError(self.unmeasured[0])

    def check_versions(self) -> None:
        """Raise `MixedVersionsError` unless one version of the code and of torch made all records, counts and timings."""
        found = code_versions(self.provenance)
        if len(found) > 1:
            words = [f"{len(names)} of {label}, {names[0]} the first" for label, names in found.items()]
            raise MixedVersionsError(
                f"{self.experiment.name}: its results come from {len(found)} versions of the code: {'; '.join(words)}. Delete"
                " those of all but one and start again, or ask for them together with --config mixed_versions=yes"
            )


def key(variant: Variant) -> str:
    """Return the name of a variant in the files of counts and timings."""
    return f"{variant.dataset}/{variant.name}"


def load_evidence(plan: Plan, folder: Path, names: Iterable[str] | None = None) -> dict[str, Evidence]:
    """Load all that a scale's results hold about the named experiments, or all of them, each file once."""
    results = ResultsFolder(folder)
    wanted = plan.experiments if names is None else [plan.experiment(name).name for name in names]
    return {name: load_one(plan.experiments[name], plan.scale, results) for name in wanted}


def load_one(experiment: Experiment, scale: Scale, results: ResultsFolder) -> Evidence:
    """Load all that a scale's results hold about one experiment."""
    runs, missing = {}, {}
    for variant in experiment.variants if experiment.train else ():
        waits_for = experiment.waits_for.get(variant.dataset)
        for k, name in enumerate(experiment.runs_of(variant)):
            run = results.run(name, variant.run_config(k).hash)
            if isinstance(run, Recorded):
                runs[name] = run
            else:
                waits = waits_for and run == Missing("waiting")
                missing[name] = Missing("waiting", f"{variant.dataset} waits for {waits_for}") if waits else run
    counts = results.counts(experiment) if experiment.counts else {}
    timings = results.timings(experiment) if experiment.timed else {}
    unmeasured = [remedy for remedy in (counts, timings) if isinstance(remedy, str)]
    counts, timings = ({} if isinstance(found, str) else found for found in (counts, timings))
    return Evidence(experiment, scale, results.path, runs, missing, counts, timings, unmeasured)


def all_records(evidence: Iterable[Evidence]) -> dict[str, RunRecord]:
    """Return the valid records of several experiments by run name."""
    return {name: record for one in evidence for name, record in one.records.items()}


def code_versions(provenance: Mapping[str, dict[str, Any]]) -> dict[str, list[str]]:
    """Return the results that each version of the code and of torch made, by a label for readers."""
    labels: dict[tuple[str, str], str] = {}
    found: dict[str, list[str]] = {}
    for name, facts in provenance.items():
        torch = str(facts.get("libraries", {}).get("torch", "?")).partition("+")[0]
        source = str(facts.get("source", "?"))
        # Commits with the same sources make the same numbers and count as one version, named by the first commit.
        label = labels.setdefault((source, torch), f"{source} (commit {facts.get('code', '?')}, torch {torch})")
        found.setdefault(label, []).append(name)
    return found
