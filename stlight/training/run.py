"""One run from its configuration to its record: everything that touches the disk, in the order in which it happens."""

import csv
import gc
import hashlib
import io
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from stlight.config import RunConfig
from stlight.data import Clips, open_dataset
from stlight.kernels import using
from stlight.metrics import lpips_network
from stlight.model import build_model
from stlight.model.complexity import count_flops, count_parameters
from stlight.runs import output_backup
from stlight.runs.provenance import provenance, source_version
from stlight.runs.record import RunRecord, finite, history_digest, load_valid_record, write_record
from stlight.runs.state import Heartbeat
from stlight.runtime import run_lock
from stlight.runtime.atomic_files import remove_partials, write_atomically
from stlight.runtime.signals import Interrupted, Interruption
from stlight.training.checkpoint import Checkpoints, State, remove_checkpoints
from stlight.training.devices import choose_device, choose_kernels, configure, describe_device, serving_kernels
from stlight.training.evaluation import evaluate, trivial_predictors
from stlight.training.loop import Row, Training, predictor, train
from stlight.training.out_of_memory import out_of_memory
from stlight.training.progress import Progress

# Test clips whose predictions are kept to be shown: the first ones, the same for every run.
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
    """Train a run and leave in `folder`: history.csv, weights.safetensors, examples.npz and, last, record.json.

    A run that is already recorded with this configuration is left as it is, and one that was interrupted goes on from its last
    checkpoint (`folder`/checkpoints): what it leaves is the same, to the bit on a CPU, times aside. Waits while another process
    trains it. `gpus` are the names of those leased to it, for the record. Outputs that were deleted after the run had finished,
    after the time stamp `newer_than`, are put back.
    Raises `Interrupted`, its state saved, when a signal that `interruption` noticed asks for it; `DataError` if its data is not
    there, `OutOfMemory` if it does not fit, `StorageError` if it cannot write.
    """
    interruption = interruption or Interruption()
    with run_lock.hold(folder, logger.warning):
        remove_partials(folder)
        heartbeat = Heartbeat(folder, config_hash=config.hash, num_epochs=config.training.num_epochs, gpus=gpus)
        record = load_valid_record(folder, config.hash)
        if not record:
            (folder / "record.json").unlink(missing_ok=True)
            chosen = choose_device(device)
            with _what_stopped_it(heartbeat, chosen):
                heartbeat.beat(epoch=0, seconds=0.0)
                configure(config.training)
                if config.training.lpips:
                    lpips_network(chosen)
                dataset, data_facts = open_dataset(config.data, data_root, seed=config.seed, device=chosen)
                identity = _identity(config, data_facts)
                record = output_backup.restore(folder, identity, newer_than)
                if not record:
                    checkpoints = Checkpoints(folder, identity, every_seconds=checkpoint_every)
                    session = _Session(name, config, folder, dataset, data_facts, gpus, checkpoints, heartbeat, interruption)
                    record = session.run(examples)
                    run_lock.check_held(folder)
                    write_record(folder / "record.json", record)
                    output_backup.keep(folder, identity)
        # Also for a run whose process ended just after its record was written.
        heartbeat.end()
        remove_checkpoints(folder)
    return record


def _identity(config: RunConfig, data_facts: dict[str, Any]) -> dict[str, str]:
    """What a checkpoint, or a finished run's outputs, must be of to be used for a run."""
    data = hashlib.sha256(json.dumps(data_facts, sort_keys=True, default=str).encode()).hexdigest()[:16]
    torch_version = version("torch").partition("+")[0]
    return {"config_hash": config.hash, "source": source_version(), "torch": torch_version, "data": data}


