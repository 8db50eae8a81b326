import io
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stlight.config import DataConfig
from stlight.data import DataError, open_dataset
from stlight.data.prepare import prepare
from stlight.data.taxibj import count, read_clips
from tests.data.real_files import taxibj_arrays, write_taxibj

CONFIG = DataConfig(dataset="taxibj", source="files", clips_per_epoch=24, validation_clips=6, test_clips=6)


@pytest.fixture
def path(tmp_path):
    (tmp_path / "taxibj").mkdir()
    return tmp_path / "taxibj" / "dataset.npz"


def test_clips_equal_the_file(tmp_path, rng):
    arrays = write_taxibj(tmp_path, rng)
    prepare("taxibj", "files", tmp_path)
    dataset, facts = open_dataset(CONFIG, tmp_path)
    assert facts["count"] == {"train": 24, "validation": 6, "test": 6}
    whole = np.concatenate([arrays["X_train"], arrays["Y_train"]], 1)
    for split, expected in (
        ("train", whole[:24]),
        ("validation", whole[24:]),
        ("test", np.concatenate([arrays["X_test"], arrays["Y_test"]], 1)),
    ):
        clips = dataset.clips(split, torch.arange(len(expected))).numpy()
        wanted = ((expected + 1) / 2).astype(np.float32)
        assert sorted(clip.tobytes() for clip in clips) == sorted(clip.tobytes() for clip in wanted)


@pytest.mark.parametrize(("save", "dtype"), [(np.savez, np.float32), (np.savez_compressed, np.float64)])
def test_files_of_either_precision_are_read_block_by_block(path, rng, save, dtype):
    arrays = {name: array.astype(dtype) for name, array in taxibj_arrays(rng, train=300).items()}
    save(path, **arrays)
    assert count("taxibj", path.parents[1]) == (300, 6)
    clips = np.concatenate(list(read_clips(path)))
    whole = [np.concatenate([arrays[f"X_{split}"], arrays[f"Y_{split}"]], 1) for split in ("train", "test")]
    assert np.array_equal(clips, ((np.concatenate(whole) + 1) / 2).astype(np.float32))


def with_member(path, arrays, name, array, **options):
    np.savez(path, **{n: a for n, a in arrays.items() if n != name})
    file = io.BytesIO()
    np.save(file, array, **options)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", file.getvalue())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x[:, :3], r"X_train is <f8 \(30, 3, 2, 32, 32\), expected .*\('N', 4, 2, 32, 32\)"),
        (lambda x: x[:29], r"Y_train is <f8 \(30, 4, 2, 32, 32\), expected .* one N for X and Y"),
        (lambda x: x[:0], r"X_train is <f8 \(0, "),
        (lambda x: x.astype(">f8"), "X_train is >f8 .*, expected <f4 or <f8"),
        (lambda x: np.round(x).astype(np.int64), "X_train is <i8 "),
        (
            lambda x: np.where(np.arange(30)[:, None, None, None, None] == 7, np.nan, x),
            "train clip 7 holds nan, expected",
        ),
        (lambda x: np.where(np.arange(30)[:, None, None, None, None] == 9, np.inf, x), "train clip 9 holds inf"),
        (lambda x: x * 255, r"train clip 0 holds .*, expected values in \[-1, 1\]"),
        (np.asfortranarray, "X_train is .* in column-major order, expected"),
    ],
)
def test_errors_name_the_wrong_array(path, rng, change, words):
    arrays = taxibj_arrays(rng)
    with_member(path, arrays, "X_train", change(arrays["X_train"]))
    with pytest.raises(DataError, match=words):
        list(read_clips(path))


def test_pickled_objects_are_never_loaded(path, rng):
    with_member(path, taxibj_arrays(rng), "X_test", np.array([print], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"X_test is \|O "):
        count("taxibj", path.parents[1])


def test_a_missing_key_is_named(path, rng):
    np.savez(path, **{name.replace("X", "x"): array for name, array in taxibj_arrays(rng).items()})
    with pytest.raises(DataError, match="dataset.npz is not a complete .npz file of .*no item named 'X_train.npy'"):
        count("taxibj", path.parents[1])


@pytest.mark.parametrize("share", [0, 0.3, 0.99])
def test_a_truncated_file_is_named(path, rng, share):
    np.savez(path, **taxibj_arrays(rng))
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(DataError, match=r"dataset\.npz is not a complete \.npz file"):
        count("taxibj", path.parents[1])


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "dataset.npz"
    np.savez_compressed(path, **taxibj_arrays(np.random.default_rng(0), train=1, test=1))
    return path, path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(where=st.floats(0, 1), value=st.integers(1, 255))
def test_a_damaged_file_raises_only_data_errors(intact, where, value):
    path, content = intact[0], bytearray(intact[1])
    content[int(where * (len(content) - 1))] ^= value
    path.write_bytes(content)
    try:
        list(read_clips(path))
    except DataError as error:
        assert str(path) in str(error)  # noqa: PT017 - damage in unused bytes is harmless


def test_too_few_training_clips_are_an_error(tmp_path, rng):
    write_taxibj(tmp_path, rng, train=4)
    with pytest.raises(DataError, match="holds 4 training clips, at least 5 are needed"):
        prepare("taxibj", "files", tmp_path)
    assert not list((tmp_path / "prepared").glob("*"))
