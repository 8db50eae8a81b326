"""Clips in a lower resolution."""

import pytest
import torch

from stlight.config import ConfigError, DataConfig, RunConfig
from stlight.data import open_dataset


@pytest.mark.parametrize(("dataset", "source", "factor"), [("mmnist", "embedded", 2), ("taxibj", "stand_in", 4)])
def test_every_pixel_is_the_mean_of_the_pixels_that_it_replaces(data_root, dataset, source, factor):
    full, small = (
        open_dataset(DataConfig(dataset=dataset, source=source, downsampling=d), data_root, seed=3)[0] for d in (1, factor)
    )
    index = torch.arange(3)
    for split in ("train", "test"):
        clips = full.clips(split, index, epoch=2)
        blocks = clips.unfold(-2, factor, factor).unfold(-2, factor, factor)
        torch.testing.assert_close(small.clips(split, index, epoch=2), blocks.mean((-2, -1)))
        several = torch.cat(list(small.batches(split, index.split(2), epoch=2)))
        torch.testing.assert_close(several, small.clips(split, index, epoch=2))
    assert (small.available("test"), small.seed, small.index_device) == (full.available("test"), 3, full.index_device)


def test_the_model_sees_the_smaller_frames():
    config = RunConfig.from_fields({"downsampling": 4, "hidden_dim": 8, "depth": 1})
    assert config.clip_shape == (10, 10, 1, 16, 16)
    assert config.hash != RunConfig.from_fields({"hidden_dim": 8, "depth": 1}).hash


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"downsampling": 3}, "divisible by downsampling 3, got 64x64"),
        ({"downsampling": 16}, "must keep 7 pixels a side, .* got 64x64 with downsampling 16"),
        ({"downsampling": 0}, "downsampling"),
        ({"downsampling": 2, "patch_size": 3, "hidden_dim": 9}, "divisible by patch_size 3, got 32x32"),
    ],
)
def test_a_resolution_that_cannot_be_is_refused(fields, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig.from_fields(fields)
