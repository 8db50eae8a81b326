"""Draw and compare frames with compiled kernels; functions return None if PyTorch has to do it."""

import ctypes
from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor

from stlight.kernels.compile import library


@cache
def _kernels() -> ctypes.CDLL | None:
    kernels = library("frames.c")
    if kernels:
        kernels.paste.argtypes = [ctypes.c_int] + [ctypes.c_long] * 5 + [ctypes.c_void_p] * 4
        kernels.structural_similarity.argtypes = (
            [ctypes.c_int] + [ctypes.c_long] * 4 + [ctypes.c_double] * 2 + [ctypes.c_void_p] * 4
        )
        kernels.errors.argtypes = [ctypes.c_int] + [ctypes.c_long] * 2 + [ctypes.c_void_p] * 3
    return kernels


def _on_cpu_in_float32(*tensors: Tensor) -> bool:
    return all(t.device.type == "cpu" and t.dtype == torch.float32 for t in tensors)


def paste(digits_NGHW: Tensor, top_NGT: Tensor, left_NGT: Tensor, side: int) -> Tensor | None:
    """Paste digits (uint8) at pixel offsets (int64), taking the maximum; return float32 (N, T, side, side) in [0, 1].

    The offsets must keep every digit within its frame. Return None without a compiler or on another device than a CPU.
    """
    if digits_NGHW.device.type != "cpu" or (kernels := _kernels()) is None:
        return None
    num_clips, num_digits, num_frames = top_NGT.shape
    frames = torch.empty(num_clips, num_frames, side, side, dtype=torch.float32)
    sizes = (num_clips, num_digits, num_frames, digits_NGHW.shape[-1], side)
    tensors = (digits_NGHW.contiguous(), top_NGT.contiguous(), left_NGT.contiguous(), frames)
    if kernels.paste(torch.get_num_threads(), *sizes, *[t.data_ptr() for t in tensors]):
        raise MemoryError("no memory to draw a clip")
    return frames


def structural_similarity(x_NHW: Tensor, y_NHW: Tensor, k1: float, k2: float, data_ranges: Sequence[float]) -> Tensor | None:
    """Return the mean structural similarity of each pair of frames, float64 (data ranges, N).

    The window is 7×7 and uniform, the covariance that of a sample. Return None without a compiler or for other tensors than
    float32 on a CPU.
    """
    if not _on_cpu_in_float32(x_NHW, y_NHW) or (kernels := _kernels()) is None:
        return None
    ranges = torch.tensor(data_ranges, dtype=torch.float64)
    similarity = torch.empty(len(ranges), len(x_NHW), dtype=torch.float64)
    tensors = (ranges, x_NHW.contiguous(), y_NHW.contiguous(), similarity)
    if kernels.structural_similarity(
        torch.get_num_threads(), *x_NHW.shape, len(ranges), k1, k2, *[t.data_ptr() for t in tensors]
    ):
        raise MemoryError("no memory to compare frames")
    return similarity


def errors(x_NM: Tensor, y_NM: Tensor) -> Tensor | None:
    """Return sums over M of squared error, absolute error, and squared error of x clipped to [0, 1]: float64 (3, N).

    Return None without a compiler or for other tensors than float32 on a CPU.
    """
    if not _on_cpu_in_float32(x_NM, y_NM) or (kernels := _kernels()) is None:
        return None
    sums = torch.empty(3, len(x_NM), dtype=torch.float64)
    tensors = (x_NM.contiguous(), y_NM.contiguous(), sums)
    kernels.errors(torch.get_num_threads(), *x_NM.shape, *[t.data_ptr() for t in tensors])
    return sums
