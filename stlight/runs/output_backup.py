"""The outputs of a finished run, kept by a second name, for the workflow to delete the first without loss.

Snakemake deletes a job's outputs before it starts the job again. It does so also where the run had finished: because the job
was killed just after its record was written, or because Snakemake itself was, while its jobs went on. Hard links take no space.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from stlight.runs.record import RunRecord, recorded
from stlight.runtime.atomic_files import write_atomically

OUTPUTS = ("history.csv", "weights.safetensors", "examples.npz", "record.json")

_FOLDER = ".finished"
_LIST = "files.json"

logger = logging.getLogger(__name__)


def keep(folder: Path, identity: dict[str, Any]) -> None:
    """Keep the outputs in a run's folder. `identity` is what they are good for. Without hard links nothing is kept."""
    kept = folder / _FOLDER
    with contextlib.suppress(OSError):
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in OUTPUTS:
            os.link(folder / name, kept / name)
        # Last: without it the rest counts for nothing.
        files = {name: _digest(folder / name) for name in OUTPUTS}
        write_atomically(kept / _LIST, json.dumps({"identity": identity, "files": files}) + "\n")


def put_back(folder: Path, identity: dict[str, Any], newer_than: float = 0.0) -> RunRecord | None:
    """Give the outputs their names again if they are kept whole, for this identity, and since that time stamp."""
    kept = folder / _FOLDER
    try:
        listed = json.loads((kept / _LIST).read_text())
        usable = listed["identity"] == identity and (kept / "record.json").stat().st_mtime > newer_than
        if not usable or any(_digest(kept / name) != listed["files"][name] for name in OUTPUTS):
            return None
        for name in OUTPUTS:
            partial = folder / f".{name}.partial"
            partial.unlink(missing_ok=True)
            os.link(kept / name, partial)
            # The workflow takes outputs for old that are older than its inputs.
            os.utime(partial)
            partial.replace(folder / name)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    logger.warning("%s was finished already; its outputs are put back", folder)
    return recorded(folder, identity["config_hash"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
