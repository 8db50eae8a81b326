"""Read what a run of OpenSTL leaves in its work_dirs, without trusting it: no file is read in a way that could run code."""

import json
import math
import pickle
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.runtime.trust import read_file

if TYPE_CHECKING:
    from torch import Tensor

Version = Literal["v0.3.0", "v1.0.0"]

_LARGEST = 200_000_000
"""Bytes of a log or a model_param.json. OpenSTL writes a few hundred per epoch."""

_NUMBER = r"[-+]?(?:\d[\d.]*(?:e[-+]?\d+)?|nan|inf)"
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)", re.MULTILINE)
# v0.3.0 counts epochs from 1 and v1.0.0 from 0.
_EPOCH = re.compile(
    rf"Epoch:? (\d+)(?:, Steps: (\d+) \||:) Lr: ({_NUMBER}) \| Train Loss: ({_NUMBER}) \| Vali Loss: ({_NUMBER})"
)
_METRICS = re.compile(rf"(val\t )?((?:mse|mae|ssim|psnr|rmse|lpips):{_NUMBER}(?:, \w+:{_NUMBER})*)$", re.MULTILINE)


class WorkDirError(ValueError):
    """A folder is no work dir of OpenSTL, or a file in it is damaged. The message, one line, names the file."""


@dataclass(frozen=True)
class Epoch:
    """Values that the log states for one epoch."""

    index: int
    """From 0."""
    steps: int | None
    """Optimizer steps; v1.0.0 does not log them."""
    learning_rate: float
    """Rounded to seven decimals."""
    train_loss: float
    """Mean over steps; in v1.0.0 of the epoch before."""
    validation_loss: float
    """Squared error per element."""
    metrics: dict[str, float]
    """Validation metrics of v0.3.0: mse and mae."""


@dataclass(frozen=True)
class Checkpoint:
    """Weights that a run has saved."""

    weights: "dict[str, Tensor]"
    """By the model's own names."""
    epoch: int | None
    """From 0; v0.3.0 does not say, and saves the epoch of the lowest validation loss."""
    steps: int | None
    """Optimizer steps up to then."""


