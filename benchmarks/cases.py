"""The cases, each a function that gives rows of the table; every comparison first checks that both sides give the same."""

import ctypes
import json
import multiprocessing
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from skimage.metrics import structural_similarity

from benchmarks.listing import Listing
from benchmarks.timing import copy_bandwidth, in_turn, product_rate, step_limit
from stlight import metrics
from stlight.config import DataConfig, RunConfig
from stlight.data import Clips, open_dataset
from stlight.data.counter import integers, random_bits, uniform, unit_circle
from stlight.data.prepare import prepare
from stlight.experiments import load_plan
from stlight.kernels import using
from stlight.model import build_model
from stlight.registry.dataset_specs import DATASETS
from stlight.training.devices import choose_kernels, configure
from stlight.training.loop import Training, flatten_weights, train

REPOSITORY = Path(__file__).resolve().parent.parent
SHAPE = DATASETS["mmnist"].shape


@dataclass
class Options:
    """What was asked for on the command line."""

    threads: int
    device: str
    quick: bool


@dataclass
class Row:
    """One line of the table. Times in seconds; `target` is a ratio to reach, or for a cost the seconds not to exceed."""

    case: str
    reference: float | None = None
    ours: float | None = None
    ratio: float | None = None
    limit: float | None = None
    memory: float | None = None
    target: str = ""
    note: str = ""


def step_cases() -> Iterator[tuple[str, RunConfig, int | None, str]]:
    """Name, configuration, threads (None: as asked for), target."""
    demo, small = (load_plan(REPOSITORY / "workflow", scale, Path("nowhere")) for scale in ("demo", "small"))
    wide = {"hidden_dim": 64, "depth": 8, "patch_size": 2, "batch_size": 16}
    yield "step d 64, de 8, p 2, k (3, 7), 16 clips", RunConfig.from_fields(wide), None, "8× (12×)"
    yield "step d 64, de 8, p 2, k (11, 11), 16 clips", RunConfig.from_fields({**wide, "k1": 11, "k2": 11}), None, "20× (33×)"
    for name, plan in (("demo", demo), ("small", small)):
        base = plan.run("mmnist/stlight_l/seed0")
        model, clips = base.model, base.training.batch_size
        label = f"step {name}: d {model.hidden_dim}, de {model.depth}, p {model.patch_size}, {clips} clips"
        yield label, base, 1, "5× (8×)"
    fields = {"hidden_dim": 32, "depth": 6, "patch_size": 4, "batch_size": 16}
    yield "step d 32, de 6, p 4, 16 clips", RunConfig.from_fields(fields), None, "5× (8×)"
    yield "step STLight-L: d 1400, de 16, 1 clip", RunConfig.from_fields({"batch_size": 1}), None, "2.2× (2.8×)"


def steps(options: Options) -> Iterator[Row]:
    """A training step of the listing in plain eager PyTorch, and of the suite with the kernels that it would choose."""
    for name, config, threads, target in step_cases():
        if options.quick:
            config = config.model_copy(update={"model": config.model.model_copy(update={"hidden_dim": 16, "depth": 2})})
        threads = threads or options.threads
        torch.set_num_threads(threads)
        reference, ours, check, kernels = step_sides(config, options.device)
        check()
        if options.quick:
            yield Row(name, note=f"equal ({kernels})")
            continue
        rate, bandwidth = product_rate(options.device), copy_bandwidth(options.device)
        limit = step_limit(config.model, SHAPE, config.training.batch_size, rate, bandwidth)
        times = in_turn(reference, ours, budget=15, device=options.device)
        memory = [peak_memory(config, side, threads, options.device) for side in ("ours", "reference")]
        yield Row(
            f"{name}, {threads} thread{'s' * (threads > 1)}",
            *times,
            times[0] / times[1],
            times[0] / limit,
            memory[0] / memory[1],
            target,
            f"{kernels}; {memory[1] / 2**20:.0f} → {memory[0] / 2**20:.0f} MiB",
        )


def step_sides(config: RunConfig, device: str) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None], str]:
    """A step of the listing, one of ours, a check that both have the same loss and gradients, and the kernels of ours."""
    model, training = config.model, config.training
    configure(training)
    ours = build_model(model, SHAPE).to(device).train()
    listing = Listing(model.hidden_dim, model.depth, model.patch_size, model.overlap, model.k1, model.k2).to(device)
    listing.load_weights_of(ours)
    clip = embedded_clips().clips("train", torch.arange(training.batch_size)).to(device)
    context, target = clip[:, :10], clip[:, 10:]
    kernels, _ = choose_kernels(ours, config, torch.device(device))
    adam = torch.optim.Adam(listing.parameters())
    fused_adam = torch.optim.Adam([flatten_weights(ours)], fused=True)

    def loss_of(net: torch.nn.Module) -> torch.Tensor:
        loss = F.mse_loss(net(context), target)
        loss.backward()
        return loss.detach()

    def reference_step() -> None:
        adam.zero_grad()
        loss_of(listing)
        adam.step()

    def our_step() -> None:
        fused_adam.zero_grad(set_to_none=False)
        with using(kernels):
            loss_of(ours)
        fused_adam.step()

    def check() -> None:
        with using(kernels):
            losses = loss_of(ours), loss_of(listing)
        torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
        for mine, theirs in zip(ours.parameters(), listing.parameters(), strict=True):
            if mine is not ours.patch_encoder[0].bias:  # type: ignore[index, union-attr]
                error = (mine.grad - theirs.grad).norm() / theirs.grad.norm()  # type: ignore[operator, union-attr]
                assert error < 1e-3, f"gradients differ by {error:.1e}"

    return reference_step, our_step, check, kernels


