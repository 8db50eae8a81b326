"""Write and read the record of a run, and its state until then.

`record.json` is written last and atomically: a run is done if it has a valid record.
"""

import contextlib
import csv
import json
import logging
import math
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stlight.config import RunConfig, describe
from stlight.runtime.atomic_files import write_atomically
from stlight.runtime.run_lock import living_holder
from stlight.runtime.trust import read_file, sha256

OUTPUTS = ("history.csv", "losses.csv", "weights.safetensors", "examples.npz", "record.json")
SELECTIONS = ("last", "best_on_validation", "best_on_test")

_BACKUP = ".finished"
_LARGEST = 10_000_000
_REMEDY = "; delete the record to train the run again"

# A test MSE this many times that of the worst trivial predictor has exploded.
_EXPLOSION = 10.0

Metrics = dict[str, float | None]

logger = logging.getLogger(__name__)


class RecordError(ValueError):
    """A record or history is damaged or belongs to another run; the message names the file."""


class RunRecord(BaseModel):
    """The outcome of one run."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    run: str
    """`<dataset>/<variant>/seed<k>`."""
    config: RunConfig
    """The resolved configuration."""
    config_hash: str
    """Hash of `config`."""
    status: Literal["done", "diverged"]
    """diverged: the loss became infinite, NaN, or exploded, and the history ends there; or the last test MSE has exploded."""
    metrics: dict[Literal["last", "best_on_validation", "best_on_test"], Metrics]
    """Test metrics at the epoch that each selection picks, and that epoch; null if not finite."""
    trivial: dict[str, Metrics]
    """Test metrics of three trivial predictions: the last frame repeated, all zeros, and the mean of the context frames."""
    num_params: int
    """Learnable parameters."""
    prediction_flops: int
    """Multiply-adds of convolutions and matrix products that predict one clip, at the size that ran."""
    seconds: dict[str, float]
    """Wall time: total, training, evaluation, checkpoints."""
    device: dict[str, Any]
    """The device, and how the run computed on it."""
    provenance: dict[str, Any]
    """Versions of code and libraries, facts about the data, time and host."""
    files: dict[str, str] = {}
    """SHA-256 of the other outputs; that of the history leaves out its seconds."""


def exploded_mse(trivial: dict[str, Metrics]) -> float:
    """Return the test MSE beyond which an evaluation has exploded: ten times that of the worst trivial predictor.

    A run whose last evaluation lies beyond it is diverged. An earlier one is a spike, which is counted only.
    """
    errors = [error for scores in trivial.values() if (error := scores.get("mse")) is not None]
    return _EXPLOSION * max(errors, default=math.inf)


def write_record(path: Path, record: RunRecord) -> None:
    """Write a record atomically, with a checksum of its content. Raises `StorageError`."""
    content = record.model_dump(mode="json")
    write_atomically(path, json.dumps(content | {"checksum": _checksum(content)}, indent=1, allow_nan=False) + "\n")


def read_record(path: Path, run: str | None = None) -> RunRecord:
    """Read and check a record, which must be of `run` if that is given.

    Raises `RecordError` if it is damaged, of another run, or if its checksum or configuration hash is wrong.
    """
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"it is larger than {_LARGEST} bytes")
        content = json.loads(path.read_bytes())
        stated = content.pop("checksum", None)
        record = RunRecord.model_validate(content)
        if stated != _checksum(content):
            raise ValueError("its content does not have the checksum it states")
        if record.config_hash != record.config.hash:
            raise ValueError("its configuration does not have the hash it states")
        if run not in (None, record.run):
            raise ValueError(f"it is the record of {record.run}, not of {run}")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        why = describe(error) if isinstance(error, ValidationError) else error
        raise RecordError(f"{path} is not a valid record: {why}") from error
    return record


def load_valid_record(folder: Path, config_hash: str, run: str | None = None) -> RunRecord | None:
    """Return the record in a run's folder if it is of this configuration and the outputs beside it are whole.

    Puts missing or damaged outputs back if the file system has kept them. Otherwise, and if the record is damaged or of another
    run, sets the record aside with a warning.
    """
    path = folder / "record.json"
    if not path.is_file():
        return None
    try:
        record = read_record(path, run)
        if record.config_hash != config_hash:
            return None
        for name in OUTPUTS[:-1]:
            _check_or_put_back(folder, record, name)
    except RecordError as error:
        path.replace(path.with_suffix(".json.set-aside"))
        logger.warning("%s; set aside as %s.set-aside, the run must be trained again", error, path.name)
        return None
    return record


def _check_or_put_back(folder: Path, record: RunRecord, name: str) -> None:
    """Raise `RecordError` if an output is not as the record states and has no whole backup. Weights may be missing."""
    if name == "weights.safetensors":
        # Large, and tables do without them: whoever loads them checks them.
        if not (folder / name).exists():
            with contextlib.suppress(OSError):
                _put_back(folder, name)
        return
    try:
        _check_output(folder, record, name)
    except RecordError as error:
        try:
            _check_output(folder / _BACKUP, record, name)
            _put_back(folder, name)
        except (OSError, RecordError):
            raise error from None
        logger.warning("%s; put back", error)


def _check_output(folder: Path, record: RunRecord, name: str) -> None:
    if name in record.files:
        read_history(folder, record) if name == "history.csv" else read_output(folder, record, name)


def read_history(folder: Path, record: RunRecord) -> list[dict[str, str]]:
    """Read the rows of a run's history as text. Raises `RecordError` if they do not have the record's checksum."""
    path = folder / "history.csv"
    try:
        rows = list(csv.DictReader(read_file(path).decode().splitlines()))
    except (OSError, ValueError, csv.Error) as error:
        raise RecordError(f"{path} cannot be read: {error}{_REMEDY}") from error
    _compare(path, record, history_digest(rows))
    return rows


def read_output(folder: Path, record: RunRecord, name: str) -> bytes:
    """Return the content of a run's output. Raises `RecordError` if it does not have the record's checksum."""
    path = folder / name
    try:
        content = read_file(path)
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}{_REMEDY}") from error
    _compare(path, record, sha256(content))
    return content


def _compare(path: Path, record: RunRecord, found: str) -> None:
    if record.files.get(path.name, found) != found:
        raise RecordError(f"{path} is damaged: it does not have the checksum that its record states{_REMEDY}")


def history_digest(rows: list[dict[str, str]]) -> str:
    """Return the SHA-256 of a history without its columns of seconds."""
    kept = [[f"{name}={text}" for name, text in row.items() if not str(name).endswith("seconds")] for row in rows]
    return sha256(json.dumps(kept).encode())


def keep_outputs(folder: Path) -> None:
    """Link a run's outputs a second time, if the file system can, so that they survive the workflow's deletion.

    Snakemake deletes a job's outputs before it starts the job again, even if the run has finished: the job may have been killed
    just after it wrote the record, or Snakemake while its jobs went on. Hard links take no space.
    """
    backup = folder / _BACKUP
    with contextlib.suppress(OSError):
        shutil.rmtree(backup, ignore_errors=True)
        backup.mkdir()
        for name in OUTPUTS:
            os.link(folder / name, backup / name)


def restore_outputs(
    folder: Path, run: str, config_hash: str, origin: dict[str, Any], newer_than: float = 0.0
) -> RunRecord | None:
    """Restore deleted outputs and return their record, if the backup is whole, newer and of this configuration and origin."""
    backup = folder / _BACKUP
    try:
        record = read_record(backup / "record.json", run)
        read_history(backup, record)
        same = all(record.provenance[name] == origin[name] for name in ("source", "libraries", "data"))
        whole = all(record.files[name] == sha256((backup / name).read_bytes()) for name in OUTPUTS[1:-1])
        # A time stamp in the future, of a clock that was set back, proves nothing.
        new = not newer_than or newer_than < (backup / "record.json").stat().st_mtime <= time.time()
        if not (same and whole and new and record.config_hash == config_hash):
            return None
        for name in OUTPUTS:
            _put_back(folder, name)
    except (OSError, RecordError, KeyError):
        return None
    logger.warning("%s was finished already; its outputs are restored", folder)
    return record


def _put_back(folder: Path, name: str) -> None:
    partial = folder / f".{name}.partial"
    partial.unlink(missing_ok=True)
    os.link(folder / _BACKUP / name, partial)
    # Snakemake considers outputs outdated that are older than the inputs.
    os.utime(partial)
    partial.replace(folder / name)


def finite(metrics: dict[str, float]) -> Metrics:
    """Replace NaN and infinities by `None`, because JSON has neither."""
    return {name: value if math.isfinite(value) else None for name, value in metrics.items()}


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


def read_state(folder: Path, config_hash: str, run: str | None = None) -> dict[str, Any]:
    """Return a run's status and, depending on it, epoch, device, process or reason. Raises `RecordError` if damaged.

    The status is waiting (not begun, or recorded with another configuration), starting (a process waits for a GPU or loads),
    running, interrupted (by a signal, or its process is gone; it can resume), failed, done or diverged.
    """
    path = folder / "record.json"
    if path.is_file() and (record := read_record(path, run)).config_hash == config_hash:
        return {"status": record.status, "device": record.device}
    return unfinished_state(folder, config_hash)


def unfinished_state(folder: Path, config_hash: str) -> dict[str, Any]:
    """Return the status of a run that is known to have no record of this configuration, as `read_state` does."""
    state = _progress(folder, config_hash)
    if holder := living_holder(folder):
        # Until the holder has written its own state, the file is that of an earlier process.
        begun = state and (state["pid"], state["host"]) == (holder["pid"], holder["host"])
        return state | {"status": "running", "since": holder["since"]} if begun else holder | {"status": "starting"}
    if not state:
        return {"status": "waiting"}
    if "error" in state:
        return state | {"status": "failed"}
    return {"why": "its process is gone"} | state | {"status": "interrupted"}


def _progress(folder: Path, config_hash: str) -> dict[str, Any]:
    """Return the last state that `Heartbeat` wrote; empty if it is missing, damaged or of another configuration."""
    try:
        state = json.loads(read_file(folder / "progress.json"))
        known = {"pid", "host", "epoch", "num_epochs", "seconds"} <= state.keys()
        return state if known and state["config_hash"] == config_hash else {}
    except (OSError, ValueError, AttributeError, KeyError, RecursionError):
        return {}


def _checksum(content: dict[str, Any]) -> str:
    return sha256(json.dumps(content, sort_keys=True).encode())
