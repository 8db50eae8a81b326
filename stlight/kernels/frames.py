"""Draw and compare frames with compiled kernels; functions return None if PyTorch has to do it."""

from collections.abc import Sequence
from ctypes import CDLL, c_double, c_int, c_long, c_void_p
from functools import cache

import torch
from torch import Tensor

from stlight.kernels.build import library


@cache
def _kernels() -> CDLL | None:
    kernels = library("frames.c")
    if kernels:
        kernels.paste.argtypes = [c_int] + [c_long] * 5 + [c_void_p] * 4
        kernels.structural_similarity.argtypes = [c_int] + [c_long] * 4 + [c_double] * 2 + [c_void_p] * 4
        kernels.errors.argtypes = [c_int] + [c_long] * 2 + [c_void_p] * 3
    return kernels


def _call(function: str, *numbers: float, inputs: Sequence[Tensor], out: Tensor) -> Tensor | None:
    """Fill `out` and return it. Return None without a compiler, or if the frames (the last input) are not on a CPU."""
    if inputs[-1].device.type != "cpu" or (kernels := _kernels()) is None:
        return None
    tensors = [*(tensor.contiguous() for tensor in inputs), out]
    getattr(kernels, function)(torch.get_num_threads(), *numbers, *[tensor.data_ptr() for tensor in tensors])
    return out


def paste(digits_NGHW: Tensor, top_NGT: Tensor, left_NGT: Tensor, side: int) -> Tensor | None:
    """Paste digits (uint8) at pixel offsets (int64), taking the maximum; return float32 (N, T, side, side) in [0, 1].

    The offsets must keep every digit within its frame.
    """
    num_clips, num_digits, num_frames = top_NGT.shape
    sizes = (num_clips, num_digits, num_frames, digits_NGHW.shape[-1], side)
    frames = torch.empty(num_clips, num_frames, side, side)
    return _call("paste", *sizes, inputs=(digits_NGHW, top_NGT, left_NGT), out=frames)


def structural_similarity(x_NHW: Tensor, y_NHW: Tensor, k1: float, k2: float, data_ranges: Sequence[float]) -> Tensor | None:
    """Return the mean structural similarity of each pair of frames, float64 (data ranges, N).

    The window is 7×7 and uniform, the covariance that of a sample. Return None for other tensors than float32, too.
    """
    if x_NHW.dtype != torch.float32 or y_NHW.dtype != torch.float32:
        return None
    ranges = torch.tensor(data_ranges, dtype=torch.float64)
    similarity = torch.empty(len(ranges), len(x_NHW), dtype=torch.float64)
    return _call("structural_similarity", *x_NHW.shape, len(ranges), k1, k2, inputs=(ranges, x_NHW, y_NHW), out=similarity)


def errors(x_NM: Tensor, y_NM: Tensor) -> Tensor | None:
    """Return sums over M of squared error, absolute error, and squared error of x clipped to [0, 1]: float64 (3, N).

    Return None for other tensors than float32, too.
    """
    if x_NM.dtype != torch.float32 or y_NM.dtype != torch.float32:
        return None
    return _call("errors", *x_NM.shape, inputs=(x_NM, y_NM), out=torch.empty(3, len(x_NM), dtype=torch.float64))
