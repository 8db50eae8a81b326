"""What a model costs (Section B): parameters by component, the closed forms, and forward FLOPs of one clip."""

import warnings
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from stlight.config import ModelConfig
from stlight.kernels import using
from stlight.model import Rollout, STLight, build_model
from stlight.model.baselines import Baseline
from stlight.registry.dataset_specs import ClipShape


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


@torch.no_grad()
def count_flops(model: nn.Module, shape: ClipShape) -> int:
    """Multiply-adds of the convolutions and products that predict one clip, each counted once, by torch's own counter.

    The model's device may be "meta".
    """
    clip, patches = _least_clip(model, shape)
    # Of attention's ways torch counts this one, as two products.
    with FlopCounterMode(display=False) as counter, using("plain"), sdpa_kernel(SDPBackend.MATH):
        model.eval()(clip)
    return counter.get_total_flops() // 2 * patches


def count_flops_by_fvcore(model: nn.Module, shape: ClipShape) -> dict[str, int]:
    """The same by fvcore, as the benchmark counts: by operator ("conv", "batch_norm"), a multiply-add counted once."""
    clip, patches = _least_clip(model, shape)
    with warnings.catch_warnings(), using("plain"):
        # Tracing warns that shape checks become constants, which is what a count for one shape wants; and fvcore rests on
        # torch.jit, which torch deprecates.
        warnings.simplefilter("ignore", TracerWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        from fvcore.nn import FlopCountAnalysis
        from fvcore.nn.jit_handles import get_shape

        def attention(inputs: list[Any], outputs: list[Any]) -> int:
            """Both products, which the benchmark writes out."""
            queries, keys = get_shape(inputs[0]), get_shape(inputs[1])
            return int(2 * prod(queries) * keys[-2])

        analysis = FlopCountAnalysis(model.eval(), clip)
        analysis.set_op_handle("aten::scaled_dot_product_attention", attention)
        by_operator = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return {name: int(count) * patches for name, count in by_operator.items()}


def _least_clip(model: nn.Module, shape: ClipShape) -> tuple[Tensor, int]:
    """A clip to count on, and how many times over its count makes that of a whole one.

    Every operator of a fully convolutional model costs the same at each patch: a frame of one patch will do.
    """
    stlight = next((module for module in model.modules() if isinstance(module, STLight)), None)
    height, width = (stlight.patch_size,) * 2 if stlight else (shape.height, shape.width)
    device = next(model.parameters()).device
    clip = torch.zeros((1, shape.context_frames, shape.channels, height, width), device=device)
    return clip, shape.height * shape.width // (height * width)


def complexity(config: ModelConfig, shape: ClipShape) -> dict[str, Any]:
    """Counts and closed forms of one configuration.

    flops: of STLight its convolutions', of a baseline all that the benchmark's count of it holds. prediction_flops: of the
    convolutions and products of a prediction. Raises `RuntimeError` should two counters disagree.
    """
    # No weight is needed: drawing those of the largest models would take most of the time.
    with torch.device("meta"):
        model = build_model(config, shape)
    if isinstance(model, Baseline):
        return {"parameters": count_parameters(model)} | _flops_of_baseline(model, shape)
    flops = count_flops(model, shape)
    # fvcore has to run the model.
    model = model.to_empty(device="cpu")
    by_operator = count_flops_by_fvcore(model, shape)
    if flops != by_operator["conv"]:
        raise RuntimeError(f"torch counts {flops} multiply-adds in convolutions, fvcore {by_operator['conv']}")
    return {
        "parameters": count_parameters(model),
        "closed_forms": closed_forms(config, shape),
        "benchmark_flops": flops,
        "flops_fvcore": sum(by_operator.values()),
        "prediction_flops": flops,
    }


def _flops_of_baseline(model: Baseline, shape: ClipShape) -> dict[str, Any]:
    whole = count_flops_by_fvcore(_CountedByBenchmark(model).to_empty(device="cpu"), shape)
    if type(model).counted_by_benchmark is Baseline.counted_by_benchmark:
        # It was the prediction that ran.
        prediction_flops = sum(count for name, count in whole.items() if name in _PRODUCTS)
    else:
        prediction_flops = count_flops(model.to("meta"), shape)
    return {"flops_by_operator": whole, "benchmark_flops": sum(whole.values()), "prediction_flops": prediction_flops}


# Operators of convolutions and products, as fvcore calls them.
_PRODUCTS = {"conv", "linear", "addmm", "matmul", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"}


class _CountedByBenchmark(nn.Module):
    """A baseline whose forward pass is what the benchmark's count runs."""

    def __init__(self, model: Baseline) -> None:
        super().__init__()
        self.model = model

    def forward(self, context: Tensor) -> object:
        return self.model.counted_by_benchmark(context)
