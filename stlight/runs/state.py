"""Follow a run that is not done: which process has it, how far it is, and what stopped it."""

import contextlib
import json
import os
import socket
from pathlib import Path
from typing import Any

from stlight.runs.record import read_record
from stlight.runtime.atomic_files import write_atomically
from stlight.runtime.run_lock import living_holder


class Heartbeat:
    """Keep `progress.json` up to date beside the record while a process trains a run."""

    def __init__(self, folder: Path, **state: Any) -> None:
        self._path = folder / "progress.json"
        self._state: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()} | state

    def beat(self, **state: Any) -> None:
        """Update the state and write it. Errors are ignored because a run must not fail for this file."""
        self._state |= state
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(self._state) + "\n")

    def end(self) -> None:
        """Remove the file, because the run is recorded."""
        self._path.unlink(missing_ok=True)


def read_state(folder: Path, config_hash: str) -> dict[str, Any]:
    """Return a run's status and, depending on it, epoch, device, process or reason. Raises `RecordError` if damaged.

    The status is waiting (not begun, or recorded with another configuration), starting (a process waits for a GPU or loads),
    running, interrupted (by a signal, or its process is gone; it can resume), failed, done or diverged.
    """
    path = folder / "record.json"
    if path.is_file() and (record := read_record(path)).config_hash == config_hash:
        return {"status": record.status, "device": record.device}
    return unfinished_state(folder, config_hash)


def unfinished_state(folder: Path, config_hash: str) -> dict[str, Any]:
    """Return the status of a run that is known to have no record of this configuration, as `read_state` does."""
    state = _progress(folder, config_hash)
    if holder := living_holder(folder):
        # Until the holder has written its own state, the file is that of an earlier process.
        begun = state and (state["pid"], state["host"]) == (holder["pid"], holder["host"])
        return {"status": "running"} | state if begun else {"status": "starting"} | holder
    if not state:
        return {"status": "waiting"}
    if "error" in state:
        return {"status": "failed"} | state
    return {"status": "interrupted", "why": "its process is gone"} | state


def _progress(folder: Path, config_hash: str) -> dict[str, Any]:
    """Return the last state that `Heartbeat` wrote; empty if it is missing, damaged or of another configuration."""
    try:
        state = json.loads((folder / "progress.json").read_text())
        known = {"pid", "host", "epoch", "num_epochs", "seconds"} <= state.keys()
        return state if known and state["config_hash"] == config_hash else {}
    except (OSError, ValueError, AttributeError, KeyError, RecursionError):
        return {}
