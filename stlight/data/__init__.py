"""Data sets: one file each, opened by the name and source a configuration gives."""

from pathlib import Path
from typing import Any

import torch

from stlight.config import DataConfig
from stlight.data.clips import Clips, DataError
from stlight.data.moving_mnist import MovingMNIST
from stlight.data.moving_mnist_files import read_test_sequence
from stlight.data.prepare import Prepared, open_prepared, prepared_path
from stlight.data.stand_ins import KTHStandIn, TaxiBJStandIn
from stlight.data.windows import Frames, Windows
from stlight.registry.dataset_specs import DATASETS

__all__ = ["Clips", "DataError", "KTHStandIn", "MovingMNIST", "TaxiBJStandIn", "Windows", "open_dataset"]

_STAND_INS: dict[str, type[Clips]] = {"taxibj": TaxiBJStandIn, "kth": KTHStandIn}


def open_dataset(
    config: DataConfig, data_root: Path, *, seed: int = 0, device: torch.device | str = "cpu"
) -> tuple[Clips, dict[str, Any]]:
    """The clips a configuration names, and the facts that say where they came from.

    Raises `DataError` when a file is missing, damaged, of another shape, or holds fewer held-out clips than are asked for.
    """
    if config.source == "stand_in":
        return _STAND_INS[config.dataset](seed=seed, device=device), {"dataset": config.dataset, "source": "stand_in"}
    prepared = open_prepared(prepared_path(data_root, config.dataset, config.source), data_root)
    available = dict(prepared.facts["count"])
    dataset: Clips
    if config.dataset in ("mmnist", "mfmnist"):
        sequence = None
        if config.source == "files":
            sequence = data_root / prepared.facts["frames"]["test"]["file"]
            available["test"] = read_test_sequence(sequence).shape[1]
        dataset = MovingMNIST(prepared.arrays, seed=seed, test_sequence=sequence, device=device)
        # Held-out clips are drawn from the digits, as many as one likes, but for those of a given sequence.
        available = {"test": available["test"]} if sequence is not None else {}
    else:
        dataset = _open_windows(config, prepared, data_root, seed, device)
    for split, asked in (("validation", config.validation_clips), ("test", config.test_clips)):
        if asked > available.get(split, asked):
            place = data_root / prepared.facts["frames"][split]["file"]
            raise DataError(f"{place}: {config.dataset} has {available[split]} {split} clips, {split}_clips asks for {asked}")
    return dataset, prepared.facts


def _open_windows(config: DataConfig, prepared: Prepared, data_root: Path, seed: int, device: torch.device | str) -> Windows:
    shape = config.own_shape or DATASETS[config.dataset].shape
    files = prepared.facts["frames"]
    if config.own_shape:
        stated = (shape.context_frames + shape.horizon_frames, *shape[2:])
        found = tuple(files["train"]["shape"][1:])
        if found != stated:
            path = data_root / files["train"]["file"]
            raise DataError(f"{path} holds clips (T, C, H, W) of {found}, the experiment's data_sets state {stated}")
    frames = {split: Frames(data_root / files[split]["file"], starts) for split, starts in prepared.arrays.items()}
    return Windows(frames, shape, seed=seed, device=device)
