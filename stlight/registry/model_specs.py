"""The models that an experiment can train, by the name that the paper gives them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

BASELINE_FIELDS = ("baseline_width", "baseline_depth", "benchmark_version")
"""Fields of the model that apply to baselines only. All others but `model` apply to STLight only."""
OURS = "STLight-L"
"""The model that the supplement is about, at whatever size its configuration says."""


@dataclass(frozen=True)
class Published:
    """Values of a model's published configuration for one data set that differ between data sets."""

    max_lr: float
    """Peak learning rate."""
    frame_multiple: int
    """Height and width of a frame must be divisible by it."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of the class whose defaults are Moving MNIST's."""


def _patched(max_lr: float, patch_size: int, **arguments: Any) -> Published:
    """Return a configuration of a model that takes patches of pixels."""
    return Published(max_lr, patch_size, {"patch_size": patch_size} | arguments)


class BaselineSpec(NamedTuple):
    """A model of another paper: one class in one file of `stlight/model/baselines`."""

    module: str
    class_name: str
    max_lr: float
    """Peak learning rate for Moving MNIST: of the benchmark's configuration, or of the authors' code for models of Table 1."""
    frame_multiple: int = 4
    """Height and width of a frame must be divisible by it, in that configuration."""
    elsewhere: Mapping[str, Published] = {}
    """The benchmark's configurations for other data sets, by name."""
    loss_is_mse: bool = False
    """True if a training step minimizes the mean squared error of the prediction, as STLight's does, and nothing else."""
    has_correction: bool = False
    """True if the benchmark corrected the model's code after the version that computed its row of Table 2."""
    phases: int = 1
    """Number of phases of a training run, each of which takes an epoch or more."""


# From the benchmark's version 0.3.0: configs/mmnist, configs/taxibj and configs/kth.
# Those of PredNet for the latter two state no learning rate.
BASELINES: dict[str, BaselineSpec] = {
    "ConvLSTM-S": BaselineSpec(
        "convlstm_s", "ConvLSTM", 5e-4, has_correction=True, elsewhere={"taxibj": _patched(5e-4, 2), "kth": _patched(1e-3, 2)}
    ),
    "PredNet": BaselineSpec("prednet", "PredNet", 1e-4, frame_multiple=16),
    "PhyDNet": BaselineSpec(
        "phydnet",
        "PhyDNet",
        1e-3,
        elsewhere={
            "taxibj": _patched(5e-4, 2, sampling_epochs=50_000 / 1_278),
            "kth": _patched(1e-3, 4, sampling_epochs=50_000 / 325),
        },
    ),
    "PredRNN": BaselineSpec("predrnn", "PredRNN", 5e-4, elsewhere={"taxibj": _patched(1e-4, 2), "kth": _patched(1e-3, 2)}),
    "PredRNN++": BaselineSpec(
        "predrnn_plus_plus",
        "PredRNNPlusPlus",
        1e-4,
        has_correction=True,
        elsewhere={"taxibj": _patched(1e-4, 2), "kth": _patched(1e-3, 2)},
    ),
    "MIM": BaselineSpec("mim", "MIM", 5e-4, elsewhere={"taxibj": _patched(1e-2, 2), "kth": _patched(1e-4, 4)}),
    "MAU": BaselineSpec(
        "mau",
        "MAU",
        1e-3,
        elsewhere={"taxibj": Published(1e-3, 2, {"halvings": 1}), "kth": Published(5e-4, 2, {"halvings": 1})},
    ),
    "E3D-LSTM": BaselineSpec(
        "e3d_lstm",
        "E3DLSTM",
        1e-4,
        elsewhere={"taxibj": _patched(5e-3, 2), "kth": Published(5e-4, 16, {"patch_size": 8, "stride": 2})},
    ),
    "PredRNN.V2": BaselineSpec(
        "predrnn",
        "PredRNNV2",
        5e-4,
        elsewhere={"taxibj": _patched(5e-4, 2), "kth": _patched(1e-3, 2, decoupling=0.01)},
    ),
    "SimVP+IncepU": BaselineSpec(
        "simvp_incepu",
        "SimVP",
        1e-3,
        loss_is_mse=True,
        elsewhere={
            "taxibj": Published(1e-3, 2, {"code_dim": 32, "hidden_dim": 256, "halvings": 1}),
            # Six blocks as in configs/kth/SimVP.py, which the benchmark's page counts; kth/simvp/SimVP_IncepU.py states four.
            "kth": Published(1e-3, 2, {"hidden_dim": 256, "layers": 6, "halvings": 1}),
        },
    ),
    "TAU": BaselineSpec(
        "tau",
        "TAU",
        1e-3,
        elsewhere={
            "taxibj": Published(5e-4, 2, {"code_dim": 32, "hidden_dim": 256, "halvings": 1, "drop_path": 0.1}),
            "kth": Published(1e-3, 2, {"hidden_dim": 256, "layers": 6, "halvings": 1, "drop_path": 0.1}),
        },
    ),
    "Crevnet": BaselineSpec("crevnet", "CrevNet", 5e-4, frame_multiple=8),
    "IAM4VP": BaselineSpec("iam4vp", "IAM4VP", 1e-3),
    "VPTR-NAR": BaselineSpec("vptr", "VPTRNAR", 1e-4, frame_multiple=16, phases=2),
    "VPTR-FAR": BaselineSpec("vptr", "VPTRFAR", 1e-4, frame_multiple=16, phases=2),
}


def published(model: str, dataset: str) -> Published:
    """Return the benchmark's configuration of a baseline for a data set; Moving MNIST's if it has none for this one."""
    spec = BASELINES[model]
    return spec.elsewhere.get(dataset, Published(spec.max_lr, spec.frame_multiple))


def borrows(model: str, dataset: str) -> bool:
    """Return True if a baseline takes Moving MNIST's configuration for another data set, for want of one."""
    return model in BASELINES and dataset not in ("mmnist", *BASELINES[model].elsewhere)


def loss_is_mse(model: str) -> bool:
    """Return True if a model's training loss is the mean squared error of its prediction, so comparable with a test MSE."""
    return model == OURS or BASELINES[model].loss_is_mse
