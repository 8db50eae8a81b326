"""Show every run: waiting, starting, running, interrupted, done, diverged or failed."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from stlight.commands.common import load, scale_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare nothing: the options that all verbs have are enough."""


def run(options: argparse.Namespace) -> None:
    """Print one line for each run, and how many runs have each status."""
    from tabulate import tabulate

    plan, folder = load(options), scale_folder(options) / "runs"
    states = {name: _state(folder / name, config.hash) for name, config in plan.runs.items()}
    print(tabulate([[name, state["status"], _detail(state)] for name, state in states.items()], ["run", "status", ""]))
    counts = Counter(state["status"] for state in states.values())
    print(f"\nscale {plan.scale.name}: {len(states)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()))


def _state(folder: Path, config_hash: str) -> dict[str, Any]:
    from stlight.runs.record import RecordError
    from stlight.runs.state import read_state

    try:
        return read_state(folder, config_hash)
    except RecordError as error:
        return {"status": "failed", "error": str(error)}


def _detail(state: dict[str, Any]) -> str:
    """Return epoch, remaining seconds, reason and place of a run, as far as its status has them."""
    gpus = state.get("gpus") or state.get("device", {}).get("gpus", [])
    place = f"GPU {', '.join(gpus)}" if gpus else ""
    match state["status"]:
        case "starting":
            return f"process {state['pid']} on {state['host']}, since {state['since']}"
        case "failed":
            words = [str(state["error"])]
        case "running":
            epoch, num_epochs = state["epoch"], state["num_epochs"]
            words = [f"epoch {epoch}/{num_epochs}"]
            words += [f"{state['seconds'] / epoch * (num_epochs - epoch):.0f} s remaining"] if epoch else []
            place = f"{place or 'process ' + str(state['pid'])} on {state['host']}"
        case "interrupted":
            words = [f"epoch {state['epoch']}/{state['num_epochs']}", str(state["why"])]
        case _:
            words = []
    return ", ".join(filter(None, [*words, place]))
