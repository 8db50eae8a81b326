"""What a scale will cost."""

import argparse
import os

from stlight.commands.common import load


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    parser.add_argument("--threads", type=int, default=1, help="threads of a run (1)")
    parser.add_argument("--side-by-side", type=int, help="runs at a time (as many as the cores allow; one on a GPU)")
    parser.add_argument("--flops", type=float, metavar="RATE", help="multiply-adds a second to reckon with, instead of timing")
    parser.add_argument("--budget", type=float, metavar="HOURS", help="say which experiments fit into so many hours")


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    bounds = {"threads": (1, 4096), "side_by_side": (1, 10**6), "flops": (1.0, 1e24), "budget": (1e-6, 1e9)}
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} must be from {low:g} to {high:g}, got {value}")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    plan = load(options)

    import torch

    from stlight.costs.estimate import print_plan

    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    side_by_side = options.side_by_side or (1 if on_gpu else max(1, (os.cpu_count() or 1) // options.threads))
    print_plan(
        plan,
        device=options.device,
        threads=options.threads,
        side_by_side=side_by_side,
        flops_rate=options.flops,
        budget=options.budget,
    )
    return None
