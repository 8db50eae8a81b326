"""Frames: drawing clips of moving digits, reading clips from files, and comparing frames."""

import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from statistics import median

import numpy as np
import torch
from skimage.metrics import structural_similarity

from benchmarks.harness import REPOSITORY, BenchmarkOptions, Timing, in_turn, seconds
from stlight import metrics
from stlight.config import DataConfig
from stlight.costs.estimate import time_steps
from stlight.data import Clips, open_dataset
from stlight.data.clips import integers, random_bits, uniform, unit_circle
from stlight.data.prepare import prepare
from stlight.experiments import load_plan
from tests.data.real_files import write_kth, write_taxibj


@cache
def embedded_clips(downsampling: int = 1) -> Clips:
    """Return the suite's Moving MNIST, with frames reduced by a factor."""
    with tempfile.TemporaryDirectory() as folder:
        prepare("mmnist", "embedded", Path(folder))
        return open_dataset(DataConfig(downsampling=downsampling), Path(folder))[0]


def moving_mnist(options: BenchmarkOptions) -> Iterator[Timing]:
    """Compare clips whose frames are drawn one at a time in Python with ours."""
    torch.set_num_threads(options.threads)
    dataset, index = embedded_clips(), torch.arange(4 if options.quick else 64)
    # The numbers that clips of the first epoch are drawn from.
    bits = random_bits((0, 0, 0), index, 8).view(-1, 4, 2)
    digits = dataset._digits["train"]  # type: ignore[attr-defined]
    images = digits[integers(bits[:, 0], len(digits))]
    starts = torch.stack([uniform(bits[:, 1]), uniform(bits[:, 2])], -1)
    moves = 0.1 * torch.stack(unit_circle(uniform(bits[:, 3])), -1)
    draws = list(zip(images.numpy(), starts.numpy(), moves.numpy(), strict=True))

    def by_frame() -> torch.Tensor:
        return torch.from_numpy(np.stack([clip_by_frame(*draw) for draw in draws]))

    def ours() -> torch.Tensor:
        return dataset.clips("train", index)

    assert torch.equal(by_frame(), ours())
    if options.quick:
        yield Timing("Moving MNIST clips", note="equal")
        return
    loop, mine = (t / len(index) for t in in_turn(by_frame, ours, budget=5))
    yield Timing("Moving MNIST, a clip", loop, mine, loop / mine, target="6× (15×)", note=f"{1 / mine:.0f} clips a second")


def reading(options: BenchmarkOptions) -> Iterator[Timing]:
    """Compare a training step of the scale `demo` with reading its batch from files in the formats of the real ones."""
    torch.set_num_threads(options.threads)
    plan, rng = load_plan(REPOSITORY / "workflow", "demo", Path("nowhere")), np.random.default_rng(0)
    for dataset, write in (("taxibj", write_taxibj), ("kth", write_kth)):
        config = next(config for config in plan.runs.values() if config.data.dataset == dataset)
        from_files = DataConfig(dataset=dataset, source="files", validation_clips=1, test_clips=1)
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), rng)
            prepare(dataset, "files", Path(folder))
            clips, batch = open_dataset(from_files, Path(folder))[0], torch.arange(config.training.batch_size)
            times = [seconds(lambda source=clips, index=batch: source.clips("train", index)) for _ in range(50)]
        step, mine = time_steps(config, torch.device("cpu"), len(batch)).step_seconds, median(times)
        yield Timing(f"{dataset}, reading a batch beside a step", step, mine, step / mine)


def clip_by_frame(images: np.ndarray, starts: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """Draw a clip: move and paste its digits one frame at a time."""
    frames = np.zeros((20, 1, 64, 64), np.uint8)
    for image, (x, y), (dx, dy) in zip(images, starts.tolist(), moves.tolist(), strict=True):
        for frame in frames:
            x, y = x + dx, y + dy
            if x <= 0 or x >= 1:
                x, dx = min(max(x, 0.0), 1.0), -dx
            if y <= 0 or y >= 1:
                y, dy = min(max(y, 0.0), 1.0), -dy
            left, top = int(36 * x), int(36 * y)
            patch = frame[0, top : top + 28, left : left + 28]
            np.maximum(patch, image, out=patch)
    return np.divide(frames, np.float32(255), dtype=np.float32)


def ssim(options: BenchmarkOptions) -> Iterator[Timing]:
    """Compare the structural similarity of 1,000 frames by scikit-image, one at a time, with ours."""
    torch.set_num_threads(options.threads)
    target = embedded_clips().clips("test", torch.arange(2 if options.quick else 100))[:, 10:]
    prediction = (target + 0.1 * torch.rand(target.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    pairs = [(p.numpy(), t.numpy()) for p, t in zip(prediction.flatten(0, 2), target.flatten(0, 2), strict=True)]

    def loop() -> float:
        return float(np.mean([structural_similarity(p, t, data_range=2.0) for p, t in pairs]))

    difference = abs(loop() - metrics.ssim(prediction, target))
    assert difference < 1e-6, f"similarities differ by {difference:.1e}"
    if options.quick:
        yield Timing("SSIM", note="equal")
        return
    times = in_turn(loop, lambda: metrics.ssim(prediction, target), budget=5)
    yield Timing(
        f"SSIM of {len(pairs)} frames", *times, times[0] / times[1], target="5× (15×)", note=f"difference {difference:.0e}"
    )
