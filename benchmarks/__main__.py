"""Run the benchmark, print its table, and write it as JSON."""

import argparse
import gc
import json
import os
import platform
import re
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Parse the command line and run the cases. Threads are set before torch is loaded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", help="steps, moving_mnist, reading, ssim, start, graph (all)")
    parser.add_argument("--quick", action="store_true", help="small sizes and no times: check only that both sides agree")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (2); one for demo and small")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, default=Path("results/benchmark.json"), help="file for the figures")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if find_spec("skimage") is None:
        parser.error("scikit-image is missing; install it with the tests: pip install -e '.[test]' -c constraints.txt")

    from benchmarks import frames, steps, workflow
    from benchmarks.table import Options, Row, render

    functions = (steps.steps, frames.moving_mnist, frames.reading, frames.ssim, workflow.start, workflow.graph)
    cases = {function.__name__: function for function in functions}
    unknown = set(options.cases) - set(cases)
    if unknown or options.threads < 1:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "--threads must be at least 1")
    gc.freeze()
    rows: list[Row] = []
    for name in options.cases or cases:
        for row in cases[name](Options(options.threads, options.device, options.quick)):
            rows.append(row)
            print(row.case, file=sys.stderr, flush=True)
    machine = _machine(options.device)
    print(f"\n{machine}\n")
    print(render(rows))
    if not options.quick:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def _machine(device: str) -> str:
    import torch

    name = platform.processor() or platform.machine()
    if device == "cuda":
        name = torch.cuda.get_device_name()
    elif sys.platform == "linux":
        names = re.findall("model name.*: (.*)", Path("/proc/cpuinfo").read_text()) or [name]
        name = f"{names[0]}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
    return f"{name}; Python {platform.python_version()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
