"""Every run of a scale at a glance."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from tabulate import tabulate

from stlight.experiments import Plan, load_plan
from stlight.runs.record import RecordError, read_state


def print_status(plan: Plan, results: Path) -> None:
    """Print a line for each run (waiting, running, done, diverged, failed, …), and how many there are of each."""
    folder = results / plan.scale.name / "runs"
    states = {name: _state(folder / name, config.hash) for name, config in plan.runs.items()}
    print(tabulate([[name, state["status"], _detail(state)] for name, state in states.items()], ["run", "status", ""]))
    counts = Counter(state["status"] for state in states.values())
    print(f"\nscale {plan.scale.name}: {len(states)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()))


def _state(folder: Path, config_hash: str) -> dict[str, Any]:
    try:
        return read_state(folder, config_hash)
    except RecordError as error:
        return {"status": "failed", "error": str(error)}


def _detail(state: dict[str, Any]) -> str:
    gpus = state.get("gpus") or state.get("device", {}).get("gpus", [])
    where = f"GPU {', '.join(gpus)}" if gpus else ""
    words = [str(state["error"])] if state["status"] == "failed" else []
    if state["status"] == "starting":
        return f"process {state['pid']} on {state['host']}, since {state['since']}"
    if state["status"] in ("running", "interrupted"):
        epoch, num_epochs = state["epoch"], state["num_epochs"]
        words.append(f"epoch {epoch}/{num_epochs}")
        if state["status"] == "running":
            words += [f"{state['seconds'] / epoch * (num_epochs - epoch):.0f} s remaining"] if epoch else []
            where = f"{where or 'process ' + str(state['pid'])} on {state['host']}"
        else:
            words.append(str(state["why"]))
    return ", ".join(filter(None, [*words, where]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    print_status(load_plan(options.workflow, options.scale, options.data_root), options.results)
    return None
