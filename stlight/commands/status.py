"""The verb status."""

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from stlight.commands.common import load, scale_folder


def status(options: argparse.Namespace) -> None:
    """Show every run: waiting, starting, running, interrupted, done, diverged or failed."""
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
    """Return epoch, remaining seconds, reason and place of a run, as far as its state has them."""
    gpus = state.get("gpus") or state.get("device", {}).get("gpus", [])
    words = [f"epoch {state['epoch']}/{state['num_epochs']}"] if state["status"] in ("running", "interrupted") else []
    if state["status"] in ("starting", "running"):
        words.append(f"process {state['pid']} on {state['host']}")
    if state["status"] == "running" and (epoch := state["epoch"]):
        words.append(f"{state['seconds'] / epoch * (state['num_epochs'] - epoch):.0f} s remaining")
    words += [str(state[reason]) for reason in ("error", "why") if reason in state and state["status"] != "running"]
    return ", ".join(words + [f"GPU {gpu}" for gpu in gpus])
