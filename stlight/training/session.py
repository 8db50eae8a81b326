"""One process's work on a run: all of it, or the part up to an interruption."""

import gc
import logging
import os
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from stlight.config import RunConfig
from stlight.data import Clips
from stlight.kernels import Race, accelerate, backend_of
from stlight.model import build_model
from stlight.runs.provenance import provenance
from stlight.runs.record import RunRecord
from stlight.runs.state import Heartbeat
from stlight.runtime import run_lock
from stlight.runtime.signals import Interruption
from stlight.training.checkpoint import Checkpoints, State
from stlight.training.devices import accelerate_for_run, describe_device
from stlight.training.loop import Row, Training, train
from stlight.training.out_of_memory import out_of_memory
from stlight.training.outputs import summarize, write_outputs
from stlight.training.progress import Progress

logger = logging.getLogger(__name__)


@dataclass
class Session:
    """Train a run, from its checkpoint if there is one, and keep what the record needs beyond the training's own state."""

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
    race: Race = field(default_factory=Race)
    begun: float = field(default_factory=time.perf_counter)
    changed: list[str] = field(default_factory=list)
    """Where a session computed in another way than the one before."""
    seconds_before: float = 0.0
    """Wall time of earlier sessions up to the checkpoint."""
    started: str = field(default_factory=lambda: datetime.now(UTC).isoformat("T", "seconds"))
    """Time at which the first session started."""

    def run(self, examples: int) -> RunRecord:
        """Train to the end, write all outputs but the record, and return the record."""
        training = self.train()
        run_lock.check_held(self.folder)
        files = write_outputs(self.folder, training, self.dataset, examples)
        record = summarize(self.name, training, self.dataset)
        facts: dict[str, Any] = {"kernels": self.kernels, "mixer_milliseconds": self.race.milliseconds}
        facts |= {"dropped_out": self.race.dropped_out} if self.race.dropped_out else {}
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
        """Train to the end. If a batch does not fit into memory and may be split, start anew with batches in more parts."""
        state = self.checkpoints.latest(fits=self.check_fits)
        accumulation_steps = self.config.training.accumulation_steps
        while True:
            try:
                return self.train_from(state, accumulation_steps)
            except (RuntimeError, MemoryError) as error:
                too_big = out_of_memory(error, self.dataset.device)
                smaller = self.smaller_parts(accumulation_steps)
                if not too_big:
                    raise
                # A run that reached a checkpoint does fit: it can resume when there is memory again.
                if not smaller or state or self.checkpoints.latest():
                    raise too_big from error
                logger.warning("%s: %s; starts anew with batches in %d parts", self.name, too_big, smaller)
            # Outside the except clause, because its traceback holds the memory that we want to free.
            accumulation_steps = smaller
            gc.collect()
            if self.dataset.device.type == "cuda":
                torch.cuda.empty_cache()

    def check_fits(self, state: State) -> None:
        """Raise `ValueError` or `KeyError` if this run cannot resume from a state."""
        self.begin().load_state_dict(state)
        if not self.session_facts().keys() <= state[1]["session"].keys():
            raise ValueError("lacks the facts of a session")

    def smaller_parts(self, accumulation_steps: int) -> int | None:
        """Return the number of parts to try next, or None if a batch cannot or must not be split."""
        recipe = self.config.training
        more = (n for n in range(2 * accumulation_steps, recipe.batch_size + 1) if recipe.batch_size % n == 0)
        return next(more, None) if recipe.out_of_memory == "split" else None

    def begin(self, accumulation_steps: int = 1) -> Training:
        """Return the training at its first step."""
        model = build_model(self.config.model, self.config.clip_shape, self.config.seed).to(self.dataset.device)
        return Training(model, self.config, accumulation_steps)

    def train_from(self, state: State | None, accumulation_steps: int) -> Training:
        """Train from a checkpoint's state, or from the first step, to the end."""
        config = self.config
        training = self.begin(accumulation_steps)
        if state:
            training.load_state_dict(state)
            self.load_session_facts(state[1])
            accelerate(training.model, self.kernels)
            logger.warning("%s: resumes from epoch %d, step %d", self.name, training.epoch, training.step)
            self.note_changes(training, state[1]["session"]["how"])
        else:
            self.race = accelerate_for_run(training.model, config, self.dataset.device)
        self.kernels = backend_of(training.model)

        def state_and_session() -> State:
            tensors, facts = training.state_dict()
            return tensors, facts | {"session": self.session_facts()}

        def at_safe_point(epoch_ended: bool) -> None:
            if self.interruption.signal or self.checkpoints.due(epoch_ended=epoch_ended):
                run_lock.check_held(self.folder)
                self.checkpoints.save(state_and_session)
            self.interruption.check()

        label = f"{self.name} (stand-in data)" if config.data.source == "stand_in" else self.name
        with closing(Progress(label, config.training.num_epochs, training.history)) as progress:

            def on_epoch(row: Row) -> None:
                progress.show(row)
                self.heartbeat.beat(epoch=row["epoch"], seconds=self.seconds())

            self.interruption.hold_back()
            return train(training, self.dataset, on_epoch=on_epoch, at_safe_point=at_safe_point)

    def session_facts(self) -> dict[str, Any]:
        """Return what the next session needs beside the training's state."""
        return {
            "kernels": self.kernels,
            "race": asdict(self.race),
            "how": self.how(),
            "changed": self.changed,
            "seconds": self.seconds(),
            "seconds_of_checkpoints": self.checkpoints.seconds,
            "started": self.started,
        }

    def load_session_facts(self, facts: dict[str, Any]) -> None:
        """Take over what the session before left in its checkpoint."""
        before = facts["session"]
        self.kernels, self.race = before["kernels"], Race(**before["race"])
        self.seconds_before, self.started = before["seconds"], before["started"]
        self.checkpoints.seconds, self.changed = before["seconds_of_checkpoints"], before["changed"]
        self.heartbeat.beat(epoch=len(facts["history"]), seconds=self.seconds())

    def how(self) -> dict[str, Any]:
        """Return the device and threads, on which the last digits depend beside the kernels."""
        facts = describe_device(self.dataset.device)
        return {name: facts[name] for name in ("type", "name", "threads") if name in facts}

    def note_changes(self, training: Training, before: dict[str, Any]) -> None:
        """Record and report what differs from the session before, because it changes the last digits from here on."""
        before = before | {"kernels": self.kernels}
        now = self.how() | {"kernels": backend_of(training.model)}
        words = [f"{name} {value} after {before.get(name)}" for name, value in now.items() if value != before.get(name)]
        if words:
            self.changed = [*self.changed, f"from epoch {training.epoch}, step {training.step}: {', '.join(words)}"]
            logger.warning("%s: %s; its last digits will differ", self.name, self.changed[-1])

    def seconds(self) -> float:
        """Return the wall time of all sessions up to what they saved, and of this one."""
        return self.seconds_before + time.perf_counter() - self.begun
