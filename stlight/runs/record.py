"""What a run leaves behind: `record.json`, written last and whole, so that a run is done exactly when it can be read."""

import contextlib
import csv
import hashlib
import json
import logging
import math
import os
import platform
import socket
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stlight.config import RunConfig, describe
from stlight.runtime.atomic_files import write_atomically
from stlight.runtime.run_lock import living_holder

SELECTIONS = ("last", "best_on_validation", "best_on_test")

Metrics = dict[str, float | None]

logger = logging.getLogger(__name__)


class RecordError(ValueError):
    """A record that is damaged or of another run; the message names the file."""


class RunRecord(BaseModel):
    """The outcome of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    run: str
    """`<dataset>/<variant>/seed<k>`."""
    config: RunConfig
    """Everything that was configured, resolved."""
    config_hash: str
    """Hash of `config`."""
    status: Literal["done", "diverged"]
    """diverged: the loss became infinite, NaN, or exploded; the history goes up to there."""
    metrics: dict[Literal["last", "best_on_validation", "best_on_test"], Metrics]
    """Test metrics at the epoch each selection picks, with that epoch; null where not finite."""
    trivial: dict[str, Metrics]
    """The same metrics for repeating the last frame and for all zeros."""
    num_params: int
    """Learnable parameters."""
    prediction_flops: int
    """Multiply-adds of the convolutions and products that predict one clip, at the size that ran."""
    seconds: dict[str, float]
    """Wall time in all, and of training and evaluation."""
    device: dict[str, Any]
    """What it ran on, and how."""
    provenance: dict[str, Any]
    """Code version, library versions, data, and when."""
    files: dict[str, str] = {}
    """SHA-256 of the other outputs; of the history without its seconds."""


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record atomically, with a checksum of all else in it. Raises `StorageError` where it cannot be."""
    content = record.model_dump(mode="json")
    write_atomically(path, json.dumps(content | {"checksum": _checksum(content)}, indent=1, allow_nan=False) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read and check a record. Raises `RecordError`, naming the file, if it is damaged or a hash in it does not fit."""
    refused = f"{path} is not a valid record"
    try:
        content = json.loads(path.read_bytes())
        stated = content.pop("checksum", None)
        record = RunRecord.model_validate(content)
    except ValidationError as error:
        raise RecordError(f"{refused}: {describe(error)}") from error
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise RecordError(f"{refused}: {error}") from error
    if stated != _checksum(content):
        raise RecordError(f"{refused}: its content does not have the checksum it states")
    if record.config_hash != record.config.hash:
        raise RecordError(f"{refused}: its configuration does not have the hash it states")
    return record


def recorded(folder: Path, config_hash: str) -> RunRecord | None:
    """The record in a run's folder, if there is one of this configuration. A damaged one is named, set aside, and is none."""
    path = folder / "record.json"
    if not path.is_file():
        return None
    try:
        record = read_record(path)
    except RecordError as error:
        path.replace(path.with_suffix(".json.set-aside"))
        logger.warning("%s; set aside as %s.set-aside, the run is to be trained again", error, path.name)
        return None
    return record if record.config_hash == config_hash else None


def read_history(folder: Path, record: RunRecord) -> list[dict[str, str]]:
    """The rows of a run's history as text. Raises `RecordError`, naming the file, if they are not those of its record."""
    path = folder / "history.csv"
    try:
        rows = list(csv.DictReader(path.read_text().splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise RecordError(f"{path} cannot be read: {error}") from error
    if record.files.get(path.name, digest := history_digest(rows)) != digest:
        raise RecordError(f"{path} is damaged: it does not have the checksum that its record states; delete the record")
    return rows


def history_digest(rows: list[dict[str, str]]) -> str:
    """SHA-256 of a history without its columns of seconds."""
    kept = [[f"{name}={text}" for name, text in row.items() if not str(name).endswith("seconds")] for row in rows]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()


def _checksum(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def finite(metrics: dict[str, float]) -> Metrics:
    """The same with null for NaN and infinities, which JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def provenance(data: dict[str, Any]) -> dict[str, Any]:
    """Where a run's numbers come from: the code, the libraries and the data (time stamps are the caller's)."""
    libraries = {name: version(name) for name in ("stlight", "torch", "numpy")}
    code = {"code": code_version(), "source": source_version()}
    return code | {"libraries": libraries, "python": platform.python_version(), "data": data}


@cache
def source_version() -> str:
    """First 16 hex digits of the SHA-256 of the sources that make a run's numbers: what is outside them changes none."""
    package = Path(__file__).resolve().parent.parent
    rooms = ("config.py", "metrics.py", "registry", "data", "kernels", "model", "training")
    paths = [path for room in rooms for path in ([package / room] if room.endswith(".py") else (package / room).rglob("*"))]
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.suffix in (".py", ".c")):
        digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def code_version() -> str:
    """The git commit of the code, "+changes" if tracked files differ from it, or the package's version outside git."""
    folder = Path(__file__).resolve().parent.parent.parent
    if not (folder / ".git").exists():
        return version("stlight")
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or version("stlight")


class Heartbeat:
    """`progress.json` beside the record while a run is not done: where it is, who has it, and what stopped it."""

    def __init__(self, folder: Path, **state: Any) -> None:
        self._path = folder / "progress.json"
        self._state: dict[str, Any] = {"pid": os.getpid(), "host": socket.gethostname()} | state

    def beat(self, **state: Any) -> None:
        """Note what has changed in the state, if it can be written: a run must not end for want of this file."""
        self._state |= state
        with contextlib.suppress(OSError):
            write_atomically(self._path, json.dumps(self._state) + "\n")

    def end(self) -> None:
        """The run is recorded: nothing is under way any more."""
        self._path.unlink(missing_ok=True)


def read_state(folder: Path, config_hash: str) -> dict[str, Any]:
    """The state of a run: waiting, starting, running, interrupted, done, diverged or failed, with epoch, device and why.

    starting: a process has it, and waits for a GPU or loads.
    interrupted: stopped by a signal, or its process is gone; it goes on from its checkpoint when it is started again.
    A record of another configuration does not count: the run is waiting to be trained again. Raises `RecordError`.
    """
    path = folder / "record.json"
    if path.is_file() and (record := read_record(path)).config_hash == config_hash:
        return {"status": record.status, "device": record.device}
    state = _progress(folder, config_hash)
    if holder := living_holder(folder):
        # Its process has begun once it has left a word of its own.
        begun = state and (state["pid"], state["host"]) == (holder["pid"], holder["host"])
        return {"status": "running"} | state if begun else {"status": "starting"} | holder
    if not state:
        return {"status": "waiting"}
    if "error" in state:
        return {"status": "failed"} | state
    return {"status": "interrupted", "why": "its process is gone"} | state


def _progress(folder: Path, config_hash: str) -> dict[str, Any]:
    """What `Heartbeat` noted last, if it is whole and of this configuration."""
    try:
        state = json.loads((folder / "progress.json").read_text())
        known = {"pid", "host", "epoch", "num_epochs", "seconds"} <= state.keys()
        return state if known and state["config_hash"] == config_hash else {}
    except (OSError, ValueError, AttributeError, KeyError, RecursionError):
        return {}
