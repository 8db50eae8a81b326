"""Measure the variants of an experiment in one process, in turns, so that other load on the machine affects all alike."""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from stlight.config import RunConfig
from stlight.costs.step_memory import peak_growth, resident_bytes
from stlight.costs.workload import Workload
from stlight.experiments import Experiment
from stlight.runs.provenance import provenance
from stlight.training.devices import choose_device, configure, describe_device, out_of_memory

_MIN_ROUNDS, _MAX_ROUNDS = 3, 20
# No new round starts after this time.
_SECONDS = 8.0
# A turn repeats calls that are shorter than this, because timing a single one is too noisy.
_SECONDS_OF_A_TURN = 0.01


def measure(experiment: Experiment, *, device: str = "auto", threads: int = 1) -> dict[str, Any]:
    """Return the content of results/<scale>/speed/<experiment>.json.

    It says where the variants were measured, and for each under `variants`, by `<dataset>/<variant>`: epoch_seconds (median
    seconds of a training step × steps of an epoch), clips_per_second (predicting, at the run's batch size), peak_memory
    (bytes: weights, gradients, optimizer state and the tensors of a step at their peak), kernels and config_hash.

    Raises:
        ValueError: the device does not exist.
        OutOfMemory: a variant does not fit.
    """
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    try:
        return _measure(experiment, chosen)
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, chosen) or error from error


def _measure(experiment: Experiment, device: torch.device) -> dict[str, Any]:
    shown = tqdm(experiment.variants, desc=experiment.name, unit="variant", disable=not sys.stderr.isatty())
    timers = {f"{variant.dataset}/{variant.name}": _VariantTimer(variant.config, device) for variant in shown}
    started, rounds = time.perf_counter(), 0
    while rounds < _MIN_ROUNDS or (rounds < _MAX_ROUNDS and time.perf_counter() - started < _SECONDS):
        for timer in timers.values():
            timer.take_turn()
        rounds += 1
    return {
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "provenance": {name: value for name, value in provenance({}).items() if name != "data"},
        "variants": {name: timer.result() for name, timer in timers.items()},
    }


class _VariantTimer:
    """One variant, warmed up, with its memory known and its times so far."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config = config
        self.workload = Workload(config, device, config.training.batch_size, config.training.accumulation_steps)
        self.functions = (self.workload.step, self.workload.predict)
        self.times: tuple[list[float], list[float]] = ([], [])
        # The first step allocates the optimizer state and loads libraries, which no later step does.
        self.workload.step()
        resident = resident_bytes(self.workload.model, self.workload.optimizer)
        self.peak_memory = resident + peak_growth(self.workload.step, device)
        self.calls = [self._calls(function) for function in self.functions]

    def take_turn(self) -> None:
        """Time training steps and predictions."""
        configure(self.config.training)
        for function, calls, times in zip(self.functions, self.calls, self.times, strict=True):
            times.append(self.workload.seconds(function, calls))

    def result(self) -> dict[str, Any]:
        """Return what the file says about this variant."""
        step, prediction = map(median, self.times)
        return {
            "config_hash": self.config.hash,
            "kernels": self.workload.kernels,
            "epoch_seconds": step * self.config.steps_per_epoch,
            "clips_per_second": self.config.training.batch_size / prediction,
            "peak_memory": self.peak_memory,
        }

    def _calls(self, function: Callable[[], None]) -> int:
        """Time one call and return how many make a turn."""
        return max(1, min(10, int(_SECONDS_OF_A_TURN / self.workload.seconds(function))))
