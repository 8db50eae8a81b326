"""Count a model's parameters by component and the FLOPs of one clip, beside the closed forms of Section B."""

import warnings
from collections.abc import Callable
from functools import cache
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.jit._trace import TracerWarning
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.flop_counter import flop_registry

from stlight.config import ModelConfig
from stlight.model import Rollout, build_model
from stlight.model.baselines import Baseline
from stlight.model.stlight import find_stlight
from stlight.registry.dataset_specs import ClipShape

aten = torch.ops.aten


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
    counts |= {name: p.numel() for name, p in inner.named_parameters(recurse=False)}
    return {name: count for name, count in counts.items() if count} | {"total": sum(counts.values())}


def count_weights(model: nn.Module) -> dict[str, int]:
    """Count the weights of each component's convolutions, without biases and BatchNorm, as Section B's formulas do."""
    inner = model.model if isinstance(model, Rollout) else model
    return {name: sum(p.numel() for p in part.parameters() if p.ndim == 4) for name, part in inner.named_children()}


class _OperatorCounts(TorchDispatchMode):
    """Count the multiply-adds of operators as fvcore does. An operator is computed once for each size of its inputs.

    Later calls with floating-point outputs return uninitialized tensors, and weights are not drawn. `products` are the
    multiply-adds of convolutions and matrix products, by torch's formulas; `others` are fvcore's counts of norms, pooling and
    interpolation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.products = 0
        self.others = 0
        self._outputs: dict[Any, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (aten.normal_.default, aten.uniform_.default):
            return args[0]
        operator, out = func.overloadpacket, self._output(func, args, kwargs)
        if operator in flop_registry:
            self.products += flop_registry[operator](*args, **kwargs, out_val=out) // 2
        elif operator in _OTHERS:
            self.others += _OTHERS[operator](args, out)
        return out

    def _output(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Return an operator's output, without its values if its size is known."""
        if func.is_view or func._schema.is_mutable:
            return func(*args, **kwargs)
        key = (func, _describe(args), _describe(tuple(kwargs.items())))
        if key not in self._outputs:
            out = func(*args, **kwargs)
            # The values of others may decide what a model does next.
            if all(isinstance(x, Tensor) and x.is_floating_point() for x in tree_leaves(out)):
                self._outputs[key] = out
            return out
        return tree_map_only(Tensor, torch.empty_like, self._outputs[key])


def _describe(value: Any) -> Any:
    """Return what the size of an operator's output can depend on."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device
    return tuple(map(_describe, value)) if isinstance(value, (list, tuple)) else repr(value)


def _average_pooling(args: Any, out: Any) -> int:
    """Return the count of a mean, by which torch computes adaptive average pooling to one pixel."""
    return args[0].numel() if args[1:] == ([-1, -2], True) else 0


_OTHERS: dict[Any, Callable[[Any, Any], int]] = {
    aten.native_batch_norm: lambda args, out: args[0].numel() * (1 if args[1] is None else 2),
    aten.native_group_norm: lambda args, out: args[0].numel() * (4 if args[1] is None else 5),
    aten.native_layer_norm: lambda args, out: args[0].numel() * (4 if args[2] is None else 5),
    aten.mean: _average_pooling,
    aten.upsample_nearest2d: lambda args, out: out.numel(),
    aten.upsample_bilinear2d: lambda args, out: 4 * out.numel(),
}


@torch.no_grad()
def _count_operators(model: nn.Module, shape: ClipShape) -> tuple[int, int]:
    """Return the multiply-adds of one clip in products, and those in all operators that fvcore counts."""
    clip, patches = _least_clip(model, shape)
    # This implementation of attention consists of two products, as the benchmark writes them.
    with _OperatorCounts() as counts, sdpa_kernel(SDPBackend.MATH):
        model.eval()(clip)
    return counts.products * patches, (counts.products + counts.others) * patches


def count_flops(model: nn.Module, shape: ClipShape) -> int:
    """Count the multiply-adds of convolutions and matrix products that predict one clip, with torch's formulas.

    The model may be on the device "meta". It must not be accelerated, because the count is that of PyTorch's operators.
    """
    return _count_operators(model, shape)[0]


def count_flops_by_fvcore(model: nn.Module, shape: ClipShape) -> dict[str, int]:
    """Count multiply-adds by operator ("conv", "batch_norm") with fvcore, as the benchmark does.

    This runs the model, which takes seconds for a recurrent one. `check_with_fvcore` and tests compare `complexity` with it.
    """
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


@cache
def complexity(config: ModelConfig, shape: ClipShape, dataset: str = "mmnist") -> dict[str, Any]:
    """Return counts and closed forms of one configuration, on a data set.

    benchmark_flops are all operators that the benchmark counts for a baseline, and the convolutions of STLight.
    prediction_flops are the convolutions and matrix products of a prediction, flops_fvcore all that fvcore counts.
    """
    # Without weights, because drawing those of the largest models would take most of the time.
    with torch.device("meta"), _OperatorCounts():
        model = build_model(config, shape, dataset=dataset)
    parameters, (flops, all_flops) = count_parameters(model), _count_operators(model, shape)
    if isinstance(model, Baseline):
        if type(model).counted_by_benchmark is not Baseline.counted_by_benchmark:
            model.forward = model.counted_by_benchmark  # type: ignore[assignment, method-assign]
            _, all_flops = _count_operators(model, shape)
        return {"parameters": parameters, "benchmark_flops": all_flops, "prediction_flops": flops}
    counts = {"parameters": parameters, "benchmark_flops": flops, "prediction_flops": flops}
    forms = {"weights": count_weights(model), "closed_forms": closed_forms(config, shape)}
    return counts | forms | {"flops_fvcore": all_flops}


def check_with_fvcore(config: ModelConfig, shape: ClipShape) -> None:
    """Raise `RuntimeError` if fvcore, which runs an STLight on one patch, counts other multiply-adds than `complexity`."""
    with torch.device("meta"), _OperatorCounts():
        model = build_model(config, shape)
    by_operator = count_flops_by_fvcore(model.to_empty(device="cpu"), shape)
    found, counts = (by_operator["conv"], sum(by_operator.values())), complexity(config, shape)
    if found != (ours := (counts["prediction_flops"], counts["flops_fvcore"])):
        raise RuntimeError(f"fvcore counts {found} multiply-adds in convolutions and in all, this suite {ours}")
