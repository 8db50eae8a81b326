import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from skimage.transform import resize

from stlight.data.windows import Windows
from stlight.registry.dataset_specs import ClipShape

SHAPE = ClipShape(2, 1, 1, 4, 4)


def numbered(folder, clips, dtype=np.uint8):
    """Clips of three frames, each filled with the clip's number."""
    frames = np.broadcast_to(np.arange(clips, dtype=dtype)[:, None, None, None, None], (clips, 3, 1, 4, 4))
    np.save(folder / f"{clips}.npy", frames)
    return folder / f"{clips}.npy", np.arange(clips) * 3


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    folder = tmp_path_factory.mktemp("windows")
    return {split: numbered(folder, count) for split, count in (("train", 7), ("validation", 5), ("test", 6))}


def numbers(clips):
    values = (clips[:, 0, 0, 0, 0] * 255).round().int()
    assert torch.equal(clips, clips[:, :1, :1, :1, :1].expand_as(clips))
    return values.tolist()


@given(seed=st.integers(0, 5), epoch=st.integers(0, 5))
def test_every_training_clip_comes_once_before_any_is_repeated(windows, seed, epoch):
    dataset = Windows(windows, SHAPE, seed=seed)
    order = numbers(dataset.clips("train", torch.arange(21), epoch))
    for first in (0, 7, 14):
        assert sorted(order[first : first + 7]) == list(range(7))


def test_orders_differ_between_seeds_epochs_and_rounds(windows):
    orders = set()
    for seed in range(4):
        for epoch in range(4):
            order = numbers(Windows(windows, SHAPE, seed=seed).clips("train", torch.arange(14), epoch))
            orders |= {tuple(order[:7]), tuple(order[7:])}
    assert len(orders) > 28


@given(index=st.lists(st.integers(0, 30), min_size=1, max_size=9), epoch=st.integers(0, 3))
def test_a_clip_is_the_same_in_any_batch(windows, index, epoch):
    dataset = Windows(windows, SHAPE, seed=3)
    together = dataset.clips("train", torch.tensor(index), epoch)
    alone = [Windows(windows, SHAPE, seed=3).clips("train", torch.tensor([i]), epoch) for i in index]
    assert torch.equal(together, torch.cat(alone))


def test_held_out_clips_depend_on_the_number_only(windows):
    one, other = (Windows(windows, SHAPE, seed=seed) for seed in (1, 2))
    for split, count in (("validation", 5), ("test", 6)):
        order = numbers(one.clips(split, torch.arange(count)))
        assert sorted(order) == list(range(count))
        assert order == numbers(other.clips(split, torch.arange(count), 7))
        with pytest.raises(IndexError, match=f"there are {count} {split} clips, clip {count} was asked for"):
            one.clips(split, torch.tensor([count]))


def test_batches_equal_the_clips_and_pass_errors_on(windows):
    dataset = Windows(windows, SHAPE)
    indices = torch.arange(13).split(4)
    batches = list(dataset.batches("train", indices, 2))
    assert [len(batch) for batch in batches] == [4, 4, 4, 1]
    assert torch.equal(torch.cat(batches), dataset.clips("train", torch.arange(13), 2))
    assert list(dataset.batches("train", (), 2)) == []
    with pytest.raises(IndexError):
        list(dataset.batches("test", [torch.tensor([6])]))


@pytest.mark.parametrize(("dtype", "factor"), [(np.uint8, 255), (np.float32, 1), (np.float64, 1), (np.float16, 1)])
def test_values_are_scaled_by_their_type(tmp_path, dtype, factor):
    frames = (np.linspace(0, 1, 3 * 16).reshape(3, 1, 4, 4) * factor).astype(dtype)
    np.save(tmp_path / "a.npy", frames)
    dataset = Windows({"test": (tmp_path / "a.npy", np.array([0]))}, SHAPE)
    clip = dataset.clips("test", torch.tensor([0]))
    assert clip.dtype == torch.float32
    np.testing.assert_allclose(clip[0].numpy(), frames.astype(np.float64) / factor, rtol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(120, 160), (200, 100), (128, 128)])
def test_frames_are_resized_without_antialiasing(tmp_path, rng, height, width):
    """Compare bilinear interpolation between pixel centres, the benchmark's way, with scikit-image."""
    frames = rng.integers(0, 256, (3, 1, height, width), dtype=np.uint8)
    np.save(tmp_path / "a.npy", frames)
    dataset = Windows({"test": (tmp_path / "a.npy", np.array([0]))}, ClipShape(2, 1, 1, 128, 128))
    clip = dataset.clips("test", torch.tensor([0]))
    assert clip.shape == (1, 3, 1, 128, 128)
    for frame, source in zip(clip[0, :, 0].numpy(), frames[:, 0] / 255, strict=True):
        expected = resize(source, (128, 128), order=1, mode="edge", anti_aliasing=False)
        np.testing.assert_allclose(frame, expected, atol=2e-6)


def test_memory_holds_only_the_clips_being_read(tmp_path):
    """Read a file of 100 MB completely: its mapped pages must not stay in the process."""
    code = """
import resource, sys
import numpy as np, torch
from pathlib import Path
from stlight.registry.dataset_specs import ClipShape
from stlight.data.windows import Windows

windows = Windows({"train": (Path(sys.argv[1]), np.arange(1500) * 4)}, ClipShape(2, 2, 1, 128, 128))
peak = []
for index in torch.arange(1500).split(4):
    windows.clips("train", index)
    peak.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
print(peak[-1] - peak[0])
"""
    frames = np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (6_000, 1, 128, 128))
    frames[:] = 1
    frames.flush()
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.npy")], check=True, capture_output=True, text=True)
    assert int(done.stdout) < 40e6


def test_windows_can_overlap(tmp_path, rng):
    frames = rng.integers(0, 256, (10, 1, 4, 4), dtype=np.uint8)
    np.save(tmp_path / "a.npy", frames)
    dataset = Windows({"test": (tmp_path / "a.npy", np.array([0, 1, 7]))}, SHAPE)
    clips = {clip.numpy().tobytes() for clip in (dataset.clips("test", torch.arange(3)) * 255).round().to(torch.uint8)}
    assert clips == {frames[start : start + 3].tobytes() for start in (0, 1, 7)}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gets_the_same_clips(tmp_path, rng):
    np.save(tmp_path / "a.npy", rng.integers(0, 256, (40, 1, 60, 80), dtype=np.uint8))
    shape = ClipShape(2, 1, 1, 64, 64)
    on_cpu, on_gpu = (
        Windows({"train": (tmp_path / "a.npy", np.arange(0, 36, 3))}, shape, device=device) for device in ("cpu", "cuda")
    )
    for cpu, gpu in zip(*(d.batches("train", torch.arange(12).split(5), 2) for d in (on_cpu, on_gpu)), strict=True):
        torch.testing.assert_close(gpu.cpu(), cpu, rtol=0, atol=1e-5)
