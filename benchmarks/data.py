"""Measure how fast each data set is prepared and read, and compare a batch with a training step of the scale `demo`.

The files have the formats of the real ones, are filled with noise, and hold a share of the published number of clips.
"""

import argparse
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from tabulate import tabulate

from benchmarks.table import REPOSITORY
from benchmarks.timing import seconds
from stlight.config import DataConfig
from stlight.costs.estimate import time_steps
from stlight.data import open_dataset
from stlight.data.prepare import prepare
from stlight.experiments import load_plan
from tests.data.real_files import write_kth, write_moving_mnist, write_taxibj


def main() -> None:
    """Make the files, then measure each data set in a process of its own, so that its peak memory is its own."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--share", type=float, default=0.02, help="of the published number of clips (0.02)")
    share = parser.parse_args().share
    rows = []
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(1, get_context("spawn"), max_tasks_per_child=1) as pool:
        for dataset in ("mmnist", "taxibj", "kth"):
            pool.submit(_make, dataset, Path(folder), share).result()
            rows.append(pool.submit(_measure, dataset, Path(folder)).result())
    head = ["data set", "prepared in", "clips/s read", "peak memory", "a batch beside a step at demo"]
    print(tabulate(rows, head, "github", disable_numparse=True))


def _make(dataset: str, root: Path, share: float) -> None:
    rng = np.random.default_rng(0)
    if dataset == "mmnist":
        write_moving_mnist(root, rng, clips=max(48, int(share * 10_000)))
    elif dataset == "taxibj":
        write_taxibj(root, rng, train=int(share * 20_461), test=500)
    else:
        # The published set has four recordings for each person and action; make one, with a share of the frames of all four.
        write_kth(root, rng, persons=range(1, 26), frames=max(40, int(share * 1350)))


def _measure(dataset: str, root: Path) -> list[str]:
    torch.set_num_threads(1)
    preparing = seconds(lambda: prepare(dataset, "files", root))
    clips = open_dataset(DataConfig(dataset=dataset, source="files", validation_clips=1, test_clips=1), root)[0]
    # The training clips of Moving MNIST are drawn, not read.
    split = "test" if dataset == "mmnist" else "train"
    count = clips.available(split)
    assert count
    reading = seconds(lambda: sum(len(clips.clips(split, index)) for index in torch.arange(count).split(16)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    plan = load_plan(REPOSITORY / "workflow", "demo", Path("nowhere"))
    config = next(config for config in plan.runs.values() if config.data.dataset == dataset)
    size = config.training.batch_size
    indices = [torch.arange(first * size, (first + 1) * size) % count for first in range(20)]
    batch = median(seconds(lambda index=index: clips.clips(split, index)) for index in indices)  # type: ignore[misc]
    step = time_steps(config, torch.device("cpu"), size).step_seconds
    return [
        f"{dataset}, {count} clips",
        f"{preparing:.1f} s",
        f"{count / reading:.0f}",
        f"{memory / 2**10:.0f} MiB",
        f"1 : {step / batch:.1f} ({1e3 * batch:.2g} ms)",
    ]


if __name__ == "__main__":
    main()
