"""Predict how long the rest of a scale takes, from the seconds of the runs that have finished. Imports no torch."""

import heapq
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from stlight.config import RunConfig
from stlight.registry.model_specs import OURS

# What a run is expected to take before any has finished, as measured on two cores: seconds to start a run, seconds of training
# per timed second of the model, and seconds of drawing a clip.
_START, _PER_MODEL_SECOND, _PER_CLIP = 0.5, 1.2, 2e-4
# How far the last two may be off, as standard deviations, and how far a run is off its fit, as a share. Drawing a clip of KTH's
# stand-in takes fifty times as long as drawing one of digits.
_MODEL_SECOND_SPREAD, _CLIP_SPREAD, _RUN_SPREAD = 0.3, 1e-2, 0.1
# The weight of a run falls by this factor with each run that finishes after it, because the load of a machine changes, but not
# below the least weight, because kinds of run come again.
_FORGETTING, _LEAST_WEIGHT = 0.9, 0.2
# Runs of a kind that its own correction is taken from, and runs that the start is.
_LAST, _LAST_STARTS = 2, 20
# Clips per second of a model of which nothing is known. The first finished run corrects it.
_UNKNOWN = 100.0


@dataclass(frozen=True)
class Timing:
    """Seconds that a model takes for a clip, without drawing it."""

    config: RunConfig
    training: float
    """Seconds of a training step, by clip."""
    evaluation: float
    """Seconds of predicting a clip."""


@dataclass(frozen=True)
class Observed:
    """A run of which some epochs are finished, or all of them, and the seconds that they took with the start."""

    config: RunConfig
    epochs: int
    seconds: float
    start: float | None = None
    """Seconds that no epoch took; None if they were not measured."""


class Predictor:
    """Predict seconds of runs: a measured start, and for each epoch the model's work and the drawing of clips.

    These two are fitted to the finished runs. Work is what the `timings` say, scaled by the size of the model and its frames.
    A kind of run that has finished is corrected by its own ratio of measured to fitted seconds of an epoch.
    """

    def __init__(self, observed: Sequence[Observed], timings: Iterable[Timing]) -> None:
        """Fit to what was `observed`, the oldest first."""
        # Fitted, the start would be confused with the epochs, because most runs of a scale have equally many.
        starts = [run.start for run in observed if run.start is not None]
        self.start = median(starts[-_LAST_STARTS:]) if starts else _START
        """Seconds of a run that none of its epochs takes."""
        runs = [(run.config, run.epochs, seconds) for run in observed if (seconds := run.seconds - self._start_of(run)) > 0]
        self._timings = list(timings)
        timed = {_model_and_data(timing.config) for timing in self._timings}
        self._timings += [_timing(*run) for run in runs if _model_and_data(run[0]) not in timed]
        self._near: dict[tuple[str, ...], list[Timing]] = {}
        for timing in self._timings:
            for name in _names(timing.config):
                self._near.setdefault(name, []).append(timing)
        self._datasets = sorted({config.data.dataset for config, _, _ in runs})
        self._work: dict[str, float] = {}
        expected = np.array([_PER_MODEL_SECOND] * 2 + [_PER_CLIP] * len(self._datasets))
        trust = _RUN_SPREAD / np.array([_MODEL_SECOND_SPREAD] * 2 + [_CLIP_SPREAD] * len(self._datasets))
        rows, targets = [*np.diag(trust)], [*(trust * expected)]
        for place, (config, epochs, seconds) in enumerate(reversed(runs)):
            weight = max(_LEAST_WEIGHT, _FORGETTING**place)
            # Relative errors count, so that a long run does not outweigh many short ones.
            rows.append(weight * epochs * self._features(config) / seconds)
            targets.append(weight)
        self._weights = _fit(np.array(rows), np.array(targets))
        ratios: dict[str, list[float]] = {}
        for config, epochs, seconds in runs:
            ratios.setdefault(kind_of(config), []).append(seconds / epochs / self._fitted(config))
        # One more ratio of 1, because a single run may have been slow by chance.
        self._corrections = {kind: float(np.exp(np.mean(np.log([1.0, *of[-_LAST:]])))) for kind, of in ratios.items()}

    def seconds(self, config: RunConfig) -> float:
        """Return the seconds that a run is expected to take from its start to its record."""
        epoch = self._fitted(config) * self._corrections.get(kind_of(config), 1.0)
        return self.start + config.training.num_epochs * epoch

    def _start_of(self, run: Observed) -> float:
        return self.start if run.start is None else run.start

    def _fitted(self, config: RunConfig) -> float:
        """Return the fitted seconds of an epoch."""
        return float(self._features(config) @ self._weights) + self._unseen(config)

    def _features(self, config: RunConfig) -> np.ndarray:
        clips = config.data.clips_per_epoch + _held_out(config)
        drawn = [clips * (config.data.dataset == dataset) for dataset in self._datasets]
        # Other sizes of a model take less or more than their multiply-adds say, which tells nothing about what was timed.
        timed, work = ("kind", kind_of(config)) in self._near, self._epoch(config)
        return np.array([work * timed, work * (not timed), *drawn])

    def _unseen(self, config: RunConfig) -> float:
        """Return the expected seconds of drawing an epoch's clips of a data set that no finished run has drawn."""
        seen = config.data.dataset in self._datasets
        return 0.0 if seen else _PER_CLIP * (config.data.clips_per_epoch + _held_out(config))

    def _epoch(self, config: RunConfig) -> float:
        """Return the seconds of the model in an epoch, as timed, or scaled from the nearest models that were."""
        kind = kind_of(config)
        if kind not in self._work:
            near = next((self._near[name] for name in _names(config) if name in self._near), self._timings)
            timings = near or [Timing(config, 1 / _UNKNOWN, 1 / _UNKNOWN)]
            # Sizes of baselines are compared by their frames only: a scale has one width and depth for all of them.
            of = multiply_adds if all(t.config.model.model == config.model.model == OURS for t in timings) else _pixels
            self._work[kind] = median(
                of(config)
                / of(timing.config)
                * (config.data.clips_per_epoch * timing.training + _held_out(config) * timing.evaluation)
                for timing in timings
            )
        return self._work[kind]


