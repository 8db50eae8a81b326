import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stlight.config import ConfigError, DataConfig, RunConfig
from stlight.data import DataError, open_dataset
from stlight.data.clips import open_array
from stlight.data.prepare import prepare
from stlight.registry.dataset_specs import DATASETS, ClipShape

SHAPE = ClipShape(3, 2, 1, 8, 8)


def config(**fields):
    return DataConfig(dataset="mine", custom_shape=SHAPE, source="files", **{"validation_clips": 2, "test_clips": 4} | fields)


@pytest.fixture
def folder(tmp_path, rng):
    (tmp_path / "mine").mkdir()
    for split, count in (("train", 20), ("test", 4)):
        np.save(tmp_path / "mine" / f"{split}.npy", rng.integers(0, 256, (count, 5, 1, 8, 8), dtype=np.uint8))
    return tmp_path / "mine"


def as_bytes(clips):
    return sorted((clip * 255).round().to(torch.uint8).numpy().tobytes() for clip in clips)


def test_the_last_tenth_becomes_the_validation_split(folder):
    prepare("mine", "files", folder.parent)
    dataset, facts = open_dataset(config(), folder.parent)
    assert facts["count"] == {"train": 18, "validation": 2, "test": 4}
    train = np.load(folder / "train.npy")
    assert as_bytes(dataset.clips("train", torch.arange(18))) == sorted(clip.tobytes() for clip in train[:18])
    assert as_bytes(dataset.clips("validation", torch.arange(2))) == sorted(clip.tobytes() for clip in train[18:])


def test_a_validation_file_is_used_if_it_exists(folder, rng):
    validation = rng.integers(0, 256, (3, 5, 1, 8, 8), dtype=np.uint8)
    np.save(folder / "validation.npy", validation)
    prepare("mine", "files", folder.parent)
    dataset, facts = open_dataset(config(validation_clips=3), folder.parent)
    assert facts["count"] == {"train": 20, "validation": 3, "test": 4}
    assert as_bytes(dataset.clips("validation", torch.arange(3))) == sorted(clip.tobytes() for clip in validation)


def test_too_many_held_out_clips_or_another_shape_is_an_error(folder):
    prepare("mine", "files", folder.parent)
    with pytest.raises(DataError, match="mine has 4 test clips, test_clips asks for 5"):
        open_dataset(config(test_clips=5), folder.parent)
    other = DataConfig(dataset="mine", custom_shape=ClipShape(3, 3, 1, 8, 8), source="files")
    with pytest.raises(DataError, match=r"holds clips \(T, C, H, W\) of \(5, 1, 8, 8\), .* state \(6, 1, 8, 8\)"):
        open_dataset(other, folder.parent)


def test_a_file_that_changed_size_must_be_prepared_again(folder):
    prepare("mine", "files", folder.parent)
    np.save(folder / "test.npy", np.load(folder / "test.npy")[:3])
    with pytest.raises(DataError, match="test.npy holds .* when it was prepared: python -m stlight prepare mine files"):
        open_dataset(config(), folder.parent)
    (folder / "test.npy").unlink()
    with pytest.raises(DataError, match="test.npy is missing"):
        open_dataset(config(), folder.parent)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((20, 5, 8, 8), np.uint8), r"is \(20, 5, 8, 8\), expected clips \(N, T, C, H, W\)"),
        (np.zeros((0, 5, 1, 8, 8), np.uint8), "expected clips"),
        (np.zeros((20, 5, 1, 8, 8), ">f4"), "is >f4, expected uint8 or little-endian floating point"),
        (np.zeros((20, 5, 1, 8, 8), np.int64), "is <i8"),
        (np.full((20, 5, 1, 8, 8), np.nan), "clip 0 holds nan, expected values from 0 to 1"),
        (np.arange(20.0).reshape(20, 1, 1, 1, 1) * np.ones((20, 5, 1, 8, 8)), "clip 2 holds 2, expected values from 0 to 1"),
        (np.asfortranarray(np.zeros((20, 5, 1, 8, 8))), "is <f8 in column-major order"),
        (np.zeros((20, 6, 1, 8, 8)), r"several shapes.*train.npy \(6, 1, 8, 8\), test.npy \(5, 1, 8, 8\)"),
        (np.zeros((1, 5, 1, 8, 8)), "holds a single clip"),
    ],
)
def test_errors_name_the_wrong_file(folder, array, words):
    np.save(folder / "train.npy", array)
    with pytest.raises(DataError, match=words):
        prepare("mine", "files", folder.parent)


def saved(save, *arguments, **options):
    file = io.BytesIO()
    save(file, *arguments, **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no array",
        b"\x93NUMPY\x01\x00",
        saved(np.save, np.zeros((20, 5, 1, 8, 8)))[:-1],
        saved(np.save, np.array([{}]), allow_pickle=True),
        saved(np.savez, a=np.zeros(3)),
    ],
    ids=["empty", "text", "header cut", "truncated", "pickled", "npz"],
)
def test_an_unreadable_array_is_named(folder, content):
    (folder / "train.npy").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.npy is not a readable \.npy array \("):
        prepare("mine", "files", folder.parent)


@given(where=st.floats(0, 1), value=st.integers(1, 255))
def test_a_damaged_header_raises_only_data_errors(tmp_path_factory, where, value):
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    np.save(path, np.zeros((2, 3, 1, 4, 4), np.uint8))
    content = bytearray(path.read_bytes())
    content[int(where * 127)] ^= value
    path.write_bytes(content)
    try:
        open_array(path)
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - damage in unused bytes is harmless


def test_a_missing_file_or_folder_is_named(folder):
    (folder / "train.npy").unlink()
    with pytest.raises(DataError, match=r"train\.npy is missing"):
        prepare("mine", "files", folder.parent)
    with pytest.raises(DataError, match="other is missing: expected a folder with train.npy and test.npy"):
        prepare("other", "files", folder.parent)


def test_names_and_shapes_are_checked_with_the_configuration():
    for fields, words in [
        ({"dataset": "mine"}, f"dataset must be one of {', '.join(DATASETS)}, or one under data_sets"),
        ({"dataset": "kth", "custom_shape": SHAPE}, "needs a new name of small letters"),
        ({"dataset": "My-Set", "custom_shape": SHAPE}, "new name of small letters, digits and _"),
        ({"dataset": "mine", "custom_shape": SHAPE, "source": "stand_in"}, "source must be one of files"),
        ({"dataset": "mine", "custom_shape": SHAPE._replace(height=6)}, "height must be an integer of at least 7"),
    ]:
        with pytest.raises(ConfigError, match=words):
            RunConfig.from_fields({"source": "files"} | fields)
