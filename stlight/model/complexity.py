"""What a model costs (Section B): parameters by component, the closed forms, and forward FLOPs of one clip."""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.utils.flop_counter import FlopCounterMode

from stlight.config import ClipShape, ModelConfig
from stlight.kernels import using
from stlight.model import Rollout, STLight, build_model


def closed_forms(config: ModelConfig, shape: ClipShape) -> dict[str, int]:
    """The leading terms that Section B gives for each component: weights of the convolutions, no bias, no BatchNorm."""
    d, p = config.hidden_dim, config.patch_size
    k_e = p * max(1, config.overlap)
    frames_out = shape.context_frames if config.prediction == "rollout" else shape.horizon_frames
    return {
        "patch_encoder": shape.context_frames * shape.channels * d * k_e**2,
        "mixers": config.depth * (d**2 + d * config.k1**2 + d * config.k2**2),
        # Reassembling first needs p² times the outputs and reads p² times the inputs (Section F).
        "patch_reassemble": frames_out * shape.channels * d // p**2 * (1 if config.decoder == "shuffle_reassemble" else p**4),
    }


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Learnable parameters of each component, and in all."""
    counts = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in _inner(model).named_children()
        if any(True for _ in module.parameters())
    }
    return counts | {"total": sum(counts.values())}


def count_flops(model: nn.Module, shape: ClipShape) -> int:
    """Multiply-adds of all convolutions in one forward pass of one clip, each counted once, by torch's own counter."""
    with FlopCounterMode(display=False) as counter:
        _run_on_one_patch(model, shape)
    return _scaled_up(counter.get_total_flops() // 2, model, shape)


def count_flops_by_fvcore(model: nn.Module, shape: ClipShape) -> dict[str, int]:
    """The same by fvcore, as the benchmark counts: by operator ("conv", "batch_norm"), a multiply-add counted once."""
    with warnings.catch_warnings():
        # Tracing warns that shape checks become constants, which is what a count for one shape wants; and fvcore rests on
        # torch.jit, which torch deprecates.
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        with using("plain"):
            analysis = FlopCountAnalysis(model.eval(), _clip_of_one_patch(model, shape))
            by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return {name: _scaled_up(int(count), model, shape) for name, count in by_operator.items()}


# Every operator of a fully convolutional model costs the same at each patch. So both counters look at a frame of one patch and
# the count is scaled up, which is exact and saves computing whole forward passes.


def _clip_of_one_patch(model: nn.Module, shape: ClipShape) -> Tensor:
    side = _inner(model).patch_size
    return torch.zeros((1, shape.context_frames, shape.channels, side, side), device=next(model.parameters()).device)


@torch.no_grad()
def _run_on_one_patch(model: nn.Module, shape: ClipShape) -> None:
    with using("plain"):
        model.eval()(_clip_of_one_patch(model, shape))


def _scaled_up(count: int, model: nn.Module, shape: ClipShape) -> int:
    return count * shape.height * shape.width // _inner(model).patch_size ** 2


def _inner(model: nn.Module) -> STLight:
    inner = model.model if isinstance(model, Rollout) else model
    assert isinstance(inner, STLight)
    return inner


def complexity(config: ModelConfig, shape: ClipShape) -> dict[str, Any]:
    """Counts and closed forms of one configuration; raises `RuntimeError` should the two FLOP counters disagree."""
    # No weight is needed: drawing those of the largest models would take most of the time.
    with torch.device("meta"):
        model = build_model(config, shape)
    model = model.to_empty(device="cpu")
    flops, by_operator = count_flops(model, shape), count_flops_by_fvcore(model, shape)
    if flops != by_operator["conv"]:
        raise RuntimeError(f"torch counts {flops} multiply-adds in convolutions, fvcore {by_operator['conv']}")
    return {
        "parameters": count_parameters(model),
        "closed_forms": closed_forms(config, shape),
        "flops": flops,
        "flops_fvcore": sum(by_operator.values()),
    }
