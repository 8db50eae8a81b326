"""Draw and compare frames with compiled kernels; functions return None if PyTorch has to do it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from stlight.kernels.compile import library


def _call(function: str, *numbers: float, inputs: Sequence[Tensor], dtype: torch.dtype, out: Tensor) -> Tensor | None:
    """Fill `out` and return it. Return None without a compiler, or if the last two inputs are not `dtype` on a CPU."""
    if any(t.device.type != "cpu" or t.dtype != dtype for t in inputs[-2:]) or (kernels := library("frames.c")) is None:
        return None
    tensors = [*(tensor.contiguous() for tensor in inputs), out]
    getattr(kernels, function)(torch.get_num_threads(), *numbers, *[tensor.data_ptr() for tensor in tensors])
    return out


def paste(digits_NGHW: Tensor, top_NGT: Tensor, left_NGT: Tensor, side: int) -> Tensor | None:
    """Paste digits (uint8) at pixel offsets (int64), taking the maximum; return float32 (N, T, side, side) in [0, 1].

    The offsets must keep every digit within its frame.
    """
    frames = torch.empty(len(top_NGT), top_NGT.shape[-1], side, side)
    sizes = (*top_NGT.shape, digits_NGHW.shape[-1], side)
    return _call("paste", *sizes, inputs=(digits_NGHW, top_NGT, left_NGT), dtype=torch.int64, out=frames)


def structural_similarity(x_NHW: Tensor, y_NHW: Tensor, k1: float, k2: float, data_ranges: Sequence[float]) -> Tensor | None:
    """Return the mean structural similarity of each pair of frames, float64 (data ranges, N).

    The window is 7×7 and uniform, the covariance that of a sample.
    """
    ranges = torch.tensor(data_ranges, dtype=torch.float64)
    similarity = torch.empty(len(ranges), len(x_NHW), dtype=torch.float64)
    numbers, inputs = (*x_NHW.shape, len(ranges), k1, k2), (ranges, x_NHW, y_NHW)
    return _call("structural_similarity", *numbers, inputs=inputs, dtype=torch.float32, out=similarity)


def errors(x_NM: Tensor, y_NM: Tensor) -> Tensor | None:
    """Return sums over M of squared error, absolute error, and squared error of x clipped to [0, 1]: float64 (3, N)."""
    sums = torch.empty(3, len(x_NM), dtype=torch.float64)
    return _call("errors", *x_NM.shape, inputs=(x_NM, y_NM), dtype=torch.float32, out=sums)
