"""Estimate the cost of a scale before it runs, by timing a few steps of each distinct shape of run on this device."""

import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from tqdm import tqdm

from stlight.config import RunConfig
from stlight.costs.card import Card
from stlight.costs.workload import Workload, seconds_of
from stlight.data import open_dataset
from stlight.experiments import Experiment, Plan
from stlight.metrics import all_metrics
from stlight.model import build_model
from stlight.model.complexity import count_flops
from stlight.registry.model_specs import OURS

# Starting a process, opening its data and writing its record, as measured on two CPU cores.
_START_SECONDS = 3.0
# torch, its libraries and the data of a run.
_PROCESS_BYTES = 400 * 2**20
# A CPU step of more multiply-adds than this is extrapolated from a step of one clip.
_LONG_STEP = 2e10


@dataclass(frozen=True)
class RunCost:
    """Cost of a run's parts: seconds of a training step and of evaluating one clip, and bytes of memory without kernels.

    Timed seconds include those of drawing generated clips and of comparing predictions with clips.
    """

    step_seconds: float
    evaluation_seconds: float
    memory: int

    def hours(self, config: RunConfig) -> float:
        """Return the hours of the whole run."""
        held_out = config.data.validation_clips + config.data.test_clips
        epoch = config.steps_per_epoch * self.step_seconds + held_out * self.evaluation_seconds
        return (_START_SECONDS + config.training.num_epochs * epoch) / 3600


def estimate_costs(plan: Plan, device: torch.device, flops_rate: float | None, card: Card | None = None) -> dict[str, RunCost]:
    """Return the cost of each run of a plan; runs of one shape share an object.

    `flops_rate`, multiply-adds per second, or what was measured on a `card`, replaces timing on `device`.
    """
    shapes: dict[str, RunCost] = {}
    costs: dict[str, RunCost] = {}
    for name, config in tqdm(plan.runs.items(), desc="shapes of runs", unit="run", disable=not sys.stderr.isatty()):
        model = config.model.model_dump_json(exclude={"initialization"})
        training = config.training.model_dump_json(include={"batch_size", "precision", "tf32", "kernels", "cuda_graphs"})
        shape = f"{config.data.dataset} {config.data.source} {config.clip_shape} {model} {training}"
        if shape not in shapes:
            shapes[shape] = _cost(config, device, flops_rate, card)
        costs[name] = shapes[shape]
    return costs


def fit_into_budget(
    experiments: list[Experiment], hours: dict[str, float], budget: float, side_by_side: int
) -> tuple[list[str], float]:
    """Choose experiments for `budget` hours with `side_by_side` runs at a time: always the one that adds least next.

    Runs shared with a chosen experiment add nothing. `hours` gives the hours of each run by its name.
    Returns the names of the chosen experiments and the hours that they compute.
    """
    waiting = {e.name: set(e.run_names) for e in experiments if max(hours[run] for run in e.run_names) <= budget}
    fits: list[str] = []
    spent = 0.0
    while waiting:
        added = {name: sum(hours[run] for run in runs) for name, runs in waiting.items()}
        cheapest = min(added, key=added.__getitem__)
        if spent + added[cheapest] > budget * side_by_side:
            break
        fits.append(cheapest)
        spent += added[cheapest]
        bought = waiting.pop(cheapest)
        waiting = {name: runs - bought for name, runs in waiting.items()}
    return fits, spent


def time_steps(config: RunConfig, device: torch.device, clips: int, repeats: int = 3) -> RunCost:
    """Time `repeats` training steps and predictions on `clips` clips of noise, and compute the memory of whole batches."""
    # Comparing kernels on a CPU would take longer than the steps timed here; there the first that works is the fastest.
    workload = Workload(config, device, clips, race=device.type == "cuda")
    step = median(workload.seconds(workload.step) for _ in range(repeats))
    evaluation = median(workload.seconds(workload.predict) for _ in range(repeats)) / clips
    return RunCost(step * config.training.batch_size / clips, evaluation, _memory(config))


