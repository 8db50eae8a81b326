"""Train one run and record it, resuming from its checkpoint if an earlier process was interrupted."""

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from stlight.config import RunConfig
from stlight.data import open_dataset
from stlight.metrics import lpips_network
from stlight.runs import output_backup
from stlight.runs.provenance import source_version
from stlight.runs.record import RunRecord, load_valid_record, write_record
from stlight.runs.state import Heartbeat
from stlight.runtime import run_lock
from stlight.runtime.atomic_files import remove_partials
from stlight.runtime.signals import Interrupted, Interruption
from stlight.training.checkpoint import Checkpoints, remove_checkpoints
from stlight.training.devices import choose_device, configure
from stlight.training.out_of_memory import out_of_memory
from stlight.training.session import Session

# Number of test clips whose predictions are kept for figures: the first ones, the same in every run.
NUM_EXAMPLES = 3

logger = logging.getLogger(__name__)


def train_run(
    name: str,
    config: RunConfig,
    folder: Path,
    data_root: Path,
    *,
    device: str = "auto",
    gpus: tuple[str, ...] = (),
    examples: int = NUM_EXAMPLES,
    checkpoint_every: float = 300.0,
    newer_than: float = 0.0,
    interruption: Interruption | None = None,
) -> RunRecord:
    """Train a run and write history.csv, weights.safetensors, examples.npz and, last, record.json to its folder.

    A run that is recorded with this configuration is not trained again. An interrupted run resumes from its last checkpoint
    (`folder`/checkpoints) and ends with the same outputs, to the bit on a CPU, except for times. While another process trains
    the run, we wait. `gpus` are the names of the leased GPUs, for the record. Outputs that were deleted after the run had
    finished are restored if they are newer than the time stamp `newer_than`.

    Raises `Interrupted` after saving the state if a signal that `interruption` noticed asked to stop, `DataError` if the data
    is missing, `OutOfMemory` if the run does not fit into memory, `StorageError` if an output cannot be written.
    """
    interruption = interruption or Interruption()
    with run_lock.hold(folder, logger.warning):
        remove_partials(folder)
        heartbeat = Heartbeat(folder, config_hash=config.hash, num_epochs=config.training.num_epochs, gpus=gpus)
        record = load_valid_record(folder, config.hash)
        if not record:
            (folder / "record.json").unlink(missing_ok=True)
            chosen = choose_device(device)
            with _report_failure(heartbeat, chosen):
                heartbeat.beat(epoch=0, seconds=0.0)
                configure(config.training)
                if config.training.lpips:
                    lpips_network(chosen)
                dataset, data_facts = open_dataset(config.data, data_root, seed=config.seed, device=chosen)
                identity = _identity(config, data_facts)
                record = output_backup.restore(folder, identity, newer_than)
                if not record:
                    checkpoints = Checkpoints(folder, identity, every_seconds=checkpoint_every)
                    session = Session(name, config, folder, dataset, data_facts, gpus, checkpoints, heartbeat, interruption)
                    record = session.run(examples)
                    run_lock.check_held(folder)
                    write_record(folder / "record.json", record)
                    output_backup.keep(folder, identity)
        # Also if an earlier process ended just after it had written the record.
        heartbeat.end()
        remove_checkpoints(folder)
    return record


def _identity(config: RunConfig, data_facts: dict[str, Any]) -> dict[str, str]:
    """Return what a checkpoint, or a backup of outputs, must agree with to be used for this run."""
    data = hashlib.sha256(json.dumps(data_facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    torch_version = version("torch").partition("+")[0]
    return {"config_hash": config.hash, "source": source_version(), "torch": torch_version, "data": data}


@contextmanager
def _report_failure(heartbeat: Heartbeat, device: torch.device) -> Iterator[None]:
    """Write what stopped the run to its state for `status`, and raise the error again; lack of memory as `OutOfMemory`."""
    try:
        yield
    except Interrupted as signal:
        heartbeat.beat(why=f"stopped by {signal}")
        raise
    except BaseException as error:
        told = out_of_memory(error, device) or error
        heartbeat.beat(error=f"{type(told).__name__}: {told}")
        if told is error:
            raise
        raise told from error
