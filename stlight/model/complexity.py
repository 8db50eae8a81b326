"""Count a model's parameters by component and the FLOPs of one clip, beside the closed forms of Section B."""

import warnings
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stlight.config import ModelConfig
from stlight.model import Rollout, build_model
from stlight.model.baselines import Baseline
from stlight.model.stlight import find_stlight
from stlight.registry.dataset_specs import ClipShape


def closed_forms(config: ModelConfig, shape: ClipShape) -> dict[str, int]:
    """Return Section B's leading term for each component: weights of convolutions without biases and BatchNorm."""
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
    """Count the learnable parameters of each component, and their total."""
    inner = model.model if isinstance(model, Rollout) else model
    counts = {name: sum(p.numel() for p in module.parameters()) for name, module in inner.named_children()}
    return {name: count for name, count in counts.items() if count} | {"total": sum(counts.values())}


def count_weights(model: nn.Module) -> dict[str, int]:
    """Count the weights of each component's convolutions, without biases and BatchNorm, as Section B's formulas do."""
    inner = model.model if isinstance(model, Rollout) else model
    return {name: sum(p.numel() for p in part.parameters() if p.ndim == 4) for name, part in inner.named_children()}


@torch.no_grad()
def count_flops(model: nn.Module, shape: ClipShape) -> int:
    """Count the multiply-adds of convolutions and matrix products that predict one clip, with torch's counter.

    The model may be on the device "meta". It must not be accelerated, because the count is that of PyTorch's operators.
    """
    clip, patches = _least_clip(model, shape)
    # Torch counts only this implementation of attention, as two products.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model.eval()(clip)
    return counter.get_total_flops() // 2 * patches


def count_flops_by_fvcore(model: nn.Module, shape: ClipShape) -> dict[str, int]:
    """Count multiply-adds by operator ("conv", "batch_norm") with fvcore, as the benchmark does."""
    clip, patches = _least_clip(model, shape)
    with warnings.catch_warnings():
        # Tracing warns that shape checks become constants, which is right for one shape. fvcore needs torch.jit, which torch
        # deprecates.
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.jit_handles import get_shape

        def attention(inputs: list[Any], outputs: list[Any]) -> int:
            """Count both products, because the benchmark writes them out."""
            queries, keys = get_shape(inputs[0]), get_shape(inputs[1])
            return int(2 * prod(queries) * keys[-2])

        analysis = FlopCountAnalysis(model.eval(), clip)
        analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
        by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return {name: int(count) * patches for name, count in by_operator.items()}


def _least_clip(model: nn.Module, shape: ClipShape) -> tuple[Tensor, int]:
    """Return a clip to count on, and the factor from its count to that of a whole clip.

    One patch suffices for a fully convolutional model, because every operator costs the same at each patch.
    """
    stlight = find_stlight(model)
    height, width = (stlight.patch_size,) * 2 if stlight else (shape.height, shape.width)
    device = next(model.parameters()).device
    clip = torch.zeros((1, shape.context_frames, shape.channels, height, width), device=device)
    return clip, shape.height * shape.width // (height * width)


def complexity(config: ModelConfig, shape: ClipShape) -> dict[str, Any]:
    """Return counts and closed forms of one configuration.

    benchmark_flops are all operators that the benchmark counts for a baseline, and the convolutions of STLight.
    prediction_flops are the convolutions and matrix products of a prediction. Raises `RuntimeError` if two counters disagree.
    """
    # Without weights, because drawing those of the largest models would take most of the time.
    with torch.device("meta"):
        model = build_model(config, shape)
    parameters, flops = count_parameters(model), count_flops(model, shape)
    # Because fvcore has to run the model.
    model = model.to_empty(device="cpu")
    if is_baseline := isinstance(model, Baseline):
        model.forward = model.counted_by_benchmark  # type: ignore[assignment, method-assign]
    by_operator = count_flops_by_fvcore(model, shape)
    if not is_baseline and flops != by_operator["conv"]:
        raise RuntimeError(f"torch counts {flops} multiply-adds in convolutions, fvcore {by_operator['conv']}")
    all_flops = sum(by_operator.values())
    counts = {"parameters": parameters, "benchmark_flops": all_flops if is_baseline else flops, "prediction_flops": flops}
    if is_baseline:
        return counts
    forms = {"weights": count_weights(model), "closed_forms": closed_forms(config, shape)}
    return counts | forms | {"flops_fvcore": all_flops}