@dataclass
class _Session:
    """One process's work on a run: the whole of it, or the part until it is interrupted."""

    name: str
    config: RunConfig
    folder: Path
    dataset: Clips
    data_facts: dict[str, Any]
    gpus: tuple[str, ...]
    checkpoints: Checkpoints
    heartbeat: Heartbeat
    interruption: Interruption
    kernels: str = ""
    milliseconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)
    changed: list[str] = field(default_factory=list)
    """Where a later session computed otherwise than the one before."""
    seconds_before: float = 0.0
    """Of earlier sessions, up to the checkpoint."""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))
    """When the first session was."""

    def run(self, examples: int) -> RunRecord:
        training = self.train()
        with using(self.kernels):
            files = self.write_outputs(training, examples)
        record = _record(self.name, self.config, training.model, self.dataset, training)
        facts: dict[str, Any] = {"kernels": self.kernels, "mixer_milliseconds": self.milliseconds}
        facts |= {"changed": self.changed} if self.changed else {}
        facts |= {"accumulation_steps": training.accumulation_steps} if training.accumulation_steps > 1 else {}
        facts |= {"gpus": list(self.gpus)} if self.gpus else {}
        return record.model_copy(
            update={
                "files": files,
                "seconds": record.seconds | {"checkpoints": self.checkpoints.seconds, "total": self.seconds()},
                "device": describe_device(self.dataset.device) | facts,
                "provenance": provenance(self.data_facts) | {"started": self.started, "host": os.uname().nodename},
            }
        )

    def train(self) -> Training:
        """Train to the end, from the last checkpoint if there is one; in more parts if it does not fit and may be split."""
        state = self.checkpoints.latest(fits=self.fits)
        accumulation_steps = self.config.training.accumulation_steps
        while True:
            try:
                return self.train_from(state, accumulation_steps)
            except (RuntimeError, MemoryError) as error:
                too_big = out_of_memory(error, self.dataset.device)
                smaller = self.smaller_parts(accumulation_steps)
                if not too_big:
                    raise
                # A run that has come to a checkpoint does fit: it goes on from there when there is memory again.
                if not smaller or state or self.checkpoints.latest():
                    raise too_big from error
                logger.warning("%s: %s; starts anew with batches in %d parts", self.name, too_big, smaller)
            # Out of the except clause, whose traceback holds what is to be freed.
            accumulation_steps = smaller
            gc.collect()
            if self.dataset.device.type == "cuda":
                torch.cuda.empty_cache()

    def fits(self, state: State) -> None:
        """Raise `ValueError` or `KeyError` for a state that is of no use here."""
        self.begin().go_on_from(state)
        if not self.session_facts().keys() <= state[1]["session"].keys():
            raise ValueError("lacks what a session leaves")

    def smaller_parts(self, accumulation_steps: int) -> int | None:
        """How many parts to try next, if a batch may be split and can be."""
        recipe = self.config.training
        more = (n for n in range(2 * accumulation_steps, recipe.batch_size + 1) if recipe.batch_size % n == 0)
        return next(more, None) if recipe.out_of_memory == "split" else None

    def begin(self, accumulation_steps: int = 1) -> Training:
        model = build_model(self.config.model, self.config.clip_shape, self.config.seed).to(self.dataset.device)
        return Training(model, self.config, accumulation_steps)

    def train_from(self, state: State | None, accumulation_steps: int) -> Training:
        config = self.config
        training = self.begin(accumulation_steps)
        if state:
            training.go_on_from(state)
            self.take_session_facts(state[1])
            logger.warning("%s: goes on from epoch %d, step %d", self.name, training.epoch, training.step)
            self.notice_changes(training, state[1]["session"]["how"])
        else:
            self.kernels, self.milliseconds = choose_kernels(training.model, config, self.dataset.device)

        def state_and_session() -> State:
            tensors, facts = training.state()
            return tensors, facts | {"session": self.session_facts()}

        def at_safe_point(epoch_ended: bool) -> None:
            if self.interruption.signal or self.checkpoints.due(epoch_ended=epoch_ended):
                run_lock.check_held(self.folder)
                self.checkpoints.save(state_and_session)
            self.interruption.check()

        label = f"{self.name} (stand-in data)" if config.data.source == "stand_in" else self.name
        with Progress(label, config.training.num_epochs, training.history) as progress, using(self.kernels):

            def on_epoch(row: Row) -> None:
                progress.show(row)
                self.heartbeat.beat(epoch=row["epoch"], seconds=self.seconds())

            self.interruption.hold_back()
            return train(training, self.dataset, on_epoch=on_epoch, at_safe_point=at_safe_point)

    def session_facts(self) -> dict[str, Any]:
        """What a session leaves to the next but is no state of the training."""
        return {
            "kernels": self.kernels,
            "milliseconds": self.milliseconds,
            "how": self.how(),
            "changed": self.changed,
            "seconds": self.seconds(),
            "seconds_of_checkpoints": self.checkpoints.seconds,
            "started": self.started,
        }

    def take_session_facts(self, facts: dict[str, Any]) -> None:
        before = facts["session"]
        self.kernels, self.milliseconds = before["kernels"], before["milliseconds"]
        self.seconds_before, self.started = before["seconds"], before["started"]
        self.checkpoints.seconds, self.changed = before["seconds_of_checkpoints"], before["changed"]
        self.heartbeat.beat(epoch=len(facts["history"]), seconds=self.seconds())

    def how(self) -> dict[str, Any]:
        """On what, and in how many threads, this session computes: what the last digits depend on beside the kernels."""
        facts = describe_device(self.dataset.device)
        return {name: facts[name] for name in ("type", "name", "threads") if name in facts}

    def notice_changes(self, training: Training, before: dict[str, Any]) -> None:
        """What is computed otherwise from here on than before is said and recorded: the last digits will differ."""
        with using(self.kernels):
            now = self.how() | {"kernels": serving_kernels(training.model, self.config, self.dataset.device)}
        before = before | {"kernels": self.kernels}
        words = [f"{name} {value} after {before.get(name)}" for name, value in now.items() if value != before.get(name)]
        if words:
            self.kernels = now["kernels"]
            self.changed = [*self.changed, f"from epoch {training.epoch}, step {training.step}: {', '.join(words)}"]
            logger.warning("%s: %s; its last digits will differ for it", self.name, self.changed[-1])

    def seconds(self) -> float:
        """Wall time of all sessions up to what they saved, and of this one."""
        return self.seconds_before + time.perf_counter() - self.begun

    def write_outputs(self, training: Training, examples: int) -> dict[str, str]:
        """Everything but the record; gives the checksums for it."""
        run_lock.check_held(self.folder)
        history = _history_text(training.history)
        files: dict[str, bytes] = {
            "weights.safetensors": _weights_file(training.model, self.config),
            "examples.npz": _examples_file(training.model, self.dataset, self.config, examples),
        }
        write_atomically(self.folder / "history.csv", history)
        for name, content in files.items():
            write_atomically(self.folder / name, content)
        rows = list(csv.DictReader(history.splitlines()))
        return {"history.csv": history_digest(rows)} | {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}


