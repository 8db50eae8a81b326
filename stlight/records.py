"""What a run leaves behind: `record.json`, written last and whole, so that a run is done exactly when it can be read."""

import json
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

SELECTIONS = ("last", "best_on_validation", "best_on_test")

Metrics = dict[str, float | None]


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
    flops: int
    """Multiply-adds in the convolutions of one forward pass of one clip."""
    seconds: dict[str, float]
    """Wall time in all, and of training and evaluation."""
    device: dict[str, Any]
    """What it ran on, and how."""
    provenance: dict[str, Any]
    """Code version, library versions, data, and when."""


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record atomically."""
    write_atomically(path, json.dumps(record.model_dump(), indent=1, allow_nan=False) + "\n")


def read_record(path: Path) -> RunRecord:
    """Read and check a record. Raises `RecordError`, naming the file, if it is damaged or its hash does not fit."""
    try:
        record = RunRecord.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise RecordError(f"{path} is not a valid record: {describe(error)}; delete it to train the run again") from error
    if record.config_hash != record.config.hash:
        raise RecordError(f"{path}: its configuration does not have the hash it states; delete it to train the run again")
    return record


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all, also after a crash."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def finite(metrics: dict[str, float]) -> Metrics:
    """The same with null for NaN and infinities, which JSON does not have."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


def provenance(data: dict[str, Any]) -> dict[str, Any]:
    """Where a run's numbers come from: the code, the libraries and the data (time stamps are the caller's)."""
    libraries = {name: version(name) for name in ("stlight", "torch", "numpy")}
    return {"code": code_version(), "libraries": libraries, "python": platform.python_version(), "data": data}


@cache
def code_version() -> str:
    """The git commit of the code, "+changes" if tracked files differ from it, or the package's version outside git."""
    folder = Path(__file__).resolve().parent.parent
    if not (folder / ".git").exists():
        return version("stlight")
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or version("stlight")


class Heartbeat:
    """`progress.json` beside the record while a run is under way: where it is, who runs it, and what stopped it."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "progress.json"

    def beat(self, **state: Any) -> None:
        """Note the state; it replaces the one before."""
        write_atomically(self._path, json.dumps({"pid": os.getpid(), "host": socket.gethostname(), **state}) + "\n")

    def end(self) -> None:
        """The run is recorded: nothing is under way any more."""
        self._path.unlink(missing_ok=True)


def read_state(folder: Path, config_hash: str) -> dict[str, Any]:
    """The state of a run: waiting, running (with epoch and seconds), done, diverged, or failed (with an error).

    A record of another configuration does not count: the run is waiting to be trained again.
    """
    path = folder / "record.json"
    if path.is_file() and (record := read_record(path)).config_hash == config_hash:
        return {"status": record.status}
    try:
        state = json.loads((folder / "progress.json").read_text())
    except FileNotFoundError:
        return {"status": "waiting"}
    if "error" in state:
        return {"status": "failed"} | state
    if state["host"] == socket.gethostname() and not _alive(state["pid"]):
        return {"status": "failed", "error": "the process is gone"} | state
    return {"status": "running"} | state


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
