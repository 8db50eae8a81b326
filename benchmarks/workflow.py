"""The workflow: the start of a run, and a large DAG."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.table import REPOSITORY, Options, Row
from stlight.data.prepare import prepare


def start(options: Options) -> Iterator[Row]:
    """Time a run from the start of its process to its first optimizer step, with warm caches: the median of seven."""
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
    """Time a dry run of the workflow with 5,000 runs."""
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
        started = time.perf_counter()
        command = [sys.executable, "-m", "snakemake", "--cores", "all", "-n", "-q"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stdout + done.stderr)[-2000:])
        yield Row("graph of 5,000 runs, -n -q", ours=time.perf_counter() - started, target="≤ 60 s (20 s)")
