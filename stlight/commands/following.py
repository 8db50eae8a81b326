"""The verb status: show the runs of a scale, follow it on one screen, or print its state as JSON."""

import argparse
import os
import shutil
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stlight.commands.common import argument, check_range, load, scale_folder

if TYPE_CHECKING:
    from stlight.costs.overview import Overview


@argument("--watch", type=float, nargs="?", const=5.0, metavar="SECONDS", help="follow the scale, by default every 5 seconds")
@argument("--json", action="store_true", help="print progress, remaining time, items and failures as one line of JSON")
def status(options: argparse.Namespace) -> None:
    """Show every run: waiting, starting, running, interrupted, done, diverged or failed. Or follow the whole scale."""
    check_range(options, "watch", 0.1)
    if options.watch is None and not options.json:
        _list_runs(options)
        return
    # Each look frees what it made, and a watch may last for days.
    import gc

    gc.enable()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        _follow(options)
    except KeyboardInterrupt:
        print(file=sys.stderr)
    except BrokenPipeError:
        # Whoever read the output has enough. Python would complain once more when it flushes stdout at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        signal.signal(signal.SIGINT, before)


def _follow(options: argparse.Namespace) -> None:
    """Print an overview, and again after each interval until everything is finished, if the scale is watched."""
    from stlight.commands.screen import draw_line
    from stlight.costs.overview import Follower

    folder, on_screen = scale_folder(options), sys.stdout.isatty() and not options.json
    plan = load(options)
    follower = Follower(plan, folder)
    if on_screen:
        print("\x1b[2J", end="")
    while True:
        overview = follower.look(time.time())
        if on_screen:
            _show(overview, folder)
        else:
            print(overview.model_dump_json() if options.json else draw_line(overview), flush=True)
        if overview.finished or options.watch is None:
            return
        time.sleep(options.watch)
        if options.rounds and (grown := load(options)).runs.keys() != plan.runs.keys():
            plan = grown
            follower = Follower(plan, folder)


def _show(overview: "Overview", folder: Path) -> None:
    from stlight.commands.screen import draw_screen, wants_colours

    width, height = shutil.get_terminal_size()
    # The cursor stays on the last line, where the shell goes on afterwards.
    lines = draw_screen(overview, str(folder), width, height - 1, wants_colours())
    print("\x1b[H" + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J", end="", flush=True)


def _list_runs(options: argparse.Namespace) -> None:
    from tabulate import tabulate

    plan, folder = load(options), scale_folder(options) / "runs"
    states = {name: _state(folder, name, config.hash) for name, config in plan.runs.items()}
    print(tabulate([[name, state["status"], _detail(state)] for name, state in states.items()], ["run", "status", ""]))
    counts = Counter(state["status"] for state in states.values())
    print(f"\nscale {plan.scale.name}: {len(states)} runs: " + ", ".join(f"{n} {status}" for status, n in counts.items()))


def _state(folder: Path, name: str, config_hash: str) -> dict[str, Any]:
    from stlight.runs.record import RecordError, read_state

    try:
        return read_state(folder / name, config_hash, name)
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
