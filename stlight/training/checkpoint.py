"""Checkpoints: save the state of a training so that it resumes as if it had never been interrupted.

A file is one line with the format and the SHA-256 of the rest, then safetensors with the facts as JSON in its header. Neither
can hold code. Files are written atomically and the last two are kept, in a folder beside the run's outputs named by the
configuration's hash. Checkpoints are no declared outputs, because Snakemake deletes those after a failure.
"""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from stlight.runtime.atomic_files import remove_partials, write_atomically

_FORMAT = b"STLight checkpoint 1 "
_FOLDER = "checkpoints"
_KEPT = 2

# Saving takes at most this share of a run's time, half of the 2 % that we allow.
_SHARE = 0.01

State = tuple[dict[str, Tensor], dict[str, Any]]
"""Tensors by name, and everything else as JSON."""

logger = logging.getLogger(__name__)


class CheckpointError(ValueError):
    """A checkpoint that cannot be used."""


def pack(state: State) -> tuple[bytes, bytes]:
    """Return the first line of a checkpoint file, and the rest."""
    tensors, facts = state
    body = safetensors.torch.save(tensors, metadata={"facts": json.dumps(facts)})
    return _FORMAT + hashlib.sha256(body).hexdigest().encode() + b"\n", body


def unpack(content: bytes) -> State:
    """Return the state in a file. Raises `CheckpointError` unless the content is exactly what `pack` returned."""
    first, newline, _ = content[:256].partition(b"\n")
    body = memoryview(content)[len(first) + 1 :]
    if not newline or not first.startswith(_FORMAT):
        raise CheckpointError("is not a checkpoint of this version of the suite")
    if hashlib.sha256(body).hexdigest().encode() != first.removeprefix(_FORMAT):
        raise CheckpointError("is damaged: its content does not have the checksum it states")
    size = int.from_bytes(body[:8], "little")
    facts = json.loads(bytes(body[8 : 8 + size]))["__metadata__"]["facts"]
    return safetensors.torch.load(bytes(body)), json.loads(facts)


def remove_checkpoints(run_folder: Path) -> None:
    """Remove all checkpoints of a finished run, also those of other configurations."""
    shutil.rmtree(run_folder / _FOLDER, ignore_errors=True)


class Checkpoints:
    """Checkpoints of one run, usable if their identity agrees. Only the process that holds the run's lock may use them."""

    def __init__(self, run_folder: Path, identity: dict[str, Any], *, every_seconds: float = 300.0) -> None:
        self._folder = run_folder / _FOLDER / identity["config_hash"]
        self._identity = identity
        self._every_seconds = every_seconds
        self._saved_at, self._cost = time.perf_counter(), 0.0
        self.seconds = 0.0  # total time spent on saving

    def due(self, *, epoch_ended: bool) -> bool:
        """Return True at the end of an epoch or minutes after the last save, unless saving would take too much of the time."""
        since = time.perf_counter() - self._saved_at
        return since * _SHARE >= self._cost and (epoch_ended or since >= self._every_seconds)

    def save(self, state: Callable[[], State]) -> None:
        """Write the state and delete all but the last two checkpoints. Raises `StorageError`, which leaves the earlier ones."""
        started = time.perf_counter()
        tensors, facts = state()
        path = self._folder / f"epoch{facts['epoch']:06d}-step{facts['step']:08d}.checkpoint"
        write_atomically(path, *pack((tensors, facts | {"identity": self._identity})))
        for old in self._files()[:-_KEPT]:
            old.unlink(missing_ok=True)
        self._saved_at = time.perf_counter()
        self._cost = self._saved_at - started
        self.seconds += self._cost

    def latest(self, fits: Callable[[State], None] = lambda state: None) -> State | None:
        """Return the newest usable checkpoint, or None. Set those aside for which `fits` raises `ValueError`, too."""
        remove_partials(self._folder)
        for path in reversed(self._files()):
            content = path.read_bytes()
            try:
                state = unpack(content)
                found = state[1].pop("identity", {})
                for name, value in self._identity.items():
                    if found.get(name) != value:
                        raise CheckpointError(f"belongs to another {name.replace('_', ' ')}: {found.get(name)}, not {value}")
                fits(state)
                return state
            except (ValueError, KeyError) as error:
                aside = path.with_suffix(".set-aside")
                path.replace(aside)
                logger.warning("%s %s; set aside as %s", path, error, aside.name)
        return None

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob("epoch*.checkpoint"))
