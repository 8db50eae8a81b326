"""Write the outputs of a trained run, summarize it for its record, and load its model again."""

import csv
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from stlight.config import RunConfig
from stlight.data import Clips
from stlight.kernels import accelerate
from stlight.model import build_model
from stlight.model.complexity import count_flops, count_parameters
from stlight.runs.record import RunRecord, exploded_mse, finite, history_digest
from stlight.runtime.atomic_files import write_atomically
from stlight.training.loop import Row, Training, evaluate, predictor, trivial_predictors

# Number of test clips whose predictions are kept for figures: the first ones, the same in every run.
NUM_EXAMPLES = 3


def write_outputs(folder: Path, training: Training, dataset: Clips) -> dict[str, str]:
    """Write history, losses, weights and example predictions, and return their checksums for the record."""
    history = _csv_text(list(training.history[0]), training.history)
    weights = {name: tensor.cpu().clone() for name, tensor in training.model.state_dict().items()}
    files = {
        "history.csv": history.encode(),
        "losses.csv": _csv_text(["step", "train_loss"], training.loss_rows).encode(),
        "weights.safetensors": safetensors.torch.save(weights, metadata={"config": json.dumps(training.config.model_dump())}),
        "examples.npz": _examples_file(training, dataset),
    }
    for name, content in files.items():
        write_atomically(folder / name, content)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    return digests | {"history.csv": history_digest(list(csv.DictReader(history.splitlines())))}


def _csv_text(columns: list[str], rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def summarize(name: str, training: Training, dataset: Clips, **facts: Any) -> RunRecord:
    """Return the record of a finished training: its metrics and counts, and the facts given for other fields."""
    config, history, shape = training.config, training.history, training.config.clip_shape
    selected = {
        "last": history[-1],
        "best_on_validation": training.best("validation_mse"),
        "best_on_test": training.best("test_mse"),
    }
    metrics = {
        selection: {"epoch": row["epoch"]}
        | finite({name.removeprefix("test_"): value for name, value in row.items() if name.startswith("test_")})
        for selection, row in selected.items()
    }
    test_clips, with_lpips = config.data.test_clips, config.training.lpips
    trivial = {
        trivial_name: finite(evaluate(predict, dataset, "test", test_clips, shape.context_frames, with_lpips=with_lpips))
        for trivial_name, predict in trivial_predictors(shape.horizon_frames).items()
    }
    # A network can forget all that it learnt while its loss stays finite, e.g. if BatchNorm's running statistics are noise.
    diverged = training.diverged or not history[-1]["test_mse"] <= exploded_mse(trivial)
    # FLOPs are those of PyTorch's operators, which the trained model does not call if it is accelerated.
    with torch.device("meta"):
        unaccelerated = build_model(config.model, shape, dataset=config.data.dataset)
    return RunRecord(
        run=name,
        config=config,
        config_hash=config.hash,
        status="diverged" if diverged else "done",
        metrics=metrics,
        trivial=trivial,
        num_params=count_parameters(unaccelerated)["total"],
        prediction_flops=count_flops(unaccelerated, shape),
        **facts,
    )


def load_run(path: str | Path) -> nn.Module:
    """Load a run's model with its trained weights, ready to predict: (B, T, C, H, W) → (B, T', C, H, W).

    `path` is the run's folder, results/<scale>/runs/<dataset>/<variant>/seed<k>, or its weights.safetensors, a file that cannot
    hold code. If the record lies beside it, its checksum there must match. The compiled kernels accelerate the model if they
    can; `stlight.kernels.accelerate(model, "plain")` removes them.
    Raises `FileNotFoundError` if there is no such file, `ValueError` if it is damaged or not the weights of a run.
    """
    path = Path(path)
    path = path / "weights.safetensors" if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: load_run takes the folder of a finished run")
    record = path.with_name("record.json")
    try:
        stated = json.loads(record.read_bytes())["files"].get(path.name) if record.is_file() else None
        if stated not in (None, hashlib.sha256(path.read_bytes()).hexdigest()):
            raise ValueError("it does not have the checksum that the record beside it states")
        with safe_open(path, "pt") as file:
            config = RunConfig.model_validate(json.loads((file.metadata() or {})["config"]))
            weights = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        model = build_model(config.model, config.clip_shape, dataset=config.data.dataset)
        model.load_state_dict(weights)
    except (SafetensorError, ValueError, TypeError, AttributeError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path} is damaged, or not the weights of a run: {error}") from error
    return accelerate(model.eval())


@torch.no_grad()
def _examples_file(training: Training, dataset: Clips) -> bytes:
    """Return context, truth and prediction of the first test clips, uint8 (N, T, C, H, W), to be drawn later without torch."""
    config = training.config
    num_context = config.clip_shape.context_frames
    clip = dataset.clips("test", torch.arange(min(NUM_EXAMPLES, config.data.test_clips)))
    prediction = predictor(training.model, dataset.device, config.training)(clip[:, :num_context]).float()
    arrays = {"context": clip[:, :num_context], "truth": clip[:, num_context:], "prediction": prediction.nan_to_num(0)}
    pixels: dict[str, Any] = {
        name: (values.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy() for name, values in arrays.items()
    }
    file = io.BytesIO()
    np.savez_compressed(file, **pixels)
    return file.getvalue()
