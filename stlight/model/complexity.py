"""What a model costs (Section B): parameters by component, the closed forms, and forward FLOPs of one clip."""

import copy
import warnings
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from stlight.config import ClipShape, ModelConfig
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
    inner = model.model if isinstance(model, Rollout) else model
    counts = {
        name: sum(p.numel() for p in module.parameters())
        for name, module in inner.named_children()
        if any(True for _ in module.parameters())
    }
    return counts | {"total": sum(counts.values())}


def count_flops(model: nn.Module, shape: ClipShape) -> int:
    """Multiply-adds of all convolutions in one forward pass of one clip, each counted once, by torch's own counter.

    Counted on a copy on the meta device, where nothing is computed and the plain operators are the ones seen.
    """
    model = copy.deepcopy(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(_one_clip(model, shape))
    return counter.get_total_flops() // 2


def count_flops_by_fvcore(model: nn.Module, shape: ClipShape) -> dict[str, int]:
    """The same by fvcore, as the benchmark counts: by operator ("conv", "batch_norm"), a multiply-add counted once.

    fvcore has to run the model; `shape` may be a smaller frame, see `complexity`.
    """
    with warnings.catch_warnings():
        # Tracing warns that shape checks become constants, which is what a count for one shape wants; and fvcore rests on
        # torch.jit, which torch deprecates.
        warnings.simplefilter("ignore", torch.jit.TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model.eval(), _one_clip(model, shape))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        return {name: int(count) for name, count in analysis.by_operator().items()}


def _one_clip(model: nn.Module, shape: ClipShape) -> torch.Tensor:
    size = (1, shape.context_frames, shape.channels, shape.height, shape.width)
    return torch.zeros(size, device=next(model.parameters()).device)


def complexity(config: ModelConfig, shape: ClipShape) -> dict[str, Any]:
    """Counts and closed forms of one configuration; raises `RuntimeError` should the two FLOP counters disagree."""
    model = build_model(config, shape)
    flops = count_flops(model, shape)

    # Every operator of a fully convolutional model costs the same at each pixel, so a small frame, scaled up, is exact, and
    # saves fvcore from computing a full forward pass.
    side = 4 * config.patch_size
    small = shape._replace(height=side, width=side)
    by_operator = count_flops_by_fvcore(model, small)
    by_operator = {name: count * shape.height * shape.width // side**2 for name, count in by_operator.items()}
    if flops != by_operator["conv"]:
        raise RuntimeError(f"torch counts {flops} multiply-adds in convolutions, fvcore {by_operator['conv']}")
    return {
        "parameters": count_parameters(model),
        "closed_forms": closed_forms(config, shape),
        "flops": flops,
        "flops_fvcore": sum(by_operator.values()),
    }
