"""One run from its configuration to its record: everything that touches the disk, in the order in which it happens."""

import csv
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import nn

from stlight.config import RunConfig
from stlight.data import Clips, open_dataset
from stlight.kernels import using
from stlight.model import build_model
from stlight.model.complexity import count_flops, count_parameters
from stlight.records import Heartbeat, RunRecord, finite, provenance, read_record, write_record
from stlight.training.devices import choose_device, choose_kernels, configure, describe_device
from stlight.training.evaluation import evaluate, trivial_predictors
from stlight.training.loop import Row, Training, predictor, train
from stlight.training.progress import Progress

# Test clips whose predictions are kept to be shown: the first ones, the same for every run.
NUM_EXAMPLES = 3


def train_run(
    name: str, config: RunConfig, folder: Path, data_root: Path, *, device: str = "auto", examples: int = NUM_EXAMPLES
) -> RunRecord:
    """Train a run and leave in `folder`: history.csv, weights.safetensors, examples.npz and, last, record.json.

    A run that is already recorded with this configuration is left as it is. Raises `DataError` if its data is not there.
    """
    record_path = folder / "record.json"
    if record_path.is_file() and (record := read_record(record_path)).config_hash == config.hash:
        return record
    record_path.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)

    started, started_at = time.perf_counter(), datetime.now(UTC)
    heartbeat = Heartbeat(folder)
    heartbeat.beat(epoch=0, num_epochs=config.training.num_epochs, seconds=0.0)
    with _errors_noted(heartbeat):
        chosen = choose_device(device)
        configure(config.training)
        dataset, data_facts = open_dataset(config.data, data_root, seed=config.seed, device=chosen)
        model = build_model(config.model, config.clip_shape, config.seed).to(chosen)
        kernels, milliseconds = choose_kernels(model, config, chosen)

        label = f"{name} (stand-in data)" if config.data.source == "stand_in" else name
        with Progress(label, config.training.num_epochs) as progress, using(kernels):

            def on_epoch(row: Row) -> None:
                progress.show(row)
                heartbeat.beat(epoch=row["epoch"], num_epochs=config.training.num_epochs, seconds=time.perf_counter() - started)

            result = train(model, dataset, config, on_epoch=on_epoch)

        _write_history(folder / "history.csv", result.history)
        save_file(_plain_weights(model), folder / "weights.safetensors", metadata={"config": json.dumps(config.model_dump())})
        with using(kernels):
            _write_examples(folder / "examples.npz", model, dataset, config, examples)
        record = _record(name, config, model, dataset, result)
        record = record.model_copy(
            update={
                "seconds": record.seconds | {"total": time.perf_counter() - started},
                "device": describe_device(chosen) | {"kernels": kernels, "mixer_milliseconds": milliseconds},
                "provenance": provenance(data_facts)
                | {"started": started_at.isoformat(timespec="seconds"), "host": os.uname().nodename},
            }
        )
        write_record(record_path, record)
    heartbeat.end()
    return record


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
            name_of: finite(evaluate(predict, dataset, "test", config.data.test_clips, shape.context_frames))
            for name_of, predict in trivial_predictors(shape.horizon_frames).items()
        },
        num_params=count_parameters(model)["total"],
        flops=count_flops(model, shape),
        seconds={
            "training": sum(row["train_seconds"] for row in result.history),
            "evaluation": sum(row["evaluation_seconds"] for row in result.history),
        },
        device={},
        provenance={},
    )


def _test_metrics(row: Row) -> dict[str, float]:
    return {name.removeprefix("test_"): value for name, value in row.items() if name.startswith("test_")}


def _write_history(path: Path, history: list[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(history[0]))
        writer.writeheader()
        writer.writerows(history)


def _plain_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.cpu().clone() for name, tensor in model.state_dict().items()}


@torch.no_grad()
def _write_examples(path: Path, model: nn.Module, dataset: Clips, config: RunConfig, count: int) -> None:
    """Context, truth and prediction of the first test clips, uint8 (N, T, C, H, W), to be drawn later without torch."""
    num_context = config.clip_shape.context_frames
    clip = dataset.clips("test", torch.arange(min(count, config.data.test_clips)))
    prediction = predictor(model, dataset.device, config.training)(clip[:, :num_context]).float()
    arrays = {"context": clip[:, :num_context], "truth": clip[:, num_context:], "prediction": prediction.nan_to_num(0)}
    np.savez_compressed(path, **{name: _to_uint8(values) for name, values in arrays.items()})


def _to_uint8(values: torch.Tensor) -> Any:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


@contextmanager
def _errors_noted(heartbeat: Heartbeat) -> Iterator[None]:
    """Leave a word of what went wrong for `status`, then let it go on its way."""
    try:
        yield
    except BaseException as error:
        heartbeat.beat(error=f"{type(error).__name__}: {error}")
        raise
