import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stlight import metrics
from stlight.config import DataConfig
from stlight.data import KTHStandIn, MovingMNIST, TaxiBJStandIn, open_dataset
from stlight.data.clips import random_bits, uniform, unit_circle
from stlight.data.moving_mnist import positions, render
from stlight.data.prepare import open_prepared
from stlight.training.loop import evaluate, trivial_predictors


@pytest.fixture
def dataset(data_root):
    return open_dataset(DataConfig(), data_root, seed=1)[0]


SOURCES = ["mmnist", "taxibj", "kth"]


@pytest.fixture(params=SOURCES)
def any_dataset(request, data_root):
    if request.param == "mmnist":
        return open_dataset(DataConfig(), data_root, seed=1)[0]
    return {"taxibj": TaxiBJStandIn, "kth": KTHStandIn}[request.param](seed=1)


def protocol_positions(start, velocity, num_frames):
    """Move first, then clamp and reverse at an edge, as the protocol's loop does."""
    path = []
    for _ in range(num_frames):
        start += velocity
        if start <= 0:
            start, velocity = 0.0, -velocity
        if start >= 1:
            start, velocity = 1.0, -velocity
        path.append(start)
    return path


@settings(max_examples=200, deadline=None)
@given(start=st.floats(0, 1), velocity=st.floats(-0.1, 0.1), num_frames=st.integers(1, 60))
def test_the_closed_form_equals_the_protocol_s_loop(start, velocity, num_frames):
    # If a move ends exactly at an edge, the loop's own rounding decides which of two moves touches it.
    distance = (1 - start if velocity > 0 else start) / max(abs(velocity), 1e-300)
    crossing = 1 / max(abs(velocity), 1e-300)
    if any(abs(moves - round(moves)) < 1e-6 for moves in (distance, crossing) if moves < 100) or abs(velocity) < 1e-9:
        return
    ours = positions(torch.tensor(start, dtype=torch.float64), torch.tensor(velocity, dtype=torch.float64), num_frames)
    np.testing.assert_allclose(ours.numpy(), protocol_positions(start, velocity, num_frames), atol=1e-9)


def test_render_pastes_with_the_maximum(rng, with_and_without_kernels):
    digits = rng.integers(0, 256, (3, 2, 28, 28), dtype=np.uint8)
    top, left = rng.integers(0, 37, (2, 3, 2, 5))
    expected = np.zeros((3, 5, 64, 64), np.uint8)
    for clip in range(3):
        for frame in range(5):
            for digit in range(2):
                y, x = top[clip, digit, frame], left[clip, digit, frame]
                patch = expected[clip, frame, y : y + 28, x : x + 28]
                np.maximum(patch, digits[clip, digit], out=patch)
    ours = render(torch.from_numpy(digits), torch.from_numpy(top), torch.from_numpy(left))
    assert np.array_equal(ours.numpy(), np.float32(expected) / np.float32(255))


def test_a_clip_is_the_same_in_any_order_and_batch(any_dataset):
    together = any_dataset.clips("train", torch.arange(6), epoch=2)
    for index in (torch.tensor([5, 0, 3]), torch.tensor([4])):
        torch.testing.assert_close(any_dataset.clips("train", index, epoch=2), together[index], rtol=0, atol=1e-6)


def test_clips_differ_by_number_epoch_seed_and_split(any_dataset):
    index = torch.arange(2)
    clips = any_dataset.clips("train", index, epoch=1)
    other_seed = type(any_dataset).__new__(type(any_dataset))
    other_seed.__dict__ = any_dataset.__dict__ | {"seed": 2}
    assert not torch.equal(clips[0], clips[1])
    assert not torch.equal(clips, any_dataset.clips("train", index, epoch=2))
    assert not torch.equal(clips, other_seed.clips("train", index, epoch=1))
    held_out = any_dataset.clips("test", index)
    assert torch.equal(held_out, other_seed.clips("test", index))
    assert not torch.equal(held_out, any_dataset.clips("validation", index))


def test_clips_lie_in_the_unit_range_and_have_the_data_set_s_shape(any_dataset):
    shape = {"MovingMNIST": (20, 1, 64, 64), "TaxiBJStandIn": (8, 2, 32, 32), "KTHStandIn": (30, 1, 128, 128)}
    clips = any_dataset.clips("train", torch.arange(3), epoch=1)
    assert clips.shape == (3, *shape[type(any_dataset).__name__])
    assert clips.dtype == torch.float32
    assert 0 <= clips.min() < clips.max() <= 1


