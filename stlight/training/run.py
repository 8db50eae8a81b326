"""Train one run and record it, resuming from its checkpoint if an earlier process was interrupted."""

import gc
import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from stlight.config import RunConfig
from stlight.data import Clips, open_dataset
from stlight.kernels import Race, accelerate, backend_of
from stlight.metrics import lpips_network
from stlight.model import build_model
from stlight.runs.provenance import provenance
from stlight.runs.record import Heartbeat, RunRecord, keep_outputs, load_valid_record, restore_outputs, write_record
from stlight.runtime import run_lock
from stlight.runtime.atomic_files import remove_partials
from stlight.runtime.process import Interrupted, Interruption
from stlight.training.checkpoint import Checkpoints, State, remove_checkpoints
from stlight.training.devices import accelerate_for_run, choose_device, configure, describe_device, out_of_memory
from stlight.training.loop import Row, Training, train
from stlight.training.outputs import summarize, write_outputs
from stlight.training.progress import progress

logger = logging.getLogger(__name__)


def train_run(
    name: str,
    config: RunConfig,
    folder: Path,
    data_root: Path,
    *,
    device: str = "auto",
    gpus: tuple[str, ...] = (),
    checkpoint_every: float = 300.0,
    newer_than: float = 0.0,
    interruption: Interruption | None = None,
) -> RunRecord:
    """Train a run and write history.csv, losses.csv, weights.safetensors, examples.npz and, last, record.json to its folder.

    A run that is recorded with this configuration is not trained again. An interrupted run resumes from its last checkpoint
    (`folder`/checkpoints) and ends with the same outputs, to the bit on a CPU, except for times. While another process trains
    the run, we wait. `gpus` are the names of the leased GPUs, for the record. Outputs that were deleted after the run had
    finished are restored if they are newer than the time stamp `newer_than`.

    Raises `Interrupted` after saving the state if a signal that `interruption` noticed asked to stop, `DataError` if the data
    is missing, `OutOfMemory` if the run does not fit into memory, `StorageError` if an output cannot be written.
    """
    with run_lock.hold(folder, logger.warning):
        remove_partials(folder)
        heartbeat = Heartbeat(folder, config_hash=config.hash, num_epochs=config.training.num_epochs, gpus=gpus)
        record = load_valid_record(folder, config.hash, name)
        if not record:
            (folder / "record.json").unlink(missing_ok=True)
            chosen = choose_device(device)
            with _report_failure(heartbeat, chosen):
                heartbeat.beat(epoch=0, seconds=0.0)
                configure(config.training)
                if config.training.lpips:
                    lpips_network(chosen)
                dataset, data_facts = open_dataset(config.data, data_root, seed=config.seed, device=chosen)
                origin = provenance(data_facts)
                record = restore_outputs(folder, name, config.hash, origin, newer_than)
                if not record:
                    checkpoints = Checkpoints(folder, _identity(config, origin), every_seconds=checkpoint_every)
                    stop = interruption or Interruption()
                    session = Session(name, config, folder, dataset, gpus, checkpoints, heartbeat, stop)
                    record = session.run(origin)
                    run_lock.check_held(folder)
                    write_record(folder / "record.json", record)
                    keep_outputs(folder)
        # Also if an earlier process ended just after it had written the record.
        heartbeat.end()
        remove_checkpoints(folder)
    return record


def _identity(config: RunConfig, origin: dict[str, Any]) -> dict[str, str]:
    """Return what a checkpoint must agree with to be used for this run."""
    data = hashlib.sha256(json.dumps(origin["data"], sort_keys=True, default=str).encode()).hexdigest()[:16]
    torch_version = origin["libraries"]["torch"].partition("+")[0]
    return {"config_hash": config.hash, "source": origin["source"], "torch": torch_version, "data": data}


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


