"""Read the state of every run of a scale from its results folder. Reads only, and takes damaged files for what they are."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from stlight.config import RunConfig
from stlight.runs.record import RecordError, read_record, unfinished_state

Status = Literal["waiting", "starting", "running", "interrupted", "failed", "done", "diverged"]

_TAIL = 8192
"""Bytes at the end of a log that its last line is looked for in."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """State of one run."""

    status: Status
    """As `read_state` names it."""
    epochs: int = 0
    """Finished epochs."""
    seconds: float = 0.0
    """Seconds that they took in all sessions, with the start; of the whole run if it is recorded."""
    start: float | None = None
    """Seconds of a recorded run that none of its epochs took."""
    age: float = 0.0
    """Seconds since the last epoch of a run that is not recorded ended."""
    started: float = math.nan
    """Unix time at which a recorded run started."""
    written: float = -math.inf
    """Unix time at which the record was written, by the clock of the file system."""
    host: str = ""
    pid: str = ""
    since: str = ""
    """When the process that holds the run took it, by the clock of its host."""
    gpus: tuple[str, ...] = ()
    why: str = ""
    """Why the run failed or was interrupted."""
    log: Path | None = None
    """The log that says more, if the run failed."""

    @property
    def recorded(self) -> bool:
        """True if the run is finished."""
        return self.status in ("done", "diverged")

    @property
    def active(self) -> bool:
        """True if a living process holds the run."""
        return self.status in ("starting", "running")


class Survey:
    """The runs of a scale. Keeps what it has read of a record until the record changes."""

    def __init__(self, folder: Path, runs: Mapping[str, RunConfig]) -> None:
        self.folder = folder
        self._hashes = {name: config.hash for name, config in runs.items()}
        self._records: dict[str, tuple[tuple[int, int], RunState | None]] = {}

    def states(self, now: float) -> dict[str, RunState]:
        """Return the state of each run at the Unix time `now`."""
        return {name: self._state(name, now) for name in self._hashes}

    def _state(self, name: str, now: float) -> RunState:
        folder = self.folder / "runs" / name
        try:
            return self._recorded(name, folder / "record.json") or self._unfinished(name, folder, now)
        except (RecordError, OSError) as error:
            return RunState(status="failed", why=str(error), log=self._log(name))

    def _recorded(self, name: str, path: Path) -> RunState | None:
        """Return the state that a record of the present configuration states, or `None`."""
        if not path.is_file():
            return None
        found = path.stat()
        version = found.st_mtime_ns, found.st_size
        if name not in self._records or self._records[name][0] != version:
            record, state = read_record(path, name), None
            if record.config_hash == self._hashes[name]:
                epochs, seconds = number(record.metrics.get("last", {}).get("epoch")), number(record.seconds.get("total"))
                started = _unix_time(record.provenance.get("started"))
                parts = [number(record.seconds.get(part)) for part in ("training", "evaluation", "checkpoints")]
                state = RunState(
                    status=record.status,
                    epochs=int(epochs),
                    seconds=seconds,
                    start=max(0.0, seconds - sum(parts)),
                    started=started,
                    written=found.st_mtime,
                )
            self._records[name] = version, state
        return self._records[name][1]

    def _unfinished(self, name: str, folder: Path, now: float) -> RunState:
        found = unfinished_state(folder, self._hashes[name])
        status, log = found["status"], self._log(name)
        why = str(found.get("error") or found.get("why") or "")
        if status == "waiting" and (line := last_line(log)) and not line.startswith(f"{name}: "):
            # It failed before it could write its state. The last line of a run that succeeded starts with its name.
            status, why = "failed", line
        gpus = found.get("gpus")
        return RunState(
            status=status,
            epochs=int(number(found.get("epoch"))),
            seconds=number(found.get("seconds")),
            age=max(0.0, now - changed(folder / "progress.json")) if status == "running" else 0.0,
            host=str(found.get("host", "")),
            pid=str(found.get("pid", "")),
            since=str(found.get("since", "")),
            gpus=tuple(map(str, gpus)) if isinstance(gpus, list) else (),
            why=why,
            log=log if status == "failed" else None,
        )

    def _log(self, name: str) -> Path:
        return self.folder / "logs" / "train" / f"{name}.log"


def last_line(log: Path) -> str:
    """Return the last line of a log that says why a job failed: that of `stlight`, or else the last one; empty if none."""
    try:
        if not log.is_file():
            return ""
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            lines = file.read(_TAIL).decode(errors="replace").split("\n")
    except OSError:
        return ""
    lines = [line.strip() for line in lines if line.strip()]
    return next((line for line in reversed(lines) if line.startswith("stlight: ")), lines[-1] if lines else "")


def changed(path: Path) -> float:
    """Return the Unix time of a file's last change, or minus infinity if it does not exist."""
    try:
        return path.stat().st_mtime
    except OSError:
        return -math.inf


def number(value: Any) -> float:
    """Return a number from a file that may hold anything: 0 if it is none, or not finite, or below 0."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if numeric and 0 <= value <= 1e15 else 0.0


def _unix_time(text: Any) -> float:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except (ValueError, OverflowError, OSError):
        return math.nan
