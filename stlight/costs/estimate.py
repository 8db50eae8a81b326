"""Estimate the cost of a scale before it runs, by timing a few steps of each distinct shape of run on this device."""

import sys
from collections import Counter
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch
from tqdm import tqdm

from stlight.config import ModelConfig, RunConfig
from stlight.costs.step_memory import saved_bytes
from stlight.costs.workload import Workload
from stlight.experiments import Experiment, Plan
from stlight.model import TrainingStep, build_model
from stlight.model.complexity import count_flops
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import OURS
from stlight.training.devices import configure

# Starting a process, opening its data and writing its record, as measured on two CPU cores.
_START_SECONDS = 3.0
# torch, its libraries and the data of a run.
_PROCESS_BYTES = 400 * 2**20
# A CPU step of more multiply-adds than this is extrapolated from a step of one clip.
_LONG_STEP = 2e10
# Running a model of fewer weights counts its multiply-adds faster than "meta" tensors do.
_FEW_WEIGHTS = 10**6


@dataclass(frozen=True)
class RunCost:
    """Cost of a run's parts: seconds of a training step and of evaluating one clip, and bytes of memory."""

    step_seconds: float
    evaluation_seconds: float
    memory: float

    def hours(self, config: RunConfig) -> float:
        """Return the hours of the whole run."""
        held_out = config.data.validation_clips + config.data.test_clips
        epoch = config.steps_per_epoch * self.step_seconds + held_out * self.evaluation_seconds
        return (_START_SECONDS + config.training.num_epochs * epoch) / 3600


@dataclass(frozen=True)
class Budget:
    """Names of the experiments that fit, those with a run longer than the budget, the others, and the hours spent."""

    fits: list[str]
    too_long: list[str]
    left_out: list[str]
    hours: float


def estimate_costs(plan: Plan, device: torch.device, flops_rate: float | None) -> dict[str, RunCost]:
    """Return the cost of each run; runs of one shape share an object.

    Args:
        plan: The runs of a scale.
        device: Where steps are timed.
        flops_rate: Multiply-adds per second. If given, it replaces timing.
    """
    shapes: dict[str, RunCost] = {}
    costs: dict[str, RunCost] = {}
    for name, config in tqdm(plan.runs.items(), desc="shapes of runs", unit="run", disable=not sys.stderr.isatty()):
        model = config.model.model_dump_json(exclude={"initialization"})
        training = config.training.model_dump_json(include={"batch_size", "precision", "tf32", "kernels", "cuda_graphs"})
        shape = f"{config.data.dataset} {model} {training}"
        if shape not in shapes:
            shapes[shape] = _computed_cost(config, flops_rate) if flops_rate else _timed_cost(config, device)
        costs[name] = shapes[shape]
    return costs


def fit_into_budget(experiments: list[Experiment], hours: dict[str, float], budget: float, side_by_side: int) -> Budget:
    """Choose experiments for `budget` hours with `side_by_side` runs at a time: always the one that adds least next.

    Runs shared with a chosen experiment add nothing. `hours` gives the hours of each run by its name.
    """
    waiting, fits, too_long, bought, spent = list(experiments), [], [], Counter[str](), 0.0
    while waiting:
        added = {e.name: sum(hours[n] for n in set(e.run_names) if not bought[n]) for e in waiting}
        cheapest = min(waiting, key=lambda e: added[e.name])
        if spent + added[cheapest.name] > budget * side_by_side:
            break
        waiting.remove(cheapest)
        if max(hours[n] for n in cheapest.run_names) > budget:
            too_long.append(cheapest.name)
            continue
        spent += added[cheapest.name]
        bought.update(cheapest.run_names)
        fits.append(cheapest.name)
    return Budget(fits, too_long, [e.name for e in waiting], spent)


def time_steps(config: RunConfig, device: torch.device, clips: int, repeats: int = 3) -> RunCost:
    """Time `repeats` training steps and predictions on `clips` clips of noise."""
    # Comparing kernels on a CPU would take longer than the steps timed here; there the first that works is the fastest.
    workload = Workload(config, device, clips, race=device.type == "cuda")
    saved = saved_bytes(workload.step)
    step = median(workload.seconds(workload.step) for _ in range(repeats))
    evaluation = median(workload.seconds(workload.predict) for _ in range(repeats)) / clips
    weights = sum(p.numel() for p in workload.model.parameters())
    return RunCost(step, evaluation, _PROCESS_BYTES + 16 * weights + saved)


def _timed_cost(config: RunConfig, device: torch.device) -> RunCost:
    configure(config.training)
    clips = config.training.batch_size
    if device.type == "cuda" or 3 * clips * _prediction_flops(config.model, config.clip_shape) < _LONG_STEP:
        return time_steps(config, device, clips)
    if config.model.model != OURS:
        one = time_steps(config, device, 1, repeats=1)
        return RunCost(clips * one.step_seconds, one.evaluation_seconds, _computed_memory(config))
    # Every mixer takes the same time, and so does every clip: extrapolate from one clip at two depths.
    depths = (1, 3)
    a, b = (time_steps(_with_depth(config, depth), device, 1, repeats=1) for depth in depths)
    more = (config.model.depth - depths[0]) / (depths[1] - depths[0])
    step = clips * (a.step_seconds + more * (b.step_seconds - a.step_seconds))
    evaluation = a.evaluation_seconds + more * (b.evaluation_seconds - a.evaluation_seconds)
    return RunCost(step, evaluation, _computed_memory(config))


def _with_depth(config: RunConfig, depth: int) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"depth": depth})})


def _computed_cost(config: RunConfig, flops_rate: float) -> RunCost:
    prediction = _prediction_flops(config.model, config.clip_shape) / flops_rate
    # The backward pass costs about two forward passes.
    return RunCost(3 * config.training.batch_size * prediction, prediction, _computed_memory(config))


def _computed_memory(config: RunConfig) -> float:
    """Return bytes: weights, gradients and Adam's two moments, and for each mixer of STLight five activations."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in build_model(config.model, config.clip_shape).parameters())
    shape, model, clips = config.clip_shape, config.model, config.training.batch_size
    if model.model != OURS:
        return _PROCESS_BYTES + 16.0 * weights + _saved_by_one_clip(model, shape) * clips
    patches = clips * shape.height * shape.width // model.patch_size**2
    return _PROCESS_BYTES + 4.0 * (4 * weights + 5 * model.depth * model.hidden_dim * patches)


@cache
def _prediction_flops(config: ModelConfig, shape: ClipShape) -> int:
    """Return the multiply-adds of predicting one clip."""
    with torch.device("meta"):
        model = build_model(config, shape)
    small = sum(p.numel() for p in model.parameters()) < _FEW_WEIGHTS
    return count_flops(model.to_empty(device="cpu") if small else model, shape)


@cache
def _saved_by_one_clip(config: ModelConfig, shape: ClipShape) -> int:
    """Return the bytes that a baseline keeps for the backward pass of one clip, without computing it."""
    frames = (shape.channels, shape.height, shape.width)
    with torch.device("meta"):
        model = build_model(config, shape).train()
        context, target = (torch.zeros((1, n, *frames)) for n in (shape.context_frames, shape.horizon_frames))
    step = TrainingStep.at(index=1, sampling_steps=1, seed=0)
    return saved_bytes(lambda: model.training_loss(context, target, step))
