"""Read, check and split a data set once, before any run uses it.

`prepare` writes `prepared/<dataset>-<source>.npz` under the data root, and beside it `<dataset>-files.npy` if it had to convert
frames.
"""

import hashlib
import io
import json
import math
import sys
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from stlight.data.clips import SPLITS, DataError, Split, open_array, reading
from stlight.registry.dataset_specs import CUSTOM_NAME, DATASETS
from stlight.runtime.atomic_files import atomic_writer, write_atomically


class Prepared(NamedTuple):
    """The content of a prepared file."""

    arrays: dict[Split, np.ndarray]
    """For each split its digits, or the int64 positions among the frames where its clips start."""
    facts: dict[str, Any]
    """Origin, sizes and checksums. A run's record repeats them."""


def module_of(dataset: str) -> ModuleType:
    """Import the module that reads a data set. Each offers three functions, which raise `DataError` for wrong files:

    - `count(dataset, data_root)` returns the numbers of training images or clips (validation included) and of test clips.
    - `convert(dataset, data_root)` checks and splits the files and returns them as `Prepared`.
    - `open_clips(prepared, shape, data_root, seed=, device=)` returns the `Clips` of what was prepared.

    For the fallback "embedded" it also offers `convert_embedded()`, for "stand_in" a class `stand_in(seed=, device=)`.
    """
    return import_module(f"stlight.data.{DATASETS[dataset].module if dataset in DATASETS else 'custom'}")


def prepare(dataset: str, source: str, data_root: Path) -> Path:
    """Read, check and split a source and return the file written. Raises `DataError` naming a file that is missing or wrong."""
    spec = DATASETS.get(dataset)
    if source == "embedded" and spec and spec.fallback == "embedded":
        prepared = module_of(dataset).convert_embedded()
    elif source != "files" or not CUSTOM_NAME.fullmatch(dataset):
        raise DataError(
            f"dataset {dataset} cannot be prepared from source {source}: mmnist can from embedded; {', '.join(DATASETS)} and"
            " custom data sets can from files; a stand_in needs no preparation"
        )
    else:
        if missing := [data_root / name for name in (spec.files if spec else ()) if not (data_root / name).exists()]:
            raise DataError(f"{missing[0]} is missing: python -m stlight fetch {dataset}, or put the published file there")
        prepared = module_of(dataset).convert(dataset, data_root)
    arrays = prepared.arrays
    facts = prepared.facts | {"dataset": dataset, "source": source, "count": {s: len(array) for s, array in arrays.items()}}
    facts["sha256"] = _sha256(arrays, facts)
    file = io.BytesIO()
    np.savez(file, facts=np.array(json.dumps(facts)), **arrays)
    path = _prepared_path(data_root, dataset, source)
    write_atomically(path, file.getvalue())
    return path


def open_prepared(data_root: Path, dataset: str, source: str) -> Prepared:
    """Read a prepared file. Raises `DataError` if it is missing or damaged, or if its file of frames has changed."""
    path = _prepared_path(data_root, dataset, source)
    again = f"python -m stlight prepare {dataset} {source}"
    if not path.exists():
        raise DataError(f"{path} is missing: {again}")
    with reading(path, f"what {again} writes"), np.load(path, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        arrays: dict[Split, np.ndarray] = {split: stored[split] for split in SPLITS if split in stored.files}
        if facts["sha256"] != _sha256(arrays, facts):
            raise ValueError("its content does not match its checksum")
    published = DATASETS[dataset].files if dataset in DATASETS else ()
    for frames in facts.get("frames", {}).values():
        file = data_root / frames["file"]
        size = file.stat().st_size if file.is_file() else None
        if size != frames["bytes"]:
            problem = "is missing" if size is None else f"holds {size} bytes, {frames['bytes']} when it was prepared"
            command = f"fetch {dataset}" if frames["file"] in published else f"prepare {dataset} files"
            raise DataError(f"{file} {problem}: python -m stlight {command}")
    return Prepared(arrays, facts)


def _sha256(arrays: dict[Split, np.ndarray], facts: dict[str, Any]) -> str:
    content = [array.tobytes() for array in arrays.values()]
    content += [frames["sha256"].encode() for frames in facts.get("frames", {}).values()]
    return hashlib.sha256(b"".join(content)).hexdigest()


def write_frames(data_root: Path, dataset: str, blocks: Iterator[np.ndarray], num_frames: int) -> dict[str, Any]:
    """Stream blocks of frames (n, C, H, W) into one array beside the prepared file, and return its facts."""
    path = _prepared_path(data_root, dataset, "files").with_suffix(".npy")
    # Imported here, because drawing clips on a bare GPU machine needs no progress bar.
    from tqdm import tqdm

    first = next(blocks)
    shape = (num_frames, *first.shape[1:])
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": first.dtype.str, "fortran_order": False, "shape": shape})
    quiet = not sys.stderr.isatty()
    with (
        atomic_writer(path, math.prod(shape) * first.itemsize) as write,
        tqdm(total=num_frames, desc=f"reading {dataset}", unit=" frames", unit_scale=True, disable=quiet) as bar,
    ):
        write(header.getvalue())
        for block in chain([first], blocks):
            write(np.ascontiguousarray(block).data)
            bar.update(len(block))
    return frame_facts(data_root, dict.fromkeys(SPLITS, path))


def frame_facts(data_root: Path, files: dict[Split, Path]) -> dict[str, Any]:
    """Return name, size, shape and SHA-256 of the file that holds the frames of each split."""
    facts: dict[Path, dict[str, Any]] = {}
    for path in set(files.values()):
        name, size, shape = path.relative_to(data_root).as_posix(), path.stat().st_size, list(open_array(path).shape)
        facts[path] = {"file": name, "bytes": size, "shape": shape, "sha256": digest(path)}
    return {"frames": {split: facts[path] for split, path in files.items()}}


def digest(path: Path, algorithm: str = "sha256") -> str:
    """Return the checksum of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _prepared_path(data_root: Path, dataset: str, source: str) -> Path:
    return data_root / "prepared" / f"{dataset}-{source}.npz"