def _record(name: str, config: RunConfig, model: nn.Module, dataset: Clips, result: Training) -> RunRecord:
    shape = config.clip_shape
    selected = {
        "last": result.history[-1],
        "best_on_validation": result.best("validation_mse"),
        "best_on_test": result.best("test_mse"),
    }
    return RunRecord(
        run=name,
        config=config,
        config_hash=config.hash,
        status="diverged" if result.diverged else "done",
        metrics={selection: {"epoch": row["epoch"]} | finite(_test_metrics(row)) for selection, row in selected.items()},
        trivial={
            name_of: finite(
                evaluate(
                    predict,
                    dataset,
                    "test",
                    config.data.test_clips,
                    shape.context_frames,
                    with_lpips=config.training.lpips,
                )
            )
            for name_of, predict in trivial_predictors(shape.horizon_frames).items()
        },
        num_params=count_parameters(model)["total"],
        prediction_flops=count_flops(model, shape),
        seconds={
            "training": sum(row["train_seconds"] for row in result.history),
            "evaluation": sum(row["evaluation_seconds"] for row in result.history),
        },
        device={},
        provenance={},
    )


def _test_metrics(row: Row) -> dict[str, float]:
    return {name.removeprefix("test_"): value for name, value in row.items() if name.startswith("test_")}


def _history_text(history: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]))
    writer.writeheader()
    writer.writerows(history)
    return text.getvalue()


def _weights_file(model: nn.Module, config: RunConfig) -> bytes:
    weights = {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}
    return safetensors.torch.save(weights, metadata={"config": json.dumps(config.model_dump())})


@torch.no_grad()
def _examples_file(model: nn.Module, dataset: Clips, config: RunConfig, count: int) -> bytes:
    """Context, truth and prediction of the first test clips, uint8 (N, T, C, H, W), to be drawn later without torch."""
    num_context = config.clip_shape.context_frames
    clip = dataset.clips("test", torch.arange(min(count, config.data.test_clips)))
    prediction = predictor(model, dataset.device, config.training)(clip[:, :num_context]).float()
    arrays = {"context": clip[:, :num_context], "truth": clip[:, num_context:], "prediction": prediction.nan_to_num(0)}
    file = io.BytesIO()
    np.savez_compressed(file, **{name: _to_uint8(values) for name, values in arrays.items()})
    return file.getvalue()


def _to_uint8(values: torch.Tensor) -> Any:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


@contextmanager
def _what_stopped_it(heartbeat: Heartbeat, device: torch.device) -> Iterator[None]:
    """Leave a word for `status` of what stopped the run, then let it go on its way; lack of memory as `OutOfMemory`."""
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
