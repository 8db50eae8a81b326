"""Write the outputs of a trained run, and summarize it for its record."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import nn

from stlight.config import RunConfig
from stlight.data import Clips
from stlight.model import build_model
from stlight.model.complexity import count_flops, count_parameters
from stlight.runs.record import RunRecord, finite, history_digest
from stlight.runtime.atomic_files import write_atomically
from stlight.training.evaluation import evaluate, trivial_predictors
from stlight.training.loop import Row, Training, predictor


def write_outputs(folder: Path, training: Training, dataset: Clips, examples: int) -> dict[str, str]:
    """Write history, weights and example predictions, and return their checksums for the record."""
    history = _history_text(training.history)
    files: dict[str, bytes] = {
        "weights.safetensors": _weights_file(training.model, training.config),
        "examples.npz": _examples_file(training, dataset, examples),
    }
    write_atomically(folder / "history.csv", history)
    for name, content in files.items():
        write_atomically(folder / name, content)
    rows = list(csv.DictReader(history.splitlines()))
    return {"history.csv": history_digest(rows)} | {n: hashlib.sha256(c).hexdigest() for n, c in files.items()}


def summarize(name: str, training: Training, dataset: Clips) -> RunRecord:
    """Return a record of the metrics and counts of a finished training; the caller adds device, files and provenance."""
    config, history = training.config, training.history
    shape = config.clip_shape
    selected = {
        "last": history[-1],
        "best_on_validation": training.best("validation_mse"),
        "best_on_test": training.best("test_mse"),
    }
    test_clips, with_lpips = config.data.test_clips, config.training.lpips
    trivial = {
        trivial_name: finite(evaluate(predict, dataset, "test", test_clips, shape.context_frames, with_lpips=with_lpips))
        for trivial_name, predict in trivial_predictors(shape.horizon_frames).items()
    }
    # FLOPs are those of PyTorch's operators, which the trained model does not call if it is accelerated.
    with torch.device("meta"):
        unaccelerated = build_model(config.model, shape)
    return RunRecord(
        run=name,
        config=config,
        config_hash=config.hash,
        status="diverged" if training.diverged else "done",
        metrics={selection: {"epoch": row["epoch"]} | finite(_test_metrics(row)) for selection, row in selected.items()},
        trivial=trivial,
        num_params=count_parameters(unaccelerated)["total"],
        prediction_flops=count_flops(unaccelerated, shape),
        seconds={
            "training": sum(row["train_seconds"] for row in history),
            "evaluation": sum(row["evaluation_seconds"] for row in history),
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
def _examples_file(training: Training, dataset: Clips, count: int) -> bytes:
    """Return context, truth and prediction of the first test clips, uint8 (N, T, C, H, W), to be drawn later without torch."""
    config = training.config
    num_context = config.clip_shape.context_frames
    clip = dataset.clips("test", torch.arange(min(count, config.data.test_clips)))
    prediction = predictor(training.model, dataset.device, config.training)(clip[:, :num_context]).float()
    arrays = {"context": clip[:, :num_context], "truth": clip[:, num_context:], "prediction": prediction.nan_to_num(0)}
    file = io.BytesIO()
    np.savez_compressed(file, **{name: _to_uint8(values) for name, values in arrays.items()})
    return file.getvalue()


def _to_uint8(values: torch.Tensor) -> Any:
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