class WorkDir:
    """One run of OpenSTL. Raises `WorkDirError` unless it has a model_param.json and a log of training."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.settings: dict[str, Any] = dict(json.loads(_read(path / "model_param.json")))
        except (ValueError, TypeError, RecursionError) as error:
            raise WorkDirError(f"{path / 'model_param.json'} is no JSON object: {error}") from error
        logs = sorted(path.glob("train_*.log"))
        if not logs:
            raise WorkDirError(f"{path} has no train_*.log: a work dir of OpenSTL holds one beside model_param.json")
        self.log = "\n".join(_read(log).decode(errors="replace") for log in logs)
        self.version: Version = "v1.0.0" if "gpus" in self.settings else "v0.3.0"

    @cached_property
    def epochs(self) -> list[Epoch]:
        """The logged epochs in order; of an epoch that was logged twice, because the run resumed, the last."""
        found: dict[int, Epoch] = {}
        metrics: dict[str, float] = {}
        events = [*_METRICS.finditer(self.log), *_EPOCH.finditer(self.log)]
        for match in sorted(events, key=lambda event: event.start()):
            if match.re is _METRICS:
                metrics = _metrics(match[2]) if match[1] else {}
                continue
            number, steps, rate, train_loss, validation_loss = match.groups()
            index = int(number) - (steps is not None)
            found[index] = Epoch(
                index, int(steps) if steps else None, float(rate), float(train_loss), float(validation_loss), metrics
            )
            metrics = {}
        return [found[index] for index in sorted(found)]

    @cached_property
    def test_metrics(self) -> dict[str, float]:
        """The metrics of the last test; empty if the run has not been tested."""
        tests = sorted(self.path.glob("test_*.log"))
        texts = [self.log, *(_read(log).decode(errors="replace") for log in tests)]
        found = [match[2] for text in texts for match in _METRICS.finditer(text) if not match[1]]
        return _metrics(found[-1]) if found else {}

    @property
    def dataset(self) -> str:
        """Name of the data set; kth20 is another name of kth."""
        name = str(self.settings.get("dataname"))
        return "kth" if name == "kth20" else name

    @cached_property
    def shape(self) -> ClipShape | None:
        """Frames of a clip: those of the configuration if it has them, otherwise those of the data set; None if unknown."""
        known = DATASETS[self.dataset].shape if self.dataset in DATASETS else None
        before, after, size = (self.settings.get(name) for name in ("pre_seq_length", "aft_seq_length", "in_shape"))
        if isinstance(before, int) and isinstance(after, int) and isinstance(size, list) and len(size) == 4:
            return ClipShape(before, after, *map(int, size[1:]))
        return known

    @property
    def processes(self) -> int:
        """Number of GPUs that trained: those of the log of v1.0.0; in v0.3.0 it follows from the steps."""
        gpus = self.settings.get("gpus")
        if isinstance(gpus, list):
            return max(1, len(gpus))
        known, steps = DATASETS.get(self.dataset), self.steps_per_epoch
        if not self.settings.get("dist") or not known or not steps:
            return 1
        return max(1, round(published_clips(self.dataset) / (steps * int(self.settings["batch_size"]))))

    @property
    def seconds(self) -> float:
        """Wall time from the log's first line to its last."""
        times = [datetime.fromisoformat(text) for text in _TIME.findall(self.log)]
        return (max(times) - min(times)).total_seconds() if times else math.nan

    def predictions(self) -> "Iterator[tuple[np.ndarray, np.ndarray]]":
        """Yield predictions and targets of the test clips, both (B, T', C, H, W); nothing if they were not saved."""
        preds, trues = (_load_array(self.path / "saved" / f"{name}.npy") for name in ("preds", "trues"))
        if preds is None or trues is None:
            return
        if preds.shape != trues.shape or preds.ndim != 5:
            shapes = f"preds {preds.shape} and trues {trues.shape}"
            raise WorkDirError(f"{self.path / 'saved'}: {shapes} must have the same shape (B, T, C, H, W)")
        for first, last in pairwise([*range(0, len(preds), 64), len(preds)]):
            yield np.array(preds[first:last]), np.array(trues[first:last])

    def num_test_clips(self) -> int | None:
        """Return the number of saved test clips, or None."""
        preds = _load_array(self.path / "saved" / "preds.npy")
        return None if preds is None else len(preds)

    @cached_property
    def checkpoint(self) -> "Checkpoint | None":
        """The weights that v0.3.0 tested; those that v1.0.0 saved last, which need not be of the last epoch. None without.

        Raises `WorkDirError` if the file holds anything but tensors and plain values, because such a pickle can run code.
        """
        import torch

        names = ("checkpoint.pth",) if self.version == "v0.3.0" else ("checkpoints/last.ckpt", "checkpoints/best.ckpt")
        path = next((self.path / name for name in names if (self.path / name).is_file()), None)
        if not path:
            return None
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
            state = dict(content.get("state_dict", content))
            prefix = "module." if self.version == "v0.3.0" else "model."
            found = {name.removeprefix(prefix): tensor for name, tensor in state.items() if isinstance(tensor, torch.Tensor)}
            if self.version == "v0.3.0":
                return Checkpoint(found, None, None)
            return Checkpoint(found, int(content["epoch"]), int(content["global_step"]))
        except (pickle.UnpicklingError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, EOFError) as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise WorkDirError(f"{path} is damaged or holds more than weights, and is not read: {why}") from error

    @cached_property
    def steps_per_epoch(self) -> int | None:
        """Optimizer steps in an epoch: logged by v0.3.0, in the checkpoint of v1.0.0; None if neither is there."""
        logged = next((epoch.steps for epoch in self.epochs if epoch.steps), None)
        if logged or self.version == "v0.3.0":
            return logged
        with suppress(WorkDirError):
            if (saved := self.checkpoint) and saved.epoch is not None and saved.steps:
                return saved.steps // (saved.epoch + 1)
        return None


def is_work_dir(path: Path) -> bool:
    """Return True if a folder is a work dir of OpenSTL rather than a run of the suite."""
    return (path / "model_param.json").is_file()


def validation_mse(run: WorkDir, epoch: Epoch) -> float:
    """Return an epoch's validation MSE in the unit of the test's: logged by v0.3.0, from the loss in v1.0.0."""
    if "mse" in epoch.metrics:
        return epoch.metrics["mse"]
    if not run.shape or not epoch.validation_loss:
        return math.nan
    values, tested = math.prod(run.shape[2:]), run.test_metrics.get("mse", math.nan)
    # The unit of the test is the nearest one to what it says: summed over a frame, over a channel's pixels, or a mean.
    factors = (values, values // run.shape.channels, 1)
    factor = min(factors, key=lambda factor: abs(math.log(tested / (factor * epoch.validation_loss)))) if tested > 0 else values
    return epoch.validation_loss * factor


def published_clips(dataset: str) -> int:
    """Return the number of training clips in the benchmark's epoch of a data set."""
    return int(DATASETS[dataset].protocol.get("clips_per_epoch", 10_000))


def _metrics(text: str) -> dict[str, float]:
    return {name: float(number) for name, number in (pair.split(":") for pair in text.split(", "))}


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise WorkDirError(f"{path} is missing: a work dir of OpenSTL holds model_param.json and train_*.log")
    if path.stat().st_size > _LARGEST:
        raise WorkDirError(f"{path} is larger than {_LARGEST} bytes")
    return read_file(path)


def _load_array(path: Path) -> np.ndarray | None:
    """Map an array into memory; None if the file is missing. Raises `WorkDirError` for one that holds objects."""
    if not path.is_file():
        return None
    try:
        # Unlike `np.load`, this reads neither pickles nor archives.
        array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, OSError, EOFError) as error:
        raise WorkDirError(f"{path} is damaged or holds objects, and is not read: {error}") from error
    if array.dtype.kind != "f":
        raise WorkDirError(f"{path} must hold floating-point numbers, got {array.dtype}")
    return array