def peak_memory(config: RunConfig, side: str, threads: int, device: str) -> int:
    """Bytes that two steps of one side take at most beyond what is there before them, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak_memory, (config.model_dump(), side, threads, device))


def _peak_memory(config: dict[str, object], side: str, threads: int, device: str) -> int:
    torch.set_num_threads(threads)
    configured = RunConfig.model_validate(config)
    # What a first step loads, libraries and their buffers, is not of this model.
    tiny = configured.model_copy(update={"model": configured.model.model_copy(update={"hidden_dim": 16, "depth": 1})})
    for step in step_sides(tiny, device)[:2]:
        step()
    reference, ours, _, _ = step_sides(configured, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        # Give back what preparing has left in the heap, and forget the peak so far.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        before = _memory("VmRSS")
    for _ in range(2):
        (ours if side == "ours" else reference)()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() - before
    return _memory("VmHWM") - before


def _memory(field: str) -> int:
    """Bytes by the kernel's account; the peak that `resource` tells would be the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


@cache
def embedded_clips() -> Clips:
    """The suite's own Moving MNIST."""
    with tempfile.TemporaryDirectory() as folder:
        prepare("mmnist", "embedded", Path(folder))
        return open_dataset(DataConfig(), Path(folder))[0]


def curves(options: Options) -> Iterator[Row]:
    """The training loss of the demo's base run, epoch by epoch, by plain PyTorch and by ours: how far they come apart."""
    if options.quick or options.device != "cpu":
        return
    torch.set_num_threads(options.threads)
    config = load_plan(REPOSITORY / "workflow", "demo", Path("nowhere")).run("mmnist/stlight_l/seed0")

    def losses(kernels: str) -> list[float]:
        with using(kernels):
            training = Training(build_model(config.model, SHAPE), config)
            return [row["train_loss"] for row in train(training, embedded_clips()).history]

    plain = losses("plain")
    for kernels in ("fused", "channels_last"):
        apart = [abs(a / b - 1) for a, b in zip(losses(kernels), plain, strict=True)]
        yield Row(
            f"curve by {kernels} and by plain", note="relative difference by epoch: " + ", ".join(f"{d:.0e}" for d in apart)
        )


def moving_mnist(options: Options) -> Iterator[Row]:
    """Clips a second: frames drawn one at a time in Python, by the same rules, and ours."""
    torch.set_num_threads(options.threads)
    dataset, index = embedded_clips(), torch.arange(4 if options.quick else 64)

    draws = drawn_numbers(dataset, index)

    def by_frame() -> torch.Tensor:
        return torch.from_numpy(np.stack([clip_by_frame(*draw) for draw in zip(*draws, strict=True)]))

    def ours() -> torch.Tensor:
        return dataset.clips("train", index)

    assert torch.equal(by_frame(), ours())
    if options.quick:
        yield Row("Moving MNIST clips", note="equal")
        return
    loop, mine = (t / len(index) for t in in_turn(by_frame, ours, budget=5))
    yield Row("Moving MNIST, a clip", loop, mine, loop / mine, target="6× (15×)", note=f"{1 / mine:.0f} clips a second")


