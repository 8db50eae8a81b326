import gzip
import shutil
import tracemalloc

import numpy as np
import pytest
import torch

from stlight.config import DataConfig
from stlight.data import DataError, open_dataset
from stlight.data.moving_mnist import read_idx_images, read_test_sequence
from stlight.data.prepare import open_prepared, prepare
from stlight.registry.dataset_specs import DATASETS
from tests.data.real_files import idx, write_moving_mnist


@pytest.fixture
def official(tmp_path, rng):
    """A data root with small files in the official formats."""
    return tmp_path, *write_moving_mnist(tmp_path, rng)


def test_moving_fashion_mnist_has_the_same_formats(tmp_path, rng):
    dataset = "mfmnist"
    _, sequence = write_moving_mnist(tmp_path, rng, dataset)
    prepare(dataset, "files", tmp_path)
    clips, _ = open_dataset(DataConfig(dataset=dataset, source="files", test_clips=6), tmp_path)
    assert torch.equal(
        (clips.clips("test", torch.arange(6))[:, :, 0] * 255).round().byte(), torch.tensor(sequence).transpose(0, 1)
    )
    assert clips.clips("train", torch.arange(2)).shape == (2, 20, 1, 64, 64)


def test_official_files_are_prepared_and_opened(official):
    root, images, sequence = official
    prepare("mmnist", "files", root)
    digits, facts = open_prepared(root, "mmnist", "files")
    assert np.array_equal(digits["train"], images[:10])
    assert np.array_equal(digits["validation"], images[10:])
    assert facts["frames"]["test"]["clips"] == 6
    dataset, _ = open_dataset(DataConfig(source="files", test_clips=6), root)
    clips = dataset.clips("test", torch.arange(6))
    np.testing.assert_allclose(clips[:, :, 0].numpy() * 255, sequence.swapaxes(0, 1), atol=1e-3)
    with pytest.raises(DataError, match="mmnist has 6 test clips, test_clips asks for 10000"):
        open_dataset(DataConfig(source="files"), root)


def test_a_missing_test_sequence_must_be_fetched(official):
    root, _, _ = official
    prepare("mmnist", "files", root)
    (root / DATASETS["mmnist"].files[1]).unlink()
    with pytest.raises(DataError, match="mnist_test_seq.npy is missing: python -m stlight fetch mmnist"):
        open_dataset(DataConfig(source="files", test_clips=6), root)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not a complete, gzipped IDX file"),
        (idx(np.zeros((2, 28, 28), np.uint8), magic=0x801), r"the header \[2049, 2, 28, 28\], .*\[2051, 'N', 28, 28\]"),
        (idx(np.zeros((2, 28, 28), np.uint8), count=3), r"1568 bytes after the header \[2051, 3"),
        (idx(np.zeros((2, 28, 28), np.uint8))[:-1], "1567 bytes"),
        (idx(np.zeros((2, 32, 32), np.uint8), size=(32, 32)), r"2, 32, 32\]"),
        (np.array([0x803, 2, 28, 28], "<u4").tobytes(), r"\[50855936, "),
    ],
)
def test_errors_name_the_wrong_idx_file(tmp_path, content, words):
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(content))
    with pytest.raises(DataError, match=f"{path.name}.*{words}"):
        read_idx_images(path)


def test_a_truncated_gzip_file_is_named(tmp_path):
    path = tmp_path / "images.gz"
    path.write_bytes(gzip.compress(idx(np.zeros((9, 28, 28), np.uint8)))[:-9])
    with pytest.raises(DataError, match=r"images\.gz is not a complete, gzipped IDX file"):
        read_idx_images(path)


def test_errors_name_the_wrong_test_sequence(tmp_path):
    path = tmp_path / "moving_mnist" / "mnist_test_seq.npy"
    path.parent.mkdir()
    with pytest.raises(DataError, match="mnist_test_seq.npy is missing"):
        read_test_sequence(path)
    for array, words in [
        (np.zeros((20, 3, 64, 64), np.float32), "float32"),
        (np.zeros((10, 3, 64, 64), np.uint8), r"expected uint8 \(20, N, 64, 64\)"),
    ]:
        np.save(path, array)
        with pytest.raises(DataError, match=words):
            read_test_sequence(path)


def test_errors_name_missing_damaged_and_unknown_sources(tmp_path):
    with pytest.raises(DataError, match="is missing: python -m stlight prepare mmnist embedded"):
        open_dataset(DataConfig(), tmp_path)
    (tmp_path / "prepared").mkdir()
    (tmp_path / "prepared" / "mmnist-embedded.npz").write_bytes(b"PK damaged")
    with pytest.raises(DataError, match="is not what python -m stlight prepare mmnist embedded writes"):
        open_dataset(DataConfig(), tmp_path)
    with pytest.raises(DataError, match="train-images-idx3-ubyte.gz is missing: python -m stlight fetch mmnist, or put"):
        prepare("mmnist", "files", tmp_path)
    with pytest.raises(DataError, match="kth cannot be prepared from source stand_in: .* a stand_in needs no preparation"):
        prepare("kth", "stand_in", tmp_path)
    with pytest.raises(DataError, match="dataset ../up cannot be prepared"):
        prepare("../up", "files", tmp_path)


def test_a_changed_prepared_file_is_refused(tmp_path, data_root):
    path = tmp_path / "prepared" / "mmnist-embedded.npz"
    path.parent.mkdir()
    shutil.copyfile(data_root / "prepared" / path.name, path)
    with np.load(path) as stored:
        content = dict(stored)
    content["train"] = 255 - content["train"]
    np.savez(path, **content)
    with pytest.raises(DataError, match="its content does not match its checksum"):
        open_prepared(tmp_path, "mmnist", "embedded")


def test_a_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    path = tmp_path / "images.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(idx(np.empty(0, np.uint8), count=2**31))
        for _ in range(300):
            file.write(bytes(2**20))
    tracemalloc.start()
    with pytest.raises(DataError, match=r"header \[2051, 2147483648, 28, 28\], .*N at most 250000"):
        read_idx_images(path)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
