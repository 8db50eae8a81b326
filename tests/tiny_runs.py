"""Configure runs that take a second, read their outputs, and write records and experiments without training."""

import math

import numpy as np
import pandas as pd
import yaml
from safetensors.torch import load_file

from stlight.config import RunConfig
from stlight.runs.record import RunRecord, read_record, write_record

METRICS = ("mse", "mae", "ssim", "ssim_unit_range", "psnr")


def tiny(**fields):
    """Configure a run of a second on the TaxiBJ stand-in, which needs no files."""
    base = {"dataset": "taxibj", "source": "stand_in", "hidden_dim": 16, "depth": 3, "batch_size": 2, "num_epochs": 3}
    base |= {"clips_per_epoch": 9, "validation_clips": 3, "test_clips": 4, "max_lr": 0.01}
    return RunConfig.from_fields(base | fields)


def without_times(record):
    """Return a record's content without seconds and time stamps."""
    content = record.model_dump(exclude={"seconds"})
    content["provenance"] = {k: v for k, v in content["provenance"].items() if k != "started"}
    return content


def outputs(folder):
    """Return all outputs of a run without times: its record, its history, its losses, and its weights and examples as bytes."""
    history = pd.read_csv(folder / "history.csv")
    columns = [name for name in history if not name.endswith("seconds")]
    with np.load(folder / "examples.npz") as examples:
        arrays = {name: examples[name].tobytes() for name in examples}
    weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "weights.safetensors").items()}
    losses = (folder / "losses.csv").read_text()
    return without_times(read_record(folder / "record.json")), history[columns].to_csv(), losses, weights, arrays


def record_untrained(folder, name, config, status="done", losses=(4.0, 2.0, 1.0), trivial=None, **values):
    """Write the record, history and losses of a run under a scale's results without training it.

    `losses` are by epoch. The test MSE is 100 times as large. The loss in losses.csv is the same error per pixel, so that one
    below 1.75 beats a black frame. `values` replaces metrics.
    """
    metrics = {"epoch": len(losses)} | dict.fromkeys(METRICS, 0.5) | values
    metrics = {key: value if value is not None and math.isfinite(value) else None for key, value in metrics.items()}
    record = RunRecord(
        run=name,
        config=config,
        config_hash=config.hash,
        status=status,
        metrics=dict.fromkeys(("last", "best_on_validation", "best_on_test"), metrics),
        trivial=trivial or {"repeat_last_frame": {"mse": 288.0}, "all_zeros": {"mse": 175.0}},
        num_params=1000,
        prediction_flops=10,
        seconds={"training": 1.0, "total": 2.0},
        device={},
        provenance={},
    )
    write_record(folder / "runs" / name / "record.json", record)
    history = pd.DataFrame({"epoch": range(1, len(losses) + 1), "train_loss": losses})
    history["test_mse"] = history["train_loss"] * 100
    history.to_csv(folder / "runs" / name / "history.csv", index=False)
    shape, steps = config.clip_shape, config.num_steps // len(losses)
    by_step = pd.DataFrame({"step": steps * history["epoch"], "train_loss": history["test_mse"]})
    by_step["train_loss"] /= shape.channels * shape.height * shape.width
    by_step.to_csv(folder / "runs" / name / "losses.csv", index=False)


def write_experiment(workflow, name="mine", **content):
    """Write an experiment's file: the MSE of two depths, with `content` on top."""
    base = {
        "title": "Mine",
        "paper": {"section": "-", "item": "Mine"},
        "summary": "Words.",
        "grid": {"depth": [8, 16]},
        "metrics": ["mse"],
        "figure": {"kind": "lines"},
    }
    (workflow / "experiments" / f"{name}.yaml").write_text(yaml.safe_dump(base | content))