def schedule(running: Sequence[float], waiting: Sequence[float], slots: int) -> float:
    """Return the seconds until all jobs have ended, with `slots` at a time. Those that wait start in the order given."""
    # Those that run already may be more than the slots.
    busy = [*running, *[0.0] * (max(slots, 1) - len(running))]
    heapq.heapify(busy)
    for seconds in waiting:
        heapq.heapreplace(busy, busy[0] + seconds)
    return max(busy)


def kind_of(config: RunConfig) -> str:
    """Return a text that is equal for runs whose epochs take the same time."""
    training = config.training.model_dump(exclude={"max_lr", "final_div_factor", "schedule", "num_epochs", "out_of_memory"})
    model, data = config.model.model_dump(exclude={"initialization"}), config.data.model_dump()
    return json.dumps([model, data, training], sort_keys=True)


def multiply_adds(config: RunConfig) -> float:
    """Return the multiply-adds of STLight's convolutions for one clip."""
    model, shape = config.model, config.clip_shape
    dim, patch = model.hidden_dim, model.patch_size
    mixers = model.depth * dim * (model.k1**2 + model.k2**2 + dim)
    encoder = dim * shape.context_frames * shape.channels * (patch * max(1, model.overlap)) ** 2
    # Patch reassemble works on pixels with dim / p² channels, or on patches with p² times the frames.
    decoder = dim * shape.horizon_frames * shape.channels * (1 if model.decoder == "shuffle_reassemble" else patch**2)
    return (mixers + encoder + decoder) * shape.height * shape.width / patch**2


def _fit(rows: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Return the least-squares solution with coefficients of 0 or more: those that come out below are left out, worst first."""
    kept = list(range(rows.shape[1]))
    found = np.zeros(rows.shape[1])
    while kept:
        solution = np.linalg.lstsq(rows[:, kept], targets, rcond=None)[0]
        if solution.min() >= 0:
            found[kept] = solution
            break
        del kept[int(solution.argmin())]
    return found


def _pixels(config: RunConfig) -> float:
    shape = config.clip_shape
    return float((shape.context_frames + shape.horizon_frames) * shape.channels * shape.height * shape.width)


def _held_out(config: RunConfig) -> int:
    return config.data.validation_clips + config.data.test_clips


def _names(config: RunConfig) -> list[tuple[str, ...]]:
    """Return what a timing of another run must share with a run to stand for it, the nearest first."""
    model, dataset = _model_and_data(config)
    return [("kind", kind_of(config)), ("both", model, dataset), ("model", model), ("ours", str(model == OURS))]


def _model_and_data(config: RunConfig) -> tuple[str, str]:
    return config.model.model, config.data.dataset


def _timing(config: RunConfig, epochs: int, seconds: float) -> Timing:
    """Take finished epochs of a run for a timing of its model. Predicting a clip takes about a third of training on it."""
    clips = epochs * (config.data.clips_per_epoch + _held_out(config) / 3)
    return Timing(config, seconds / clips, seconds / clips / 3)


def seconds_by_kind(predictor: Predictor, runs: Mapping[str, RunConfig]) -> dict[str, float]:
    """Return the predicted seconds of each run. Runs of one kind are predicted once."""
    found: dict[tuple[str, int], float] = {}
    seconds = {}
    for name, config in runs.items():
        key = kind_of(config), config.training.num_epochs
        seconds[name] = found[key] if key in found else found.setdefault(key, predictor.seconds(config))
    return seconds
