"""Measure time and memory of preparing and reading each data set, and compare a batch with a training step.

The files have the formats of the real ones, are filled with noise, and hold a share of the published number of clips.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

SCALES = ("demo", "small")


def main() -> None:
    """Make the files, then measure each data set in separate processes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--share", type=float, default=0.02, help="of the published number of clips (0.02)")
    parser.add_argument("--folder", type=Path, help="where to put the files (a temporary folder)")
    parser.add_argument("datasets", nargs="*", default=["mmnist", "taxibj", "kth"])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        rows = [_measure(dataset, Path(name), options.share) for dataset in options.datasets]
    from tabulate import tabulate

    head = ["data set", "prepared in", "memory", "clips/s read", "memory", *(f"a batch beside a step, {s}" for s in SCALES)]
    print(tabulate(rows, head, "github", disable_numparse=True))


def _measure(dataset: str, root: Path, share: float) -> list[str]:
    _in_a_process(_make, dataset, root, share)
    prepared = _in_a_process(_prepare, dataset, root, share)
    read = _in_a_process(_read, dataset, root, share)
    ratios = [f"1 : {read[s]['step'] / read[s]['batch']:.1f} ({1e3 * read[s]['batch']:.2g} ms)" for s in SCALES]
    return [
        f"{dataset}, {read['clips']} clips, {prepared['size'] / 1e6:.0f} MB",
        f"{prepared['seconds']:.1f} s",
        f"{prepared['memory'] / 2**20:.0f} MiB",
        f"{read['rate']:.0f}",
        f"{read['memory'] / 2**20:.0f} MiB",
        *ratios,
    ]


def _in_a_process(function, dataset: str, root: Path, share: float):  # type: ignore[no-untyped-def]
    """Call a function in a new process, so that its peak memory is its own, and return the result."""
    code = f"from benchmarks import data; from pathlib import Path; import json; print(json.dumps(data.{function.__name__}("
    code += f"{dataset!r}, Path({str(root)!r}), {share})))"
    done = subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak() -> int:
    """Return the peak memory of this process in bytes, including mapped pages that the system can drop at any time."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _make(dataset: str, root: Path, share: float) -> None:
    import gzip

    import numpy as np
    from PIL import Image

    from stlight.registry.dataset_specs import DATASETS, KTH_ACTIONS

    rng = np.random.default_rng(0)
    if dataset == "mmnist":
        images, sequence = (root / name for name in DATASETS[dataset].files)
        images.parent.mkdir(parents=True)
        header = np.array([0x803, 60_000, 28, 28], ">u4").tobytes()
        images.write_bytes(gzip.compress(header + rng.integers(0, 256, 60_000 * 784, dtype=np.uint8).tobytes(), 1))
        np.save(sequence, rng.integers(0, 256, (20, max(48, int(share * 10_000)), 64, 64), dtype=np.uint8))
    elif dataset == "taxibj":
        (root / dataset).mkdir()
        sizes = {"train": int(share * 20_461), "test": 500}
        arrays = {f"{p}_{s}": rng.uniform(-1, 1, (n, 4, 2, 32, 32)) for p in "XY" for s, n in sizes.items()}
        np.savez(root / dataset / "dataset.npz", **arrays)
    else:
        # The published set has four recordings for each person and action; make one, with a share of the frames of all four.
        frame = Image.fromarray(rng.integers(0, 256, (15, 20), dtype=np.uint8)).resize((160, 120)).convert("RGB")
        for action in KTH_ACTIONS:
            for person in range(1, 26):
                folder = root / dataset / action / f"person{person:02d}_{action}_d1_uncomp"
                folder.mkdir(parents=True)
                frame.save(folder / "image_0001.jpg", quality=90)
                content = (folder / "image_0001.jpg").read_bytes()
                for number in range(2, max(40, int(share * 1350)) + 1):
                    (folder / f"image_{number:04d}.jpg").write_bytes(content)


def _prepare(dataset: str, root: Path, share: float) -> dict[str, float]:
    import time

    from stlight.data.prepare import prepare

    started = time.perf_counter()
    prepare(dataset, "files", root)
    size = sum(p.stat().st_size for p in (root / "prepared").glob(f"{dataset}-files.np*"))
    return {"seconds": time.perf_counter() - started, "memory": _peak(), "size": size}


def _read(dataset: str, root: Path, share: float) -> dict:  # type: ignore[type-arg]
    import statistics
    import time

    import torch

    torch.set_num_threads(1)
    from stlight.config import DataConfig
    from stlight.costs.estimate import time_steps
    from stlight.data import open_dataset
    from stlight.experiments import load_plan

    clips, facts = open_dataset(DataConfig(dataset=dataset, source="files", validation_clips=1, test_clips=1), root)
    split = "test" if dataset == "mmnist" else "train"
    count = facts["frames"]["test"]["clips"] if dataset == "mmnist" else facts["count"]["train"]
    index = torch.arange(count).split(16)
    clips.clips(split, index[0])
    started = time.perf_counter()
    for batch in index:
        clips.clips(split, batch)
    found = {"rate": count / (time.perf_counter() - started), "memory": _peak(), "clips": count}
    for scale in SCALES:
        plan = load_plan(Path(__file__).parent.parent / "workflow", scale, Path("nowhere"))
        config = next(c for c in plan.runs.values() if c.data.dataset == dataset)
        size, times = config.training.batch_size, []
        for first in range(20):
            started = time.perf_counter()
            clips.clips(split, torch.arange(first * size, (first + 1) * size) % count)
            times.append(time.perf_counter() - started)
        found[scale] = {"batch": statistics.median(times), "step": time_steps(config, torch.device("cpu"), size).step_seconds}
    return found


if __name__ == "__main__":
    main()
