"""The workflow: the start of a run, and a large DAG."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.harness import REPOSITORY, BenchmarkOptions, Timing
from stlight.data.prepare import prepare

# Train until the first optimizer step, then print the time and exit.
_TRAIN_TO_FIRST_STEP = """
import os, sys, time, torch
from stlight import cli
torch.optim.Adam.step = lambda *_, **__: (print(time.time(), flush=True), os._exit(0))
cli.main(["train", "mmnist/stlight_l/seed0", "--results", sys.argv[1], "--data-root", sys.argv[1]])
"""


def start(options: BenchmarkOptions) -> Iterator[Timing]:
    """Time a run from the start of its process to its first optimizer step, with warm caches: the median of seven."""
    if options.quick:
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare("mmnist", "embedded", Path(folder))
        times = []
        for _ in range(8):
            started = time.time()
            times.append(float(_output([sys.executable, "-c", _TRAIN_TO_FIRST_STEP, folder], folder).split()[-1]) - started)
    yield Timing("start of a run to its first step", ours=sorted(times[1:])[3], target="≤ 3 s (1.5 s)")


def graph(options: BenchmarkOptions) -> Iterator[Timing]:
    """Time a dry run of the workflow with 5,000 runs."""
    if options.quick:
        return
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
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(REPOSITORY / "Snakefile", folder)
        shutil.copytree(REPOSITORY / "profiles", Path(folder) / "profiles")
        ignored = shutil.ignore_patterns("experiments")
        experiments = Path(shutil.copytree(REPOSITORY / "workflow", Path(folder) / "workflow", ignore=ignored)) / "experiments"
        experiments.mkdir()
        (experiments / "many.yaml").write_text(json.dumps(experiment))
        started = time.perf_counter()
        _output([sys.executable, "-m", "snakemake", "--cores", "all", "-n", "-q"], folder)
        yield Timing("graph of 5,000 runs, -n -q", ours=time.perf_counter() - started, target="≤ 60 s (20 s)")


def _output(command: list[str], folder: str) -> str:
    return subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True).stdout
