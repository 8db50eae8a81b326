"""Keep the outputs of a finished run under a second name, so that they survive the workflow's deletion.

Snakemake deletes a job's outputs before it starts the job again, even if the run has finished: the job may have been killed
just after it wrote the record, or Snakemake while its jobs went on. The second names are hard links and take no space.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
from pathlib import Path
from typing import Any

from stlight.runs.record import RunRecord, load_valid_record
from stlight.runtime.atomic_files import write_atomically

OUTPUTS = ("history.csv", "weights.safetensors", "examples.npz", "record.json")

_FOLDER = ".finished"
_LIST = "files.json"

logger = logging.getLogger(__name__)


def keep(folder: Path, identity: dict[str, Any]) -> None:
    """Link a run's outputs a second time, if the file system can. `restore` compares `identity`."""
    kept = folder / _FOLDER
    with contextlib.suppress(OSError):
        shutil.rmtree(kept, ignore_errors=True)
        kept.mkdir()
        for name in OUTPUTS:
            os.link(folder / name, kept / name)
        # Last, because the links are valid only with the list.
        files = {name: _digest(folder / name) for name in OUTPUTS}
        write_atomically(kept / _LIST, json.dumps({"identity": identity, "files": files}) + "\n")


def restore(folder: Path, identity: dict[str, Any], newer_than: float = 0.0) -> RunRecord | None:
    """Restore deleted outputs and return their record, or `None` if the backup is not usable.

    A backup is usable if it is complete and undamaged, has this identity, and is newer than the time stamp `newer_than`.
    """
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
            # Snakemake considers outputs outdated that are older than the inputs.
            os.utime(partial)
            partial.replace(folder / name)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    logger.warning("%s was finished already; its outputs are restored", folder)
    return load_valid_record(folder, identity["config_hash"])


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
