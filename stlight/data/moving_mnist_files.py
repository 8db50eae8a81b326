"""The files of the official Moving MNIST and Moving Fashion-MNIST: 28×28 training images (IDX) and the fixed test clips."""

import gzip
import zlib
from pathlib import Path

import numpy as np

from stlight.data.arrays import open_array
from stlight.data.clips import DataError

_IDX_UBYTE_3D = 0x00000803


def read_idx_images(path: Path) -> np.ndarray:
    """Digits of an IDX file, plain or gzipped: uint8 (N, 28, 28). Raises `DataError` saying what was found and expected."""
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not a whole gzip file ({error}): expected an IDX file of images, gzipped") from error
    if len(content) < 16:
        raise DataError(f"{path} holds {len(content)} bytes, an IDX file of images has a header of 16")
    magic, count, height, width = (int(n) for n in np.frombuffer(content, ">u4", count=4))
    if magic != _IDX_UBYTE_3D:
        raise DataError(f"{path} starts with {magic:#010x}, an IDX file of images with {_IDX_UBYTE_3D:#010x}")
    if (height, width) != (28, 28):
        raise DataError(f"{path} holds images of {height}x{width}, expected 28x28")
    if len(content) != 16 + count * height * width:
        raise DataError(f"{path} holds {len(content) - 16} bytes of pixels, its header says {count * height * width}")
    return np.frombuffer(content, np.uint8, offset=16).reshape(count, height, width)


def read_test_sequence(path: Path) -> np.ndarray:
    """The benchmark's test clips, memory-mapped: uint8 (20, N, 64, 64). Raises `DataError` saying what was found."""
    sequence = open_array(path)
    if (
        sequence.dtype != np.uint8
        or sequence.ndim != 4
        or (sequence.shape[0], *sequence.shape[2:]) != (20, 64, 64)
        or not sequence.shape[1]
    ):
        raise DataError(f"{path} holds {sequence.dtype} {sequence.shape}, expected uint8 (20, N, 64, 64)")
    return sequence
