"""Print what a scale will cost: runs, hours and memory of each experiment."""

import argparse
import os
from typing import TYPE_CHECKING

from stlight.commands.common import check_range, load

if TYPE_CHECKING:
    from stlight.costs.estimate import RunCost
    from stlight.experiments import Experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (default: 1)")
    parser.add_argument("--side-by-side", type=int, help="runs at a time (default: as many as the cores allow, one on a GPU)")
    parser.add_argument("--flops", type=float, metavar="RATE", help="assume RATE multiply-adds per second instead of timing")
    parser.add_argument("--budget", type=float, metavar="HOURS", help="say which experiments fit into HOURS")


def run(options: argparse.Namespace) -> None:
    """Estimate the cost of every run and print a table of experiments, the total, and what fits a budget."""
    for name, low, high in (("threads", 1, 4096), ("side_by_side", 1, 1e6), ("flops", 1, 1e24), ("budget", 1e-6, 1e9)):
        check_range(options, name, low, high)
    # The libraries of torch read this when they are loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    plan = load(options)

    import torch

    from stlight.costs.estimate import estimate_costs, fit_into_budget
    from stlight.training.devices import choose_device

    torch.set_num_threads(options.threads)
    device = torch.device("cpu") if options.flops else choose_device(options.device)
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    side_by_side = options.side_by_side or (1 if on_gpu else max(1, (os.cpu_count() or 1) // options.threads))
    where = f"on {device.type}, {options.threads} thread{'s' * (options.threads > 1)} a run, timed"
    if options.flops:
        where = f"at {options.flops:.3g} multiply-adds a second, as stated"
    costs = estimate_costs(plan, device, options.flops)
    hours = {name: costs[name].hours(config) for name, config in plan.runs.items()}
    shapes = len({id(cost) for cost in costs.values()})
    print(f"scale {plan.scale.name} {where}: {shapes} distinct shapes")
    trained = [e for e in plan.experiments.values() if e.train]
    _print_experiments(trained, costs, hours)
    total = sum(hours.values())
    together = max(total / side_by_side, max(hours.values()))
    print(f"\n{len(hours)} runs, {_duration(total)} of computing; about {_duration(together)} with {side_by_side} side by side")
    if options.budget is not None:
        fits, spent = fit_into_budget(trained, hours, options.budget, side_by_side)
        left_out = [e.name for e in trained if e.name not in fits]
        chosen = f"{', '.join(fits) or 'nothing'} ({_duration(spent)} of computing)"
        print(f"within {options.budget:g} h: {chosen}; left out: {', '.join(left_out) or 'nothing'}")


def _print_experiments(experiments: "list[Experiment]", costs: "dict[str, RunCost]", hours: dict[str, float]) -> None:
    from tabulate import tabulate

    rows = []
    seen: set[str] = set()
    for experiment in experiments:
        names = set(experiment.run_names)
        time, added = (_duration(sum(hours[name] for name in group)) for group in (names, names - seen))
        memory = max(costs[name].memory for name in names) / 2**30
        rows.append([experiment.name, len(names), len(names - seen), time, added, f"{memory:.1f} GiB"])
        seen |= names
    print(
        tabulate(rows, ["experiment", "runs", "not in those above", "time", "time more", "memory a run"], disable_numparse=True)
    )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 100 else f"{hours:.0f} h"
