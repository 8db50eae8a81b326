"""NumPy's own files from elsewhere, of which nothing is believed: no pickles are read, and damage of any kind is one error."""

import tokenize
from pathlib import Path
from typing import IO

import numpy as np

from stlight.data.clips import DataError

# What NumPy raises for headers that make no sense, besides the ValueError it means to.
_DAMAGE = (OSError, ValueError, EOFError, SyntaxError, TypeError, KeyError, OverflowError, MemoryError, tokenize.TokenError)


def open_array(path: Path) -> np.ndarray:
    """An .npy file, memory-mapped. Raises `DataError` if it is missing, empty, cut off, pickled or something else."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError:
        raise DataError(f"{path} is missing") from None
    except _DAMAGE as error:
        raise DataError(
            f"{path} is not a readable .npy array ({in_a_line(error)}): expected one of numbers, whole and not pickled"
        ) from error


def read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and type of the array that a file begins with, at whose first value it then stands.

    Raises `DataError`, which begins with `name`, for what is no array, or none that can be read row by row.
    """
    try:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, fortran_order, dtype = read(file)
    except _DAMAGE as error:
        raise DataError(f"{name} is no array: {in_a_line(error)}") from error
    if dtype.hasobject:
        raise DataError(f"{name} holds pickled Python objects, which are not read: expected numbers")
    if fortran_order:
        raise DataError(f"{name} is stored column by column: save it again from np.ascontiguousarray")
    return shape, dtype


def in_a_line(error: BaseException) -> str:
    """What an error says, on one line."""
    return " ".join(str(error).split()) or type(error).__name__
