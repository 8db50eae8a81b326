"""The verb that makes the next round of a budget, and what `plan` says of a budget beforehand."""

import argparse
from typing import TYPE_CHECKING

from stlight.commands.common import argument, check_range, load_static, scale_folder, tell, with_rounds

if TYPE_CHECKING:
    from stlight.analysis.values import Values
    from stlight.experiments import Plan
    from stlight.runs.rounds import Round


@argument("number", type=int, help="number of the round, from 1; all earlier ones must be there")
@argument("--hours", type=float, required=True, help="the budget in core hours, which includes the earlier rounds")
def allocate(options: argparse.Namespace) -> None:
    """Choose the runs of the next round of a budget."""
    from stlight.analysis.rounds import next_round
    from stlight.runs.rounds import write_round

    check_range(options, "number", 1)
    check_range(options, "hours", 1e-6)
    plan, rounds = with_rounds(load_static(options), options, last=options.number - 1)
    if len(rounds) < options.number - 1 or (rounds and rounds[-1].stop):
        raise ValueError(f"round {options.number} cannot be made: {len(rounds)} earlier rounds are there, the last must go on")
    values = load_values(plan, options)
    for name, one in values.items():
        if one.evidence.missing:
            run, why = next(iter(one.evidence.missing.items()))
            raise ValueError(f"{name}: round {options.number} waits for {run}: {why}")
    found = next_round(plan, values, rounds, estimates(plan, rounds, options), options.hours)
    write_round(scale_folder(options), found)
    tell(f"round {found.number}: {found.reason}")


def print_rounds(options: argparse.Namespace) -> None:
    """Print the rounds of a budget: those that are there, and those to expect."""
    from tabulate import tabulate

    from stlight.analysis.allocation import PRIOR
    from stlight.analysis.rounds import forecast, rounds_table

    plan, rounds = with_rounds(load_static(options), options)
    if rounds and not rounds[-1].stop:
        # Its runs may not be there yet, so the next round cannot be foreseen from them.
        plan, rounds = with_rounds(load_static(options), options, last=len(rounds) - 1)
    values = load_values(plan, options)
    if rounds:
        print(tabulate(rounds_table(rounds), "keys", disable_numparse=True), end="\n\n")
    rows = forecast(plan, values, estimates(plan, rounds, options), options.hours)
    print(f"scale {plan.scale.name}, {options.hours:g} core hours: rounds to expect")
    print(tabulate(rows, "keys", floatfmt=".2f") if rows else "none: everything is settled or hopeless, or the budget is spent")
    if any(row["unseen"] for row in rows):
        print(f"A look at a sentence without data is assumed to settle it with a chance of {PRIOR:.0%}.")


def load_values(plan: "Plan", options: argparse.Namespace) -> "dict[str, Values]":
    """Load the numbers of all experiments."""
    from stlight.analysis.evidence import load_evidence
    from stlight.analysis.values import Values

    return {name: Values(evidence) for name, evidence in load_evidence(plan, scale_folder(options)).items()}


def estimates(plan: "Plan", rounds: "list[Round]", options: argparse.Namespace) -> dict[str, float]:
    """Return the estimated seconds of a run of each cell: those of the first round if there is one, or timed on this device."""
    if rounds:
        return rounds[0].estimates

    from stlight.runtime import gpu_lease

    once = plan.with_seeds(dict.fromkeys(plan.seeds, 1))
    # Lease a GPU before torch is loaded, because torch then sees only that GPU.
    with gpu_lease.leased(0 if options.device == "cpu" else 1, options.slots_per_gpu, tell):
        import torch

        from stlight.costs.estimate import estimate_costs
        from stlight.training.devices import choose_device

        torch.set_num_threads(options.threads)
        costs = estimate_costs(once, choose_device(options.device), None)
    return {name.rpartition("/")[0]: costs[name].hours(config) * 3600 for name, config in once.runs.items()}
