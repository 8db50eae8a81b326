"""What a scale will cost, before it is launched: a few steps of each distinct shape are timed on the device in hand."""

import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from statistics import median

import torch
from tabulate import tabulate
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from tqdm import tqdm

from stlight.config import ModelConfig, RunConfig
from stlight.experiments import Experiment, Plan
from stlight.kernels import accelerate
from stlight.model import TrainingStep, build_model
from stlight.model.complexity import count_flops
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.model_specs import OURS
from stlight.training.devices import accelerate_for_run, autocast, choose_device, configure
from stlight.training.loop import flatten_weights, take_step

# A process's start, its first look at the data, its record: seen on two CPU cores.
SECONDS_OF_A_START = 3.0
# torch, its libraries and the data of a run.
BYTES_OF_A_PROCESS = 400 * 2**20

# On a CPU, a step of more multiply-adds than this is not timed in full: one clip is, at two depths, and the rest follows.
_LONG_STEP = 2e10


# A model of fewer weights is run to count its multiply-adds.
_FEW_WEIGHTS = 10**6


@dataclass(frozen=True)
class Cost:
    """Of one run's shape: seconds of a training step and of evaluating a clip, and bytes of memory."""

    step: float
    evaluation: float
    memory: float

    def run(self, config: RunConfig) -> float:
        """Seconds of a whole run."""
        held_out = config.data.validation_clips + config.data.test_clips
        training = config.training.num_epochs * config.steps_per_epoch * self.step
        return SECONDS_OF_A_START + training + config.training.num_epochs * held_out * self.evaluation


def print_plan(
    plan: Plan, *, device: str, threads: int, side_by_side: int, flops_rate: float | None = None, budget: float | None = None
) -> None:
    """Print runs, hours and memory for each experiment and in all, what deduplication saves, and what fits a budget in hours.

    `flops_rate` (multiply-adds a second) replaces timing; `side_by_side` runs share the hours of the whole.
    """
    torch.set_num_threads(threads)
    chosen = torch.device("cpu") if flops_rate else choose_device(device)
    shapes: dict[str, Cost] = {}
    costs: dict[str, Cost] = {}
    for name, config in tqdm(plan.runs.items(), desc="shapes of runs", unit="run", disable=not sys.stderr.isatty()):
        key = _shape(config)
        if key not in shapes:
            shapes[key] = _stated(config, flops_rate) if flops_rate else _timed(config, chosen)
        costs[name] = shapes[key]
    hours = {name: costs[name].run(config) / 3600 for name, config in plan.runs.items()}

    trained = [e for e in plan.experiments.values() if e.train]
    seen: set[str] = set()
    rows = []
    for experiment in trained:
        names = set(experiment.run_names)
        memory = max(costs[name].memory for name in names) / 2**30
        times = [_duration(sum(hours[n] for n in group)) for group in (names, names - seen)]
        rows.append([experiment.name, len(names), len(names - seen), *times, f"{memory:.1f} GiB"])
        seen |= names
    where = f"at {flops_rate:.3g} multiply-adds a second, as stated" if flops_rate else f"on {_where(chosen, threads)}, timed"
    print(f"scale {plan.scale.name} {where}: {len(shapes)} distinct shapes")
    head = ["experiment", "runs", "not in those above", "time", "time more", "memory a run"]
    print(tabulate(rows, head, disable_numparse=True))
    total, asked = sum(hours.values()), sum(hours[name] for e in trained for name in set(e.run_names))
    together = max(total / side_by_side, max(hours.values()))
    print(f"\n{len(hours)} runs, {_duration(total)} of computing; about {_duration(together)} with {side_by_side} side by side")
    shared = sum(len(set(e.run_names)) for e in trained) - len(hours)
    print(f"runs that experiments share: {shared}, which saves {_duration(asked - total)}")
    if budget is not None:
        _print_budget(trained, hours, budget * side_by_side, budget)


def _print_budget(trained: list[Experiment], hours: dict[str, float], available: float, budget: float) -> None:
    """Experiments that fit together, taking at each turn the one that adds least."""
    waiting, fits, too_long, bought, spent = list(trained), [], [], Counter[str](), 0.0
    while waiting:
        added = {e.name: sum(hours[n] for n in set(e.run_names) if not bought[n]) for e in waiting}
        cheapest = min(waiting, key=lambda e: added[e.name])
        if spent + added[cheapest.name] > available:
            break
        waiting.remove(cheapest)
        if max(hours[n] for n in cheapest.run_names) > budget:
            too_long.append(cheapest.name)
            continue
        spent += added[cheapest.name]
        bought.update(cheapest.run_names)
        fits.append(cheapest.name)
    left = ", ".join([*(e.name for e in waiting), *(f"{name} (a single run takes longer)" for name in too_long)]) or "nothing"
    print(f"within {budget:g} h: {', '.join(fits) or 'nothing'} ({_duration(spent)} of computing); left out: {left}")


