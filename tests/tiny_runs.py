"""Runs of a second, and what they leave."""

import numpy as np
import pandas as pd
from safetensors.torch import load_file

from stlight.config import RunConfig
from stlight.records import read_record


def tiny(**fields):
    """A run of a second: the TaxiBJ stand-in, which needs no files."""
    base = {"dataset": "taxibj", "source": "stand_in", "hidden_dim": 16, "depth": 3, "batch_size": 2, "num_epochs": 3}
    base |= {"clips_per_epoch": 9, "validation_clips": 3, "test_clips": 4, "max_lr": 0.01}
    return RunConfig.from_fields(base | fields)


def without_times(record):
    """A record's content without seconds and time stamps."""
    content = record.model_dump(exclude={"seconds"})
    content["provenance"] = {k: v for k, v in content["provenance"].items() if k != "started"}
    return content


def outputs(folder):
    """All that a run leaves, times aside: its record, its history, and its weights and examples as bytes."""
    history = pd.read_csv(folder / "history.csv")
    columns = [name for name in history if not name.endswith("seconds")]
    with np.load(folder / "examples.npz") as examples:
        arrays = {name: examples[name].tobytes() for name in examples}
    weights = {name: tensor.numpy().tobytes() for name, tensor in load_file(folder / "weights.safetensors").items()}
    return without_times(read_record(folder / "record.json")), history[columns].to_csv(), weights, arrays
