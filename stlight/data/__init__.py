"""Data sets: one file each, opened by the name and source a configuration gives."""

from pathlib import Path
from typing import Any

import torch

from stlight.config import DataConfig
from stlight.data.clips import Clips
from stlight.data.moving_mnist import MovingMNIST
from stlight.data.sources import TEST_SEQUENCE, DataError, open_prepared, prepared_path, read_test_sequence
from stlight.data.stand_ins import KTHStandIn, TaxiBJStandIn

__all__ = ["Clips", "DataError", "KTHStandIn", "MovingMNIST", "TaxiBJStandIn", "open_dataset"]

_STAND_INS: dict[str, type[Clips]] = {"taxibj": TaxiBJStandIn, "kth": KTHStandIn}


def open_dataset(
    config: DataConfig, data_root: Path, *, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Clips, dict[str, Any]]:
    """The clips a configuration names, and the facts that say where they came from.

    Raises `DataError` when a file is missing, damaged, or holds fewer test clips than the configuration asks for.
    """
    if config.source == "stand_in":
        return _STAND_INS[config.dataset](seed=seed, device=device), {"dataset": config.dataset, "source": "stand_in"}
    digits, facts = open_prepared(prepared_path(data_root, config.dataset, config.source))
    sequence = read_test_sequence(data_root / TEST_SEQUENCE) if config.source == "files" else None
    if sequence is not None and sequence.shape[1] < config.test_clips:
        raise DataError(f"{data_root / TEST_SEQUENCE} holds {sequence.shape[1]} clips, test_clips asks for {config.test_clips}")
    return MovingMNIST(digits, seed=seed, test_sequence=sequence, device=device), facts