def _shape(config: RunConfig) -> str:
    """What the cost of a step depends on, as a key."""
    model = config.model.model_dump_json(exclude={"initialization"})
    training = config.training.model_dump_json(include={"batch_size", "precision", "tf32", "kernels", "cuda_graphs"})
    return f"{config.data.dataset} {model} {training}"


def _stated(config: RunConfig, rate: float) -> Cost:
    forward = _forward_flops(config) / rate
    return Cost(3 * config.training.batch_size * forward, forward, _estimated_memory(config))


def _estimated_memory(config: RunConfig) -> float:
    """Bytes: weights with their gradients and Adam's moments, and five activations a mixer, four kept and one on its way."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in build_model(config.model, config.clip_shape).parameters())
    shape, model = config.clip_shape, config.model
    if model.model != OURS:
        return BYTES_OF_A_PROCESS + 16.0 * weights + _saved_by_a_clip(model, shape) * config.training.batch_size
    patches = config.training.batch_size * shape.height * shape.width // model.patch_size**2
    return BYTES_OF_A_PROCESS + 4.0 * (4 * weights + 5 * model.depth * model.hidden_dim * patches)


def _timed(config: RunConfig, device: torch.device) -> Cost:
    configure(config.training)
    work = 3 * config.training.batch_size * _forward_flops(config)
    if device.type == "cuda" or work < _LONG_STEP:
        return _measured(config, device, config.training.batch_size)
    clips = config.training.batch_size
    if config.model.model != OURS:
        one = _measured(config, device, 1, repeats=1)
        return Cost(clips * one.step, one.evaluation, _estimated_memory(config))
    # All mixers cost the same and all clips do: a line through two depths, of one clip.
    depths = (1, 3)
    (a, b) = (_measured(_with_depth(config, depth), device, 1, repeats=1) for depth in depths)
    more = (config.model.depth - depths[0]) / (depths[1] - depths[0])
    step = clips * (a.step + more * (b.step - a.step))
    return Cost(step, a.evaluation + more * (b.evaluation - a.evaluation), _estimated_memory(config))


def _forward_flops(config: RunConfig) -> int:
    return _flops_of(config.model, config.clip_shape)


@cache
def _flops_of(config: ModelConfig, shape: ClipShape) -> int:
    with torch.device("meta"):
        model = build_model(config, shape)
    # Without computing anything, which takes longer for what is small.
    small = sum(p.numel() for p in model.parameters()) < _FEW_WEIGHTS
    return count_flops(model.to_empty(device="cpu") if small else model, shape)


def _with_depth(config: RunConfig, depth: int) -> RunConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"depth": depth})})


def _measured(config: RunConfig, device: torch.device, clips: int, repeats: int = 3) -> Cost:
    """A few steps on clips of noise."""
    shape, recipe = config.clip_shape, config.training
    model = build_model(config.model, shape).to(device)
    # On a CPU the first way that serves is the fastest, and comparing them would take longer than what is asked here.
    if device.type == "cuda":
        accelerate_for_run(model, config, device)
    else:
        accelerate(model, config.training.kernels)
    optimizer = torch.optim.Adam([flatten_weights(model)], fused=True)
    generator = torch.Generator().manual_seed(0)
    size = (clips, shape.context_frames + shape.horizon_frames, shape.channels, shape.height, shape.width)
    clip = torch.rand(size, generator=generator).to(device)

    def step() -> None:
        take_step(model.train(), optimizer, clip, shape.context_frames, recipe)

    @torch.no_grad()
    def evaluate() -> None:
        with autocast(device, recipe):
            model.eval()(clip[:, : shape.context_frames])

    saved = _saved_bytes(step)
    seconds = _median_seconds(step, device, repeats)
    evaluation = _median_seconds(evaluate, device, repeats) / clips
    weights = sum(p.numel() for p in model.parameters())
    return Cost(seconds, evaluation, BYTES_OF_A_PROCESS + 16 * weights + saved)


@cache
def _saved_by_a_clip(config: ModelConfig, shape: ClipShape) -> int:
    """What the backward pass of a baseline keeps for one clip, told without computing it."""
    frames = (shape.channels, shape.height, shape.width)
    with torch.device("meta"):
        model = build_model(config, shape).train()
        context, target = (torch.zeros((1, n, *frames)) for n in (shape.context_frames, shape.horizon_frames))
    step = TrainingStep.at(index=1, sampling_steps=1, seed=0)
    return _saved_bytes(lambda: model.training_loss(context, target, step))


def _saved_bytes(step: Callable[[], object]) -> int:
    """What the backward pass of a step keeps, each storage once."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Not its address, which storages on "meta" do not have.
        storages[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storages.values())


def _median_seconds(function: Callable[[], None], device: torch.device, repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times)


def _where(device: torch.device, threads: int) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"this CPU, {threads} thread{'s' * (threads > 1)} a run"


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 100 else f"{hours:.0f} h"
