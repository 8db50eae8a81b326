"""The verb plan."""

import argparse
import os
from typing import TYPE_CHECKING

from stlight.commands.common import argument, check_range, load

if TYPE_CHECKING:
    from stlight.costs.estimate import RunCost
    from stlight.experiments import Plan


@argument("--side-by-side", type=int, help="runs at a time (default: as many as the cores allow, one on a GPU)")
@argument("--flops", type=float, metavar="RATE", help="assume RATE multiply-adds per second instead of timing")
@argument("--budget", type=float, metavar="HOURS", help="say which experiments fit into HOURS")
def plan(options: argparse.Namespace) -> None:
    """Print what a scale will cost: runs, hours and memory of each experiment."""
    for name, low, high in (("side_by_side", 1, 1e6), ("flops", 1, 1e24), ("budget", 1e-6, 1e9)):
        check_range(options, name, low, high)
    loaded = load(options)

    import torch

    from stlight.costs.estimate import estimate_costs, fit_into_budget
    from stlight.training.devices import choose_device

    torch.set_num_threads(options.threads)
    device = torch.device("cpu") if options.flops else choose_device(options.device)
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    side_by_side = options.side_by_side or (1 if on_gpu else max(1, (os.cpu_count() or 1) // options.threads))
    if options.flops:
        where = f"at {options.flops:.3g} multiply-adds a second, as stated"
    else:
        where = f"on {torch.cuda.get_device_name(device) if on_gpu else f'this CPU, threads: {options.threads}'}, timed"

    costs = estimate_costs(loaded, device, options.flops)
    hours = {name: costs[name].hours(config) for name, config in loaded.runs.items()}
    shapes = len({id(cost) for cost in costs.values()})
    print(f"scale {loaded.scale.name} {where}: {shapes} distinct shapes")
    _print_experiments(loaded, costs, hours, side_by_side)
    if options.budget is not None:
        trained = [e for e in loaded.experiments.values() if e.train]
        budget = fit_into_budget(trained, hours, options.budget, side_by_side)
        left_out = [*budget.left_out, *(f"{name} (a single run takes longer)" for name in budget.too_long)]
        fits = f"{', '.join(budget.fits) or 'nothing'} ({_duration(budget.hours)} of computing)"
        print(f"within {options.budget:g} h: {fits}; left out: {', '.join(left_out) or 'nothing'}")


def _print_experiments(loaded: "Plan", costs: "dict[str, RunCost]", hours: dict[str, float], side_by_side: int) -> None:
    from tabulate import tabulate

    seen: set[str] = set()
    rows = []
    asked = shared = 0.0
    for experiment in (e for e in loaded.experiments.values() if e.train):
        names = set(experiment.run_names)
        time, added = (sum(hours[name] for name in group) for group in (names, names - seen))
        memory = max(costs[name].memory for name in names) / 2**30
        new = len(names - seen)
        rows.append([experiment.name, len(names), new, _duration(time), _duration(added), f"{memory:.1f} GiB"])
        asked, shared = asked + time, shared + len(names) - new
        seen |= names
    head = ["experiment", "runs", "not in those above", "time", "time more", "memory a run"]
    print(tabulate(rows, head, disable_numparse=True))
    total = sum(hours.values())
    together = max(total / side_by_side, max(hours.values()))
    print(f"\n{len(hours)} runs, {_duration(total)} of computing; about {_duration(together)} with {side_by_side} side by side")
    print(f"runs that experiments share: {shared:.0f}, which saves {_duration(asked - total)}")


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 100 else f"{hours:.0f} h"
