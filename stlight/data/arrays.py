"""Read .npy files from untrusted sources: never unpickle, and report any damage as `DataError`."""

import tokenize
from pathlib import Path
from typing import IO

import numpy as np

from stlight.data.clips import DataError

# NumPy raises more than the documented ValueError for a malformed header.
_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError, tokenize.TokenError)


def open_array(path: Path) -> np.ndarray:
    """Memory-map an .npy file. Raises `DataError` if it is missing, empty, truncated, pickled or no array."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except _DAMAGE as error:
        raise DataError(
            f"{path} is not a readable .npy array ({one_line(error)}): expected a complete array of numbers, not pickled"
        ) from error


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Read the header of an .npy stream and return shape and dtype; the stream then stands at the first value.

    Raises `DataError`, starting with `name`, unless the stream is an array that can be read row by row.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
    except _DAMAGE as error:
        raise DataError(f"{name} is no array: {one_line(error)}") from error
    if dtype.hasobject:
        raise DataError(f"{name} holds pickled Python objects, which are never read: expected numbers")
    if fortran_order:
        raise DataError(f"{name} is stored in column-major order: save it again from np.ascontiguousarray")
    return shape, dtype


def one_line(error: BaseException) -> str:
    """Return the message of an error on one line."""
    return " ".join(str(error).split()) or type(error).__name__