def drawn_numbers(dataset: Any, index: torch.Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Digits (N, 2, 28, 28), and where they start and how they move (N, 2, 2), of the first epoch's clips, made beforehand."""
    bits = random_bits((0, 0, 0), index, 8).view(-1, 4, 2)
    digits = dataset._digits["train"]
    images = digits[integers(bits[:, 0], len(digits))]
    starts = torch.stack([uniform(bits[:, 1]), uniform(bits[:, 2])], -1)
    moves = 0.1 * torch.stack(unit_circle(uniform(bits[:, 3])), -1)
    return images.numpy(), starts.numpy(), moves.numpy()


def clip_by_frame(images: np.ndarray, starts: np.ndarray, moves: np.ndarray) -> np.ndarray:
    """A clip, its digits moved and pasted a frame at a time."""
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


def ssim(options: Options) -> Iterator[Row]:
    """Structural similarity of 1,000 frames, by scikit-image one at a time and by ours."""
    torch.set_num_threads(options.threads)
    target = embedded_clips().clips("test", torch.arange(2 if options.quick else 100))[:, 10:]
    prediction = (target + 0.1 * torch.rand(target.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    pairs = [(p.numpy(), t.numpy()) for p, t in zip(prediction.flatten(0, 2), target.flatten(0, 2), strict=True)]

    def loop() -> float:
        return float(np.mean([structural_similarity(p, t, data_range=2.0) for p, t in pairs]))

    difference = abs(loop() - metrics.ssim(prediction, target))
    assert difference < 1e-6, f"similarities differ by {difference:.1e}"
    if options.quick:
        yield Row("SSIM", note="equal")
        return
    times = in_turn(loop, lambda: metrics.ssim(prediction, target), budget=5)
    yield Row(
        f"SSIM of {len(pairs)} frames", *times, times[0] / times[1], target="5× (15×)", note=f"difference {difference:.0e}"
    )


def concurrency(options: Options) -> Iterator[Row]:
    """Training steps a second of the demo's base run: one process with all threads, and as many processes of one thread."""
    if options.quick or options.device != "cpu" or options.threads < 2:
        return
    base = load_plan(REPOSITORY / "workflow", "demo", Path("nowhere")).run("mmnist/stlight_l/seed0")
    context = multiprocessing.get_context("spawn")
    spent = {}
    for processes, threads in ((1, options.threads), (options.threads, 1)):
        with context.Pool(processes) as pool:
            times = pool.starmap(_seconds_per_step, [(base.model_dump(), threads)] * processes, chunksize=1)
        spent[processes] = max(times) / processes
    together, apart = spent[1], spent[options.threads]
    note = f"one process of {options.threads} threads, {options.threads} processes of one"
    yield Row("a demo step, runs side by side", together, apart, together / apart, note=note)


def _seconds_per_step(config: dict[str, object], threads: int) -> float:
    torch.set_num_threads(threads)
    _, step, _, _ = step_sides(RunConfig.model_validate(config), "cpu")
    step()
    started = time.perf_counter()
    for _ in range(300):
        step()
    return (time.perf_counter() - started) / 300


def start(options: Options) -> Iterator[Row]:
    """From the start of a run's process to the end of its first step, what can be kept being kept: the median of seven."""
    if options.quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare("mmnist", "embedded", Path(folder))
        times = [_time_to_first_step(folder) for _ in range(8)][1:]
    yield Row("start of a run to its first step", ours=sorted(times)[3], target="≤ 3 s (1.5 s)")


def _time_to_first_step(folder: str) -> float:
    program = (
        "import gc, sys; gc.disable(); import stlight.cli, time, os\n"
        "def stop(*_, **__):\n"
        "    print(time.time()); sys.stdout.flush(); os._exit(0)\n"
        "class Hook:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == 'stlight.training.loop':\n"
        "            import torch\n"
        "            torch.optim.Adam.step = stop\n"
        "sys.meta_path.insert(0, Hook())\n"
        "stlight.cli.main(['train', 'mmnist/stlight_l/seed0', '--results', sys.argv[1], '--data-root', sys.argv[1]])"
    )
    started = time.time()
    done = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, cwd=folder, check=False)
    try:
        return float(done.stdout.split()[-1]) - started
    except (IndexError, ValueError):
        raise RuntimeError(done.stderr) from None


def graph(options: Options) -> Iterator[Row]:
    """A dry run of 5,000 runs."""
    if options.quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(REPOSITORY / "Snakefile", folder)
        shutil.copytree(REPOSITORY / "workflow", Path(folder) / "workflow")
        shutil.copytree(REPOSITORY / "profiles", Path(folder) / "profiles")
        for path in (Path(folder) / "workflow" / "experiments").iterdir():
            path.unlink()
        experiment = {
            "title": "Many runs",
            "paper": {"section": "-", "item": "Many"},
            "summary": "A graph of 5,000 runs.",
            "grid": {"max_lr": [1e-4 * i for i in range(1, 21)], "final_div_factor": [10.0 * i for i in range(1, 26)]},
            "metrics": ["mse"],
            "table": {"rows": "max_lr", "columns": "final_div_factor"},
            "figure": {"kind": "heatmap", "x": "final_div_factor", "y": "max_lr", "metric": "mse"},
            "seeds": 10,
        }
        (Path(folder) / "workflow" / "experiments" / "many.yaml").write_text(json.dumps(experiment))
        yield Row("graph of 5,000 runs, -n -q", ours=_snakemake(Path(folder), "-n", "-q"), target="≤ 60 s (20 s)")


def nothing_to_do(options: Options) -> Iterator[Row]:
    """A second call when the demo is finished here; it is not made for this."""
    if options.quick:
        return
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "all", "-n"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    if "Nothing to be done" not in done.stdout + done.stderr:
        yield Row("a call with nothing to do, demo", target="≤ 15 s (8 s)", note="not measured: the demo is not finished here")
        return
    yield Row("a call with nothing to do, demo", ours=_snakemake(REPOSITORY, "--quiet"), target="≤ 15 s (8 s)")


def _snakemake(folder: Path, *arguments: str) -> float:
    started = time.perf_counter()
    command = [sys.executable, "-m", "snakemake", "--cores", "all", *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stdout + done.stderr)[-2000:])
    return time.perf_counter() - started


CASES = {case.__name__: case for case in (steps, curves, moving_mnist, ssim, concurrency, start, graph, nothing_to_do)}
