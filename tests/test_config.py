"""A run's configuration: its hash, its errors, its documentation."""

import pytest

from stlight.config import DEFAULTS, ConfigError, RunConfig


def test_the_hash_changes_with_the_meaning_only():
    base = RunConfig.from_fields({})
    assert base.hash == RunConfig.from_fields({"max_lr": 1e-3, "k1": 3}).hash
    assert base.hash == RunConfig.from_fields({"out_of_memory": "split"}).hash
    different = [{"k1": 5}, {"max_lr": 0.002}, {"skip": False}, {"skip_parts": 5}, {"test_clips": 9}]
    assert len({RunConfig.from_fields(fields).hash for fields in [{}, *different]}) == 6
    assert RunConfig.from_fields({}, seed=1).hash != base.hash


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"clips_per_epoch": 10}, "batch_size must be at most clips_per_epoch 10, got 16"),
        ({"patch_size": 5, "hidden_dim": 25, "overlap": 1}, "frame size must be divisible by patch_size 5, got 64x64"),
        ({"source": "stand_in"}, "source must be one of embedded, files for dataset mmnist, got 'stand_in'"),
        (
            {"hidden_dim": 10},
            r"hidden_dim must be divisible by patch_size² = 4 for decoder shuffle_reassemble, got 10 \(try 8 or 12\)",
        ),
        ({"model": "TAU", "k1": 5}, "k1 applies to STLight-L only and must be 3 for TAU, got 5"),
        ({"baseline_width": 0.5}, "baseline_width applies to baselines only and must be 1.0 for STLight-L, got 0.5"),
        ({"model": "TAU", "kernels": "fused"}, "kernels and cuda_graphs apply to STLight-L only"),
        ({"accumulation_steps": 3}, "accumulation_steps must divide batch_size 16, got 3"),
        ({"widht": 3}, "unknown field 'widht'"),
    ],
)
def test_errors_name_field_and_value(fields, words):
    with pytest.raises(ConfigError, match=words):
        RunConfig.from_fields(fields)


def test_every_field_is_documented():
    for section in ("model", "data", "training"):
        for name, field in type(getattr(RunConfig(), section)).model_fields.items():
            assert field.description, name
    assert DEFAULTS.keys() == RunConfig.from_fields(DEFAULTS).fields.keys()


def test_a_depth_that_nothing_can_build_is_refused():
    with pytest.raises(ConfigError, match="depth: input should be less than or equal to 10000, got 10000000"):
        RunConfig.from_fields({"depth": 10**7})
