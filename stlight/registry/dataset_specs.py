"""The benchmark's data sets: one entry each. The code that reads a data set's files is the module that its entry names."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from stlight.registry.model_specs import BASELINES, published


class ClipShape(NamedTuple):
    """Number of context and horizon frames, and the size of one frame (C, H, W)."""

    context_frames: int
    horizon_frames: int
    channels: int
    height: int
    width: int


@dataclass(frozen=True, kw_only=True)
class DatasetSpec:
    """One data set of the benchmark."""

    shape: ClipShape
    files: tuple[str, ...]
    """Files or folders under the data root; the data set is complete if all of them exist."""
    module: str
    """Module under `stlight.data` that checks, converts and opens the files."""
    fallback: Literal["embedded", "stand_in"] | None
    """Source of clips that needs no files, or None."""
    protocol: dict[str, Any] = field(default_factory=dict)
    """Configuration fields in which the benchmark differs from the defaults of `stlight.config`: numbers of clips, training."""
    stlight: dict[str, Any] = field(default_factory=dict)
    """Configuration fields in which the paper's STLight differs from the benchmark (main paper, Table 2)."""
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)
    """hidden_dim and depth of the published sizes by name (main paper, Table 3). STLight-L is the base of all experiments."""
    prepared_megabytes: int
    """Approximate size of the converted arrays."""


CUSTOM_NAME = re.compile("^[a-z][a-z0-9_]*$")

KTH_ACTIONS = ("boxing", "handclapping", "handwaving", "jogging", "running", "walking")

DATASETS: dict[str, DatasetSpec] = {
    "mmnist": DatasetSpec(
        shape=ClipShape(10, 10, 1, 64, 64),
        files=("moving_mnist/train-images-idx3-ubyte.gz", "moving_mnist/mnist_test_seq.npy"),
        module="moving_mnist",
        fallback="embedded",
        stlight={"max_lr": 3e-3},
        sizes={"STLight-XS": (800, 16), "STLight-S": (1000, 16), "STLight-M": (1200, 16), "STLight-L": (1400, 16)},
        prepared_megabytes=50,
    ),
    "mfmnist": DatasetSpec(
        shape=ClipShape(10, 10, 1, 64, 64),
        files=("moving_fmnist/train-images-idx3-ubyte.gz", "moving_fmnist/fmnist_test_seq.npy"),
        module="moving_mnist",
        fallback=None,
        prepared_megabytes=50,
    ),
    "taxibj": DatasetSpec(
        shape=ClipShape(4, 4, 2, 32, 32),
        files=("taxibj/dataset.npz",),
        module="taxibj",
        fallback="stand_in",
        protocol={"max_lr": 5e-4, "num_epochs": 50, "schedule": "cosine", "warmup_epochs": 5}
        | {"clips_per_epoch": 20_461, "validation_clips": 500, "test_clips": 500},
        stlight={"max_lr": 3e-3, "patch_size": 1},
        sizes={"STLight-S": (256, 12), "STLight-M": (256, 20), "STLight-L": (512, 10)},
        prepared_megabytes=1400,
    ),
    "kth": DatasetSpec(
        shape=ClipShape(10, 20, 1, 128, 128),
        files=tuple(f"kth/{action}" for action in KTH_ACTIONS),
        module="kth",
        fallback="stand_in",
        protocol={"num_epochs": 100, "clips_per_epoch": 5_200, "validation_clips": 150, "test_clips": 3_167},
        stlight={"max_lr": 5e-4, "batch_size": 12, "k2": 5},
        sizes={"STLight-XS": (400, 8), "STLight-S": (600, 14), "STLight-M": (800, 14), "STLight-L": (1000, 14)},
        prepared_megabytes=4000,
    ),
}


def base_of(dataset: str, model: str) -> dict[str, Any]:
    """Return the fields in which a model's base on a data set differs from the defaults of `stlight.config`.

    `model` is a baseline, or one of the data set's sizes of STLight. A custom data set has the defaults.
    """
    if (spec := DATASETS.get(dataset)) is None:
        return {}
    own = spec.protocol | ({"max_lr": published(model, dataset).max_lr} if model in BASELINES else spec.stlight)
    return own | dict(zip(("hidden_dim", "depth"), spec.sizes.get(model, ()), strict=False))