def test_something_moves_in_every_clip(any_dataset):
    clips = any_dataset.clips("test", torch.arange(8))
    assert ((clips[:, 1:] - clips[:, :-1]).abs().amax((1, 2, 3, 4)) > 0.05).all()


def test_clips_are_the_same_on_any_machine(dataset):
    clips = (dataset.clips("test", torch.arange(4)) * 255).to(torch.uint8)
    assert hashlib.sha256(clips.numpy().tobytes()).hexdigest()[:16] == "e50b57352cb67b5a"


def test_the_digits_of_the_splits_are_disjoint(data_root):
    digits, _ = open_prepared(data_root, "mmnist", "embedded")
    assert {split: len(images) for split, images in digits.items()} == {"train": 4000, "validation": 500, "test": 500}
    images = {split: {image.tobytes() for image in images} for split, images in digits.items()}
    assert not images["train"] & images["validation"]
    assert not images["train"] & images["test"]
    assert not images["validation"] & images["test"]


def test_trivial_predictors_score_as_the_protocol_says(dataset):
    scores = {name: evaluate(predict, dataset, "test", 300, 10)["mse"] for name, predict in trivial_predictors(10).items()}
    assert scores["repeat_last_frame"] == pytest.approx(288, rel=0.05)
    assert scores["all_zeros"] == pytest.approx(175, rel=0.05)
    clip = dataset.clips("test", torch.arange(300))
    mean = clip[:, :10].mean(1, keepdim=True).expand(-1, 10, -1, -1, -1)
    assert scores["mean_of_context"] == pytest.approx(metrics.mse(mean, clip[:, 10:]), rel=1e-6)


def test_evaluation_averages_over_clips(dataset):
    predict = trivial_predictors(10)["repeat_last_frame"]
    clip = dataset.clips("validation", torch.arange(19))
    expected = metrics.all_metrics(clip[:, 9:10].expand(-1, 10, -1, -1, -1), clip[:, 10:])
    assert evaluate(predict, dataset, "validation", 19, 10) == pytest.approx(expected, rel=1e-9)


def test_counter_numbers_are_uniform_and_independent():
    numbers = uniform(random_bits((7, 0, 3), torch.arange(20_000), 4)).numpy()
    assert numbers.min() >= 0
    assert numbers.max() < 1
    np.testing.assert_allclose(numbers.mean(0), 0.5, atol=0.01)
    np.testing.assert_allclose(numbers.var(0), 1 / 12, atol=0.003)
    # Neighbouring clips, draws and epochs are uncorrelated.
    assert np.abs(np.corrcoef(numbers.T) - np.eye(4)).max() < 0.03
    next_epoch = uniform(random_bits((7, 0, 4), torch.arange(20_000), 4)).numpy()
    assert abs(np.corrcoef(numbers[1:, 0], numbers[:-1, 0])[0, 1]) < 0.03
    assert abs(np.corrcoef(numbers[:, 0], next_epoch[:, 0])[0, 1]) < 0.03


def test_unit_circle_is_sine_and_cosine():
    turn = torch.linspace(0, 1, 1001, dtype=torch.float64)[:-1]
    cosine, sine = unit_circle(turn)
    torch.testing.assert_close(cosine, torch.cos(2 * math.pi * turn), rtol=0, atol=1e-13)
    torch.testing.assert_close(sine, torch.sin(2 * math.pi * turn), rtol=0, atol=1e-13)


def test_a_given_test_sequence_is_read_unchanged(rng, tmp_path):
    digits = {"train": rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)}
    sequence = rng.integers(0, 256, (20, 4, 64, 64), dtype=np.uint8)
    np.save(tmp_path / "sequence.npy", sequence)
    dataset = MovingMNIST(digits, test_sequence=tmp_path / "sequence.npy")
    clips = dataset.clips("test", torch.tensor([3, 1]))
    np.testing.assert_allclose(clips[0, :, 0].numpy() * 255, sequence[:, 3], atol=1e-3)
    with pytest.raises(IndexError, match="4"):
        dataset.clips("test", torch.tensor([4]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_makes_the_same_clips(data_root):
    on_cpu, on_gpu = (open_dataset(DataConfig(), data_root, seed=1, device=device)[0] for device in ("cpu", "cuda"))
    index = torch.arange(64)
    assert torch.equal(on_cpu.clips("train", index, 3), on_gpu.clips("train", index, 3).cpu())
