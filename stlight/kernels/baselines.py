"""Accelerate the baselines of Table 2 from outside, on a CPU in float32; `accelerate` calls this."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.kernels.cells import SPECTRAL
from stlight.kernels.compile import library
from stlight.kernels.direct import DirectConvolution, convolve_directly
from stlight.kernels.fused import observed
from stlight.kernels.spectral import CHANNELS, bytes_of_spectra
from stlight.kernels.stages import addressable
from stlight.model.baselines import Baseline
from stlight.model.baselines.convlstm_s import ConvLSTM
from stlight.model.baselines.e3d_lstm import E3DLSTM
from stlight.model.baselines.mim import MIM
from stlight.model.baselines.phydnet import PhyDNet
from stlight.model.baselines.predrnn import PredRNN, PredRNNState, PredRNNV2
from stlight.model.baselines.predrnn_plus_plus import PredRNNPlusPlus
from stlight.model.baselines.recurrent import Recurrent
from stlight.model.build import is_published

_BY_FREQUENCY = (ConvLSTM, E3DLSTM, MIM, PredRNN, PredRNNPlusPlus, PredRNNV2)
# Wide models gain less, and the spectra of their weights would take more memory than all activations.
_MOST_BYTES = 2**27


def accelerate_baseline(model: Baseline) -> None:
    """Install the kernels that fit a baseline's modules, dtype and device; without any, it stays plain."""
    if not all(map(addressable, model.state_dict().values())) or not is_published(model):
        return
    if type(model) in _BY_FREQUENCY:
        if _compiled() and _fits(model):  # type: ignore[arg-type]
            vars(model)["unroll"] = SpectralUnroll(model)  # type: ignore[arg-type]
            if type(model) is PredRNNV2:
                vars(model)["error"] = BatchedError(model)
    elif library("direct.c"):
        convolve_directly(model)
        if type(model) is PhyDNet:
            vars(model)["unroll"] = BatchedUnroll(model)


def make_plain(model: Baseline) -> None:
    """Remove what `accelerate_baseline` installed."""
    for module, name in _installed(model):
        del vars(module)[name]


def is_accelerated(model: Baseline) -> bool:
    """Return True if kernels are installed."""
    return bool(_installed(model))


def _installed(model: Baseline) -> list[tuple[nn.Module, str]]:
    kinds = SpectralUnroll, BatchedError, BatchedUnroll, DirectConvolution
    return [
        (m, name) for m in model.modules() for name in ("unroll", "error", "forward") if isinstance(vars(m).get(name), kinds)
    ]


def _fits(model: Recurrent) -> bool:
    """Return True if channels fill vectors, the spectra fit into memory, and no row of attention spans two frames."""
    d, positions = model.hidden_dim, model.frame_size[0] * model.frame_size[1]
    aligned = not d % CHANNELS and not model.patch_channels % CHANNELS
    rows = type(model) is not E3DLSTM or not positions % d
    strided = any(isinstance(module, nn.Conv3d) and module.stride != (1, 1, 1) for module in model.modules())
    return aligned and rows and not strided and bytes_of_spectra(model, model.frame_size) <= _MOST_BYTES


class SpectralUnroll:
    """The unrolling of a recurrent model whose cells convolve by frequency, an attribute of that instance."""

    def __init__(self, model: Recurrent) -> None:
        self.model = model

    def __call__(self, clip: Tensor, given: Tensor) -> tuple[Tensor, list[Any]]:
        """Do what `Recurrent.unroll` does, on faster versions of the model's children if they serve now."""
        model = self.model
        longer = len(given) >= model.shape.context_frames + model.shape.horizon_frames
        if longer or not _serves(model, clip):
            return type(model).unroll(model, clip, given)
        faster = object.__new__(type(model))
        vars(faster).update({name: value for name, value in vars(model).items() if name != "unroll"})
        for name, child in model.named_children():
            vars(faster)[name] = self._faster(child)
        return type(model).unroll(faster, clip, given)

    def _faster(self, module: nn.Module) -> Any:
        if isinstance(module, nn.ModuleList):
            return [self._faster(child) for child in module]
        return SPECTRAL[type(module)](module, self.model) if type(module) in SPECTRAL else module


class BatchedError:
    """The loss of a PredRNN.V2, an attribute of that instance: the terms of all steps and layers pass the adapter at once."""

    def __init__(self, model: PredRNNV2) -> None:
        self.model = model

    def __call__(self, predicted: Tensor, target: Tensor, states: list[PredRNNState]) -> Tensor:
        """Do what `PredRNNV2.error` does."""
        model = self.model
        if _hooked(model):
            return PredRNNV2.error(model, predicted, target, states)
        # Stacked in the memory order of the kernels, so that nothing is transposed.
        terms = [torch.stack([both[k].permute(2, 3, 0, 1) for state in states for both in state.added]) for k in (0, 1)]
        c, m = (term.flatten(1, 2) @ model.adapter.weight.flatten(1).T for term in terms)
        return F.mse_loss(predicted, target) + 0.1 * torch.cosine_similarity(c, m, dim=1).abs().mean()


class BatchedUnroll:
    """The unrolling of a PhyDNet, an attribute of that instance.

    One call codes all given frames, and one decodes the predictions that follow them.
    """

    def __init__(self, model: PhyDNet) -> None:
        self.model = model

    def __call__(self, clip: Tensor, given: int) -> Tensor:
        """Do what `PhyDNet.unroll` does."""
        model = self.model
        if _hooked(model):
            return PhyDNet.unroll(model, clip, given)
        code = model.encoder(clip[:, :given].flatten(0, 1))
        parts = [encoder(code).unflatten(0, (-1, given)) for encoder in (model.encoder_physical, model.encoder_residual)]
        state, codes = model.begin(parts[0][:, 0]), []
        for t in range(given):
            *advanced, state = model.advance(parts[0][:, t], parts[1][:, t], state)
            codes.append(advanced)
        physical, residual = (torch.stack(part, 1).flatten(0, 1) for part in zip(*codes, strict=True))
        predicted = list(model.decode(physical, residual).unflatten(0, (-1, given)).unbind(1))
        for _ in range(given, model.shape.context_frames + model.shape.horizon_frames - 1):
            prediction, state = model.step(predicted[-1], state)
            predicted.append(prediction)
        return torch.stack(predicted, 1)


def _serves(model: Recurrent, clip: Tensor) -> bool:
    """Return True if the kernels can compute this step, and nobody watches the modules or operations that they replace."""
    usual = type(clip) is Tensor and clip.is_cpu and clip.dtype == torch.float32 and clip.numel() > 0
    unchanged = all(map(addressable, model.parameters())) and not _hooked(model)
    return usual and unchanged and not observed() and _compiled()


def _compiled() -> bool:
    return library("spectral.c") is not None and library("gates.c") is not None


def _hooked(model: nn.Module) -> bool:
    kinds = "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks"
    return any(getattr(module, kind) for module in model.modules() for kind in kinds)
