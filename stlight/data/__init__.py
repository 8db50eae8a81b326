"""Data sets: one module each, named in `stlight.registry.dataset_specs`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stlight.data.clips import Clips, DataError, Split
from stlight.data.downsampled import Downsampled
from stlight.data.kth import KTHStandIn
from stlight.data.moving_mnist import MovingMNIST
from stlight.data.prepare import module_of, open_prepared
from stlight.data.taxibj import TaxiBJStandIn
from stlight.data.windows import Windows
from stlight.registry.dataset_specs import DATASETS

if TYPE_CHECKING:
    from stlight.config import DataConfig

__all__ = ["Clips", "DataError", "KTHStandIn", "MovingMNIST", "TaxiBJStandIn", "Windows", "open_dataset"]


def open_dataset(
    config: "DataConfig", data_root: Path, *, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Clips, dict[str, Any]]:
    """Open the clips that a configuration names, and return them with facts about their origin for the run's record.

    Raises `DataError` if a file is missing, damaged or of another shape, or holds fewer held-out clips than configured.
    """
    clips, facts = _open_full(config, data_root, seed, device)
    return (Downsampled(clips, config.downsampling) if config.downsampling > 1 else clips), facts


def _open_full(config: "DataConfig", data_root: Path, seed: int, device: torch.device | str) -> tuple[Clips, dict[str, Any]]:
    module = module_of(config.dataset)
    if config.source == "stand_in":
        return module.stand_in(seed=seed, device=device), {"dataset": config.dataset, "source": "stand_in"}
    prepared = open_prepared(data_root, config.dataset, config.source)
    shape = config.custom_shape or DATASETS[config.dataset].shape
    clips = module.open_clips(prepared, shape, data_root, seed=seed, device=device)
    held_out: dict[Split, int] = {"validation": config.validation_clips, "test": config.test_clips}
    for split, asked in held_out.items():
        if (available := clips.available(split)) is not None and asked > available:
            file = data_root / prepared.facts["frames"][split]["file"]
            raise DataError(f"{file}: {config.dataset} has {available} {split} clips, {split}_clips asks for {asked}")
    return clips, prepared.facts