def time_clips(config: RunConfig, device: torch.device, clips: int = 8) -> tuple[float, float]:
    """Return the seconds of drawing a clip and of comparing a prediction with it, timed on `clips` clips.

    Clips of KTH's stand-in take several times as long as a small model's step on them. Clips from files count as 0, because
    they may not be there, and embedded digits, because pasting them takes little.
    """
    shape, drawing = config.clip_shape, 0.0
    if config.data.source == "stand_in":
        dataset, _ = open_dataset(config.data, Path(), device=device)
        drawing = seconds_of(lambda: dataset.clips("train", torch.arange(clips, device=dataset.index_device)), device) / clips
    size = (clips, shape.horizon_frames, shape.channels, shape.height, shape.width)
    one, other = torch.rand(size, device=device), torch.rand(size, device=device)
    return drawing, seconds_of(lambda: all_metrics(one, other), device) / clips


def gpu_bytes(cost: RunCost) -> int:
    """Return the bytes of a run's tensors, which lie on the GPU if there is one."""
    return cost.memory - _PROCESS_BYTES


def slots_for(plan: Plan, device_rate: Path) -> int:
    """Return how many of a plan's largest runs fit on a card at a time; 1 also if none is known to fit.

    `device_rate` is the file that the GPU benchmark wrote. Raises `ValueError` if it is not.
    """
    card = Card.load(device_rate)
    once = plan.with_seeds(dict.fromkeys(plan.seeds, 1))
    largest = max(gpu_bytes(cost) for cost in estimate_costs(once, torch.device("cpu"), None, card).values())
    return card.slots(largest) or 1


def _cost(config: RunConfig, device: torch.device, flops_rate: float | None, card: Card | None) -> RunCost:
    with torch.device("meta"):
        shape = config.clip_shape
        clip_flops = count_flops(build_model(config.model, shape, dataset=config.data.dataset), shape)
    clips = config.training.batch_size
    # The loss of another model is not always that of a prediction. The backward pass costs about two forward passes.
    ours = config.model.model == OURS
    step_flops = clips * (3 * clip_flops if ours else Workload(config, torch.device("meta"), clips=1, race=False).step_flops())
    if card:
        return RunCost(*card.seconds(config, step_flops), _memory(config))
    if flops_rate:
        return RunCost(step_flops / flops_rate, clip_flops / flops_rate, _memory(config))
    cost, (drawing, comparing) = _timed(config, device, step_flops), time_clips(config, device)
    return RunCost(cost.step_seconds + clips * drawing, cost.evaluation_seconds + drawing + comparing, cost.memory)


def _timed(config: RunConfig, device: torch.device, step_flops: int) -> RunCost:
    if device.type == "cuda" or step_flops < _LONG_STEP:
        return time_steps(config, device, config.training.batch_size)
    if config.model.model != OURS:
        return time_steps(config, device, clips=1, repeats=1)
    # Every mixer takes the same time, so two shallow models tell that of a deep one.
    shallow = (config.model_copy(update={"model": config.model.model_copy(update={"depth": depth})}) for depth in (1, 3))
    few, more = (time_steps(model, device, clips=1, repeats=1) for model in shallow)
    deeper = (config.model.depth - 1) / 2
    step = few.step_seconds + deeper * (more.step_seconds - few.step_seconds)
    evaluation = few.evaluation_seconds + deeper * (more.evaluation_seconds - few.evaluation_seconds)
    return RunCost(step, evaluation, _memory(config))


def _memory(config: RunConfig) -> int:
    """Return the bytes of a run, without computing it. STLight's compiled kernels need less than the modules counted here."""
    workload = Workload(config, torch.device("meta"), config.training.batch_size, race=False)
    return _PROCESS_BYTES + workload.peak_memory()
