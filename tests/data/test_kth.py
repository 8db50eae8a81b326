import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage.transform import resize

from stlight.config import DataConfig
from stlight.data import DataError, open_dataset
from stlight.data.kth import Recording, clip_starts, find_recordings, read_frames
from stlight.data.prepare import prepare
from stlight.registry.dataset_specs import KTH_ACTIONS
from tests.data.real_files import write_kth, write_recording


def recording(numbers, action="walking", person=1):
    return Recording(None, action, person, [f"image_{number:04d}.jpg" for number in numbers])


def starts_by_the_benchmark_s_rule(numbers, stride):
    """Search from the last frame backwards, one frame at a time if thirty are not consecutive, like the benchmark."""
    found, last = [], len(numbers) - 1
    while last >= 29:
        if numbers[last] - numbers[last - 29] == 29:
            found.append(last - 29)
            last -= stride - 1
        last -= 1
    return sorted(found)


@pytest.mark.parametrize(
    ("numbers", "action", "expected"),
    [
        (range(1, 30), "walking", []),
        (range(1, 31), "walking", [0]),
        (range(1, 66), "walking", [5, 35]),
        (range(1, 38), "running", [1, 4, 7]),
        # No clip spans a gap, and the part before the gap counts from its own end.
        ([*range(1, 36), *range(50, 85)], "boxing", [5, 40]),
        ([*range(1, 36), *range(50, 85)], "jogging", [2, 5, 37, 40]),
    ],
)
def test_clips_are_counted_from_the_end_of_a_recording(numbers, action, expected):
    assert recording(numbers, action).starts() == expected


@given(gaps=st.lists(st.integers(1, 80), max_size=4), action=st.sampled_from(KTH_ACTIONS))
def test_clips_follow_the_benchmark_s_rule(gaps, action):
    numbers, first = [], 1
    for length in gaps:
        numbers += range(first, first + length)
        first += length + 3
    stride = 3 if action in ("jogging", "running") else 30
    assert recording(numbers, action).starts() == starts_by_the_benchmark_s_rule(numbers, stride)


def test_persons_are_split_as_published():
    splits = {person: recording([], person=person).split for person in range(1, 26)}
    assert [p for p, split in splits.items() if split == "test"] == list(range(17, 26))
    assert [p for p, split in splits.items() if split == "validation"] == [16]


@pytest.fixture
def kth(tmp_path, rng):
    write_kth(tmp_path, rng)
    return tmp_path


def test_clips_equal_the_frames_of_the_recordings(kth):
    prepare("kth", "files", kth)
    # 31 frames give one clip for each person and action, even with a stride of 3.
    config = DataConfig(dataset="kth", source="files", clips_per_epoch=12, validation_clips=6, test_clips=6)
    dataset, facts = open_dataset(config, kth)
    assert facts["count"] == {"train": 12, "validation": 6, "test": 6}
    clips = dataset.clips("test", torch.arange(6))
    assert clips.shape == (6, 30, 1, 128, 128)
    expected = []
    for action in KTH_ACTIONS:
        folder = kth / "kth" / action / f"person17_{action}_d1_uncomp"
        frames = [np.asarray(Image.open(path))[..., 0] for path in sorted(folder.iterdir())[1:]]
        expected.append([resize(f / 255, (128, 128), order=1, mode="edge", anti_aliasing=False) for f in frames])
    # Held-out clips are shuffled, so match each with its nearest.
    distance = np.abs(clips[:, None, :, 0].numpy() - np.array(expected)[None]).max((2, 3, 4))
    assert sorted(distance.argmin(1)) == list(range(6))
    assert distance.min(1).max() < 2e-6


def test_clips_do_not_depend_on_the_order_of_the_file_system(kth, monkeypatch):
    first = prepare("kth", "files", kth).read_bytes()
    frames = (kth / "prepared" / "kth-files.npy").read_bytes()
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: reversed(list(listed(path))))
    assert prepare("kth", "files", kth).read_bytes() == first
    assert (kth / "prepared" / "kth-files.npy").read_bytes() == frames


def test_grey_frames_of_another_size_are_read(tmp_path, rng):
    write_recording(tmp_path / "grey", rng, frames=2, size=(128, 128), mode="L")
    frames = next(read_frames([Recording(tmp_path / "grey", "walking", 1, ["image_0001.jpg", "image_0002.jpg"])]))
    assert frames.shape == (2, 1, 128, 128)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda image: image.write_bytes(image.read_bytes()[:600]),
            "image_0005.jpg is not a complete JPEG image .*[Tt]runc",
        ),
        (lambda image: image.write_bytes(b""), "image_0005.jpg is not a complete JPEG image .*cannot identify"),
        (lambda image: image.write_bytes(pickle.dumps([{}])), "image_0005.jpg is not a complete JPEG image .*cannot identify"),
        (
            lambda image: Image.new("RGB", (80, 60)).save(image),
            r"image_0005.jpg is \(height, width\) \(60, 80\), the frames before are ",
        ),
    ],
)
def test_errors_name_the_wrong_image(kth, change, words):
    change(kth / "kth" / "handwaving" / "person02_handwaving_d1_uncomp" / "image_0005.jpg")
    with pytest.raises(DataError, match=words):
        prepare("kth", "files", kth)
    assert not list((kth / "prepared").glob("*"))


def test_errors_name_missing_and_empty_folders(kth):
    folder = kth / "kth" / "running" / "person01_running_d1_uncomp"
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="person01_running_d1_uncomp holds no frame"):
        prepare("kth", "files", kth)
    (kth / "kth" / "running").rename(kth / "running")
    with pytest.raises(DataError, match="running is missing: python -m stlight fetch kth"):
        prepare("kth", "files", kth)


def test_a_split_without_clips_is_an_error(tmp_path, rng):
    write_kth(tmp_path, rng, persons=(1, 17))
    with pytest.raises(DataError, match="holds no validation clip: expected 30 frames in a row"):
        clip_starts(find_recordings(tmp_path / "kth"))


def test_other_files_beside_the_recordings_are_ignored(kth):
    (kth / "kth" / "boxing" / ".DS_Store").write_bytes(b"?")
    (kth / "kth" / "boxing" / "person26_boxing_d1").mkdir()
    (kth / "kth" / "boxing" / "person01_boxing_d1_uncomp" / "Thumbs.db").write_bytes(b"?")
    assert len(find_recordings(kth / "kth")) == 24
