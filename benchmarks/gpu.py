"""Measure a GPU in ten minutes: rates, agreement and speed of the kernels, training steps, memory, clips.

It needs a checkout of the suite, torch, Triton and numpy, and no network. Each part runs in a process of its own, so that a
part that fails, hangs or breaks the device costs its own numbers only. The file is complete after every part.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
# Parts that start with less time than this could not finish.
_LEAST_SECONDS = 5.0


def main(arguments: Sequence[str]) -> int:
    """Run all parts that fit into the time, and write one JSON file. Return 1 if there is no such device."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"], help="cpu: the same in small, to try the code")
    parser.add_argument("--minutes", type=float, default=10.0, help="time after which no part goes on (10)")
    parser.add_argument("--output", type=Path, help="file to write (<name of the device>.json)")
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    facts = run_part("device", "", options.device, deadline)
    if "error" in facts:
        print(f"benchmarks gpu: {facts['error']}", file=sys.stderr)
        return 1
    path = options.output or Path(re.sub(r"[^\w.-]+", "-", facts["name"]).lower() + ".json")
    measured: dict[str, Any] = {"format": 1, "device": facts}
    for part, argument in parts(facts["kernels"], list(step_cases())[: 2 if options.device == "cpu" else None]):
        result = run_part(part, argument, options.device, deadline)
        print(f"{part} {argument}".rstrip(), result.get("error", "done"), sep=": ", file=sys.stderr, flush=True)
        if argument:
            measured.setdefault(part, {})[argument] = result
        else:
            measured[part] = result
        path.write_text(json.dumps(measured, indent=1) + "\n")
    print(f"written: {path}")
    return 0


def parts(kernels: Sequence[str], cases: Sequence[str]) -> list[tuple[str, str]]:
    """Return each part with its argument, those that others need first."""
    equality = [("equality", name) for name in kernels if name != "plain"]
    return [("rates", ""), *equality, *(("steps", case) for case in cases), ("clips", ""), ("tiles", "")]


def step_cases() -> dict[str, dict[str, int]]:
    """Return the base of each scale on Moving MNIST by its name, the largest first; that of `paper` is STLight-L.

    The files are not parsed as YAML, because a bare machine has no parser. A base is written in one line.
    """
    cases: dict[str, dict[str, int]] = {}
    for path in sorted((REPOSITORY / "workflow" / "scales").glob("*.yaml")):
        text = path.read_text()
        base = re.search(r"^base: \{(.*)\}", text, re.MULTILINE)
        downsampling = re.search(r"^  mmnist: \{.*\bdownsampling: (\d+)", text, re.MULTILINE)
        if base:
            fields = {name: int(value) for name, value in re.findall(r"(\w+): (\d+)(?![\d.])", base[1])}
            fields = {name: fields[name] for name in ("hidden_dim", "depth", "patch_size", "batch_size")}
            cases[path.stem] = fields | {"downsampling": int(downsampling[1]) if downsampling else 1}
    return dict(sorted(cases.items(), key=lambda case: -case[1]["hidden_dim"] * case[1]["depth"]))


def run_part(part: str, argument: str, device: str, deadline: float) -> dict[str, Any]:
    """Run a part in its own process until the deadline at most. Return its result, or {"error": one line}."""
    left = deadline - time.monotonic()
    if left < _LEAST_SECONDS:
        return {"error": "left out: no time left"}
    command = [sys.executable, "-m", "benchmarks.gpu_parts", part, argument, device]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=left)
    except subprocess.TimeoutExpired:
        return {"error": f"stopped after {left:.0f} s: no time left"}
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"error": lines[-1] if lines else f"ended with status {done.returncode}"}
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result
