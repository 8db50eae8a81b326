"""The models that an experiment can train, by the name that the paper gives them."""

from typing import NamedTuple

BASELINE_FIELDS = ("baseline_width", "baseline_depth", "benchmark_version")
"""Fields of the model that apply to baselines only. All others but `model` apply to STLight only."""
OURS = "STLight-L"
"""The model that the supplement is about, at whatever size its configuration says."""


class BaselineSpec(NamedTuple):
    """A model of another paper: one class in one file of `stlight/model/baselines`."""

    module: str
    class_name: str
    max_lr: float
    """Peak learning rate of the benchmark's configuration for Moving MNIST."""
    frame_multiple: int = 4
    """Height and width of a frame must be divisible by it."""
    loss_is_mse: bool = False
    """True if a training step minimizes the mean squared error of the prediction, as STLight's does, and nothing else."""
    has_correction: bool = False
    """True if the benchmark corrected the model's code after the version that computed its row of Table 2."""
    phases: int = 1
    """Number of phases of a training run, each of which takes an epoch or more."""


BASELINES: dict[str, BaselineSpec] = {
    "ConvLSTM-S": BaselineSpec("convlstm_s", "ConvLSTM", 5e-4, has_correction=True),
    "PredNet": BaselineSpec("prednet", "PredNet", 1e-4, frame_multiple=16),
    "PhyDNet": BaselineSpec("phydnet", "PhyDNet", 1e-3),
    "PredRNN": BaselineSpec("predrnn", "PredRNN", 5e-4),
    "PredRNN++": BaselineSpec("predrnn_plus_plus", "PredRNNPlusPlus", 1e-4, has_correction=True),
    "MIM": BaselineSpec("mim", "MIM", 5e-4),
    "MAU": BaselineSpec("mau", "MAU", 1e-3),
    "E3D-LSTM": BaselineSpec("e3d_lstm", "E3DLSTM", 1e-4),
    "PredRNN.V2": BaselineSpec("predrnn", "PredRNNV2", 5e-4),
    "SimVP+IncepU": BaselineSpec("simvp_incepu", "SimVP", 1e-3, loss_is_mse=True),
    "TAU": BaselineSpec("tau", "TAU", 1e-3),
    "VPTR-NAR": BaselineSpec("vptr", "VPTRNAR", 1e-4, frame_multiple=8, phases=2),
    "VPTR-FAR": BaselineSpec("vptr", "VPTRFAR", 1e-4, frame_multiple=8, phases=2),
}


def loss_is_mse(model: str) -> bool:
    """Return True if a model's training loss is the mean squared error of its prediction, so comparable with a test MSE."""
    return model == OURS or BASELINES[model].loss_is_mse
