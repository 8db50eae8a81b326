"""Read, check and split a data set once, before any run uses it."""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from stlight.config import CUSTOM_NAME
from stlight.data.clips import DataError
from stlight.data.prepared_files import write_prepared
from stlight.registry.dataset_specs import DATASETS


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
        for name in spec.files if spec else ():
            if not (path := data_root / name).exists():
                raise DataError(f"{path} is missing: python -m stlight fetch {dataset}, or put the published file there")
        prepared = module_of(dataset).convert(dataset, data_root)
    return write_prepared(prepared, data_root, dataset, source)
