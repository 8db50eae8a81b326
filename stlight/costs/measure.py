"""Measure the variants of an experiment in one process, in turns, so that other load on the machine affects all alike."""

import sys
import time
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from stlight.config import RunConfig
from stlight.costs.workload import Workload
from stlight.experiments import Experiment
from stlight.runs.provenance import provenance
from stlight.training.devices import choose_device, configure, describe_device, out_of_memory

_MIN_ROUNDS, _MAX_ROUNDS = 3, 200
# No new round starts after this time.
_SECONDS = 8.0


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
    shown = tqdm(experiment.variants, desc=experiment.name, unit="variant", disable=not sys.stderr.isatty())
    try:
        timers = {f"{variant.dataset}/{variant.name}": _VariantTimer(variant.config, chosen) for variant in shown}
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, chosen) or error from error
    started, rounds = time.perf_counter(), 0
    while rounds < _MIN_ROUNDS or (rounds < _MAX_ROUNDS and time.perf_counter() - started < _SECONDS):
        for timer in timers.values():
            timer.take_turn()
        rounds += 1
    return {
        "device": describe_device(chosen),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "provenance": {name: value for name, value in provenance({}).items() if name != "data"},
        "variants": {name: timer.result() for name, timer in timers.items()},
    }


class _VariantTimer:
    """One variant, warmed up, with its memory known and its times so far."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config = config
        self.workload = Workload(config, device, config.training.batch_size)
        self.peak_memory = self.workload.peak_memory()
        # The first calls load libraries.
        self.workload.step()
        self.workload.predict()
        self.steps: list[float] = []
        self.predictions: list[float] = []

    def take_turn(self) -> None:
        """Time a training step and a prediction."""
        configure(self.config.training)
        self.steps.append(self.workload.seconds(self.workload.step))
        self.predictions.append(self.workload.seconds(self.workload.predict))

    def result(self) -> dict[str, Any]:
        """Return what the file says about this variant."""
        return {
            "config_hash": self.config.hash,
            "kernels": self.workload.kernels,
            "epoch_seconds": median(self.steps) * self.config.steps_per_epoch,
            "clips_per_second": self.config.training.batch_size / median(self.predictions),
            "peak_memory": self.peak_memory,
        }
