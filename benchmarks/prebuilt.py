"""The libraries that a wheel carries, beside the one that is compiled for this processor."""

import copy
import ctypes
import runpy
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from time import process_time

import torch

from benchmarks.frames import embedded_clips
from benchmarks.harness import REPOSITORY, BenchmarkOptions, Timing, in_turn
from benchmarks.steps import check_agreement, take_adam_step
from stlight.experiments import load_plan
from stlight.kernels import compile as compiling
from stlight.kernels import fused
from stlight.kernels import prebuilt as finding
from stlight.kernels.whole_step import FlatAdam
from stlight.model import build_model
from stlight.training.devices import accelerate_for_run, configure


def prebuilt(options: BenchmarkOptions) -> Iterator[Timing]:
    """Compare processor times of a step of demo's base, with this processor's own library and with that of each level."""
    config = load_plan(REPOSITORY / "workflow", "demo", Path("nowhere")).run("mmnist/stlight_l/seed0")
    torch.set_num_threads(1)
    configure(config.training)
    listing = build_model(config.model, config.clip_shape).train()
    ours = copy.deepcopy(listing)
    accelerate_for_run(ours, config, torch.device("cpu"))
    clip = embedded_clips(config.data.downsampling).clips("train", torch.arange(config.training.batch_size))
    native = _library(None)
    with tempfile.TemporaryDirectory() as folder:
        carried = {level: _library(path) for level, path in _built(Path(folder)).items()}
        for library in carried.values():
            _using(library, partial(check_agreement, ours, listing, clip))
        step = partial(take_adam_step, ours, FlatAdam(ours), clip)
        for level, library in carried.items():
            name = f"step demo, 1 thread: compiled here, and for {level}"
            if options.quick:
                yield Timing(name, note="equal")
                continue
            times = in_turn(partial(_using, native, step), partial(_using, library, step), budget=15, clock=process_time)
            yield Timing(name, *times, times[0] / times[1], "0.9×")
    fused.library = compiling.library


def _built(folder: Path) -> dict[str, Path]:
    """Compile the mixer's kernels as a wheel has them, for the levels that this processor has, and return the libraries."""
    setup = runpy.run_path(str(REPOSITORY / "setup.py"), run_name="benchmark")
    found = {}
    for level in finding.levels():
        if said := setup["compile_kernel"](setup["KERNELS"] / "mixer.c", level, folder):
            raise ValueError(said)
        (found[level],) = folder.glob(f"mixer-{level}-*.so")
    return found


def _library(path: Path | None) -> ctypes.CDLL:
    """Open the library at a path, or this processor's own."""
    compiling.prebuilt = lambda source: path
    compiling.library.cache_clear()
    opened = compiling.library("mixer.c")
    compiling.prebuilt = finding.prebuilt
    compiling.library.cache_clear()
    if opened is None or (path and opened._name != str(path)):
        raise ValueError(f"{path or 'mixer.c'}: does not open or compile")
    return opened


def _using(library: ctypes.CDLL, function: Callable[[], object]) -> None:
    fused.library = lambda source: library
    function()
