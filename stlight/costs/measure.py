"""An experiment's variants measured in one process, turn by turn, so that what else the machine does falls on all alike."""

import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from stlight.config import RunConfig
from stlight.costs.step_memory import growth, resident_bytes
from stlight.experiments import Experiment
from stlight.kernels import backend_of
from stlight.model import build_model
from stlight.runs.provenance import provenance
from stlight.training.devices import accelerate_for_run, choose_device, configure, describe_device
from stlight.training.loop import flatten_weights, predictor, take_step
from stlight.training.out_of_memory import out_of_memory

# Rounds go on until there are so many of them, or so many seconds are over; there are never fewer than the least.
_ROUNDS = (3, 20)
_SECONDS = 8.0
# A turn is several calls where one is shorter than this: a clock and a cold cache say little of a millisecond.
_SECONDS_OF_A_TURN = 0.01


def measure(experiment: Experiment, *, device: str = "auto", threads: int = 1) -> dict[str, Any]:
    """What results/<scale>/speed/<experiment>.json holds: where it was measured, and `variants`, by `<dataset>/<variant>`.

    Each variant has epoch_seconds (median seconds of a training step × steps of an epoch), clips_per_second (of predicting, at
    the run's batch size), peak_memory (bytes: weights, gradients, moments and the step's own tensors at their peak), kernels,
    and the hash of its configuration. Raises `ValueError` for a device that is not there, `OutOfMemory` where it does not fit.
    """
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    try:
        return _measure(experiment, chosen)
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, chosen) or error from error


def _measure(experiment: Experiment, device: torch.device) -> dict[str, Any]:
    shown = tqdm(experiment.variants, desc=experiment.name, unit="variant", disable=not sys.stderr.isatty())
    sides = {f"{variant.dataset}/{variant.name}": _Side(variant.config, device) for variant in shown}
    started, rounds = time.perf_counter(), 0
    while rounds < _ROUNDS[0] or (rounds < _ROUNDS[1] and time.perf_counter() - started < _SECONDS):
        for side in sides.values():
            side.take_turn()
        rounds += 1
    made = {name: value for name, value in provenance({}).items() if name != "data"}
    return {
        "device": describe_device(device),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "provenance": made,
        "variants": {name: side.result() for name, side in sides.items()},
    }


class _Side:
    """One variant on clips of noise, warmed up, its memory known."""

    def __init__(self, config: RunConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        recipe, shape = config.training, config.clip_shape
        configure(recipe)
        model = build_model(config.model, shape).to(device)
        accelerate_for_run(model, config, device)
        self.kernels = backend_of(model)
        # Without a rate the weights stay as they were drawn, so that every step is the same work.
        optimizer = torch.optim.Adam([flatten_weights(model)], lr=0.0, fused=True)
        size = (recipe.batch_size, shape.context_frames + shape.horizon_frames, shape.channels, shape.height, shape.width)
        clip = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)

        def step() -> None:
            take_step(model.train(), optimizer, clip, shape.context_frames, recipe, recipe.accumulation_steps)

        @torch.no_grad()
        def predict() -> None:
            predictor(model, device, recipe)(clip[:, : shape.context_frames])

        self.sides = (step, predict)
        self.times: tuple[list[float], list[float]] = ([], [])
        # The first step makes the moments, and loads what a later one finds loaded.
        step()
        self.peak_memory = resident_bytes(model, optimizer) + growth(step, device)
        self.calls = [self._calls(function) for function in self.sides]

    def take_turn(self) -> None:
        """Time training steps, and predictions."""
        configure(self.config.training)
        for function, calls, times in zip(self.sides, self.calls, self.times, strict=True):
            times.append(self._seconds(function, calls))

    def result(self) -> dict[str, Any]:
        """What the record says of this variant."""
        step, prediction = map(median, self.times)
        return {
            "config_hash": self.config.hash,
            "kernels": self.kernels,
            "epoch_seconds": step * self.config.steps_per_epoch,
            "clips_per_second": self.config.training.batch_size / prediction,
            "peak_memory": self.peak_memory,
        }

    def _calls(self, function: Callable[[], None]) -> int:
        """Calls in a turn, by the time of one."""
        return max(1, min(10, int(_SECONDS_OF_A_TURN / self._seconds(function, 1))))

    def _seconds(self, function: Callable[[], None], calls: int) -> float:
        """Of one call, to the end of what it started on the device."""
        started = time.perf_counter()
        for _ in range(calls):
            function()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - started) / calls
