"""Run the benchmark, show its table, and keep it as JSON."""

import argparse
import gc
import json
import os
import platform
import sys
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path


def main() -> None:
    """Parse the command line; threads are set before torch is loaded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", help="steps, curves, moving_mnist, ssim, concurrency, start, graph, nothing_to_do (all)"
    )
    parser.add_argument("--quick", action="store_true", help="small sizes, no times: only that both sides give the same")
    parser.add_argument("--threads", type=int, default=2, help="threads of both sides (2); one for demo and small")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--json", type=Path, default=Path("results/benchmark.json"), help="where to keep the figures")
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    if find_spec("skimage") is None:
        parser.error(
            "scikit-image is not installed, which the tests' requirements bring: pip install -e '.[test]' -c constraints.txt"
        )

    from benchmarks.cases import CASES, Options, Row

    unknown = set(options.cases) - set(CASES)
    if unknown or options.threads < 1:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "--threads must be at least 1")
    gc.freeze()
    rows: list[Row] = []
    for name in options.cases or CASES:
        for row in CASES[name](Options(options.threads, options.device, options.quick)):
            rows.append(row)
            print(row.case, file=sys.stderr, flush=True)
    machine = _machine(options.device)
    print(f"\n{machine}\n")
    print(_table(rows))
    if not options.quick:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps({"machine": machine, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")


def _table(rows: list) -> str:  # type: ignore[type-arg]
    from tabulate import tabulate

    def time(seconds: float | None) -> str:
        if seconds is None:
            return ""
        return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1e3:.3g} ms"

    def ratio(value: float | None, sign: str = "×") -> str:
        return "" if value is None else f"{value:.1f}{sign}" if value < 100 else f"{value:.0f}{sign}"

    cells = [
        [r.case, time(r.reference), time(r.ours), ratio(r.ratio), r.target, ratio(r.limit), ratio(r.memory), r.note]
        for r in rows
    ]
    head = ["case", "reference", "ours", "ratio", "at least (aim)", "limit", "memory", "note"]
    return tabulate(cells, head, "github", disable_numparse=True)


def _machine(device: str) -> str:
    import torch

    if device == "cuda":
        name = torch.cuda.get_device_name()
    else:
        lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        name = (
            f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}"
        )
    return f"{name}; Python {platform.python_version()}, torch {torch.__version__}"


if __name__ == "__main__":
    main()