@dataclass
class Session:
    """One process's work on a run. Keeps what the record needs beyond the training's own state."""

    name: str
    config: RunConfig
    folder: Path
    dataset: Clips
    gpus: tuple[str, ...]
    checkpoints: Checkpoints
    heartbeat: Heartbeat
    interruption: Interruption
    kernels: str = ""
    race: Race = field(default_factory=Race)
    begun: float = field(default_factory=time.perf_counter)
    changed: list[str] = field(default_factory=list)  # where a session computed in another way than the one before
    seconds_before: float = 0.0  # wall time of earlier sessions up to the checkpoint
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))  # of the first session

    def run(self, origin: dict[str, Any]) -> RunRecord:
        """Train to the end, write all outputs but the record, and return the record with this provenance."""
        training = self.train()
        run_lock.check_held(self.folder)
        files = write_outputs(self.folder, training, self.dataset)
        optional = {
            "dropped_out": self.race.dropped_out,
            "changed": self.changed,
            "accumulation_steps": training.accumulation_steps if training.accumulation_steps > 1 else None,
            "gpus": list(self.gpus),
        }
        kernels = {"kernels": self.kernels, "mixer_milliseconds": self.race.milliseconds}
        device = describe_device(self.dataset.device) | kernels | {name: fact for name, fact in optional.items() if fact}
        origin |= {"started": self.started, "host": os.uname().nodename}
        spent = [("training", "train_seconds"), ("evaluation", "evaluation_seconds")]
        seconds = {part: sum(row[column] for row in training.history) for part, column in spent}
        seconds |= {"checkpoints": self.checkpoints.seconds}
        record = summarize(self.name, training, self.dataset, device=device, files=files, provenance=origin, seconds=seconds)
        # Measured last, because the summary takes time, too.
        return record.model_copy(update={"seconds": seconds | {"total": self.seconds()}})

    def train(self) -> Training:
        """Train to the end. If a batch does not fit into memory and may be split, start anew with batches in more parts."""
        state = self.checkpoints.latest(fits=lambda found: self.begin().load_state_dict(found))
        recipe = self.config.training
        accumulation_steps = recipe.accumulation_steps
        while True:
            try:
                return self.train_from(state, accumulation_steps)
            except (RuntimeError, MemoryError) as error:
                too_big = out_of_memory(error, self.dataset.device)
                if not too_big:
                    raise
                more = range(2 * accumulation_steps, recipe.batch_size + 1) if recipe.out_of_memory == "split" else ()
                smaller = next((parts for parts in more if recipe.batch_size % parts == 0), None)
                # A run that reached a checkpoint does fit: it can resume when there is memory again.
                if not smaller or state or self.checkpoints.latest():
                    raise too_big from error
                logger.warning("%s: %s; starts anew with batches in %d parts", self.name, too_big, smaller)
            # Outside the except clause, because its traceback holds the memory that we want to free.
            accumulation_steps = smaller
            gc.collect()
            if self.dataset.device.type == "cuda":
                torch.cuda.empty_cache()

    def begin(self, accumulation_steps: int = 1) -> Training:
        """Return the training at its first step."""
        config = self.config
        model = build_model(config.model, config.clip_shape, config.seed, config.data.dataset).to(self.dataset.device)
        return Training(model, config, accumulation_steps)

    def train_from(self, state: State | None, accumulation_steps: int) -> Training:
        """Train from a checkpoint's state, or from the first step, to the end."""
        training = self.begin(accumulation_steps)
        if state:
            training.load_state_dict(state)
            accelerate(training.model, state[1]["session"]["kernels"])
            self.resume(training, state[1]["session"])
        else:
            self.race = accelerate_for_run(training.model, self.config, self.dataset.device)
        self.kernels = backend_of(training.model)

        def state_and_session() -> State:
            tensors, facts = training.state_dict()
            return tensors, facts | {"session": self.session_facts()}

        def at_safe_point(epoch_ended: bool) -> None:
            if self.interruption.signal or self.checkpoints.due(epoch_ended=epoch_ended):
                run_lock.check_held(self.folder)
                self.checkpoints.save(state_and_session)
            self.interruption.check()

        label = f"{self.name} (stand-in data)" if self.config.data.source == "stand_in" else self.name
        with progress(label, self.config.training.num_epochs, len(training.history)) as show:

            def on_epoch(row: Row) -> None:
                show(row)
                self.heartbeat.beat(epoch=row["epoch"], seconds=self.seconds())

            self.interruption.hold_back()
            return train(training, self.dataset, on_epoch=on_epoch, at_safe_point=at_safe_point)

    def session_facts(self) -> dict[str, Any]:
        """Return what the next session needs beside the training's state."""
        facts = {"kernels": self.kernels, "race": asdict(self.race), "device": describe_device(self.dataset.device)}
        facts |= {"changed": self.changed, "started": self.started}
        return facts | {"seconds": self.seconds(), "seconds_of_checkpoints": self.checkpoints.seconds}

    def resume(self, training: Training, before: dict[str, Any]) -> None:
        """Take over the facts of the session before, and note what differs, because it changes the last digits from here on."""
        self.race, self.changed, self.started = Race(**before["race"]), before["changed"], before["started"]
        self.seconds_before, self.checkpoints.seconds = before["seconds"], before["seconds_of_checkpoints"]
        self.heartbeat.beat(epoch=len(training.history), seconds=self.seconds())
        logger.warning("%s: resumes from epoch %d, step %d", self.name, training.epoch, training.step)
        was = before["device"] | {"kernels": before["kernels"]}
        now = describe_device(self.dataset.device) | {"kernels": backend_of(training.model)}
        if words := [f"{name} {value} after {was.get(name)}" for name, value in now.items() if value != was.get(name)]:
            self.changed = [*self.changed, f"from epoch {training.epoch}, step {training.step}: {', '.join(words)}"]
            logger.warning("%s: %s; its last digits will differ", self.name, self.changed[-1])

    def seconds(self) -> float:
        """Return the wall time of all sessions up to what they saved, and of this one."""
        return self.seconds_before + time.perf_counter() - self.begun
