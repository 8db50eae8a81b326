"""Read, check and split a data set once, before any run uses it."""

from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import torch

from stlight.config import CUSTOM_NAME
from stlight.data.clips import Clips, DataError
from stlight.data.prepared_files import Prepared, write_prepared
from stlight.registry.dataset_specs import DATASETS, ClipShape


class DatasetModule(Protocol):
    """The functions that each data set's module under `stlight.data` offers.

    A module whose data set has the fallback "embedded" also offers `convert_embedded() -> Prepared`, and one with the
    fallback "stand_in" a class `stand_in`, constructed with `seed` and `device`.
    """

    def count(self, dataset: str, data_root: Path) -> tuple[int, int]:
        """Return the numbers of training images or clips (validation included) and of test clips in the files.

        Reads as little as possible. Raises `DataError`.
        """

    def convert(self, dataset: str, data_root: Path) -> Prepared:
        """Read and check all files, split them, and write converted frames if the files cannot be mapped. Raises `DataError`."""

    def open_clips(
        self, prepared: Prepared, shape: ClipShape, data_root: Path, *, seed: int, device: torch.device | str
    ) -> Clips:
        """Open the clips of what `convert` returned. Raises `DataError`."""


def module_of(dataset: str) -> DatasetModule:
    """Import the module that reads a data set."""
    name = DATASETS[dataset].module if dataset in DATASETS else "custom"
    return cast(DatasetModule, import_module(f"stlight.data.{name}"))


def prepare(dataset: str, source: str, data_root: Path) -> Path:
    """Read, check and split a source and return the file written. Raises `DataError` naming a file that is missing or wrong."""
    spec = DATASETS.get(dataset)
    if source == "embedded" and spec and spec.fallback == "embedded":
        prepared = module_of(dataset).convert_embedded()  # type: ignore[attr-defined]
    elif source != "files" or not CUSTOM_NAME.fullmatch(dataset):
        raise DataError(
            f"dataset {dataset} cannot be prepared from source {source}: mmnist can from embedded; {', '.join(DATASETS)} and"
            " custom data sets can from files; a stand_in needs no preparation"
        )
    else:
        for name in spec.files if spec else ():
            if not (path := data_root / name).exists():
                raise DataError(f"{path} is missing: python -m stlight fetch {dataset}, or put the published file there")
        prepared = module_of(dataset).convert(dataset, data_root)
    return write_prepared(prepared, data_root, dataset, source)
