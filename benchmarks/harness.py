"""Time two sides in turn, and print what was found as a table."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass
class BenchmarkOptions:
    """Options of the command line."""

    threads: int
    device: str
    quick: bool


@dataclass
class Timing:
    """One line of the table. Times are in seconds; `target` is a ratio to reach, or a time not to exceed."""

    case: str
    reference: float | None = None
    ours: float | None = None
    ratio: float | None = None
    target: str = ""
    note: str = ""


Clock = Callable[[], float]


def seconds(function: Callable[[], object], device: str = "cpu", clock: Clock = time.perf_counter) -> float:
    """Return how long a call takes."""
    started = clock()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - started


def in_turn(
    reference: Callable[[], object],
    ours: Callable[[], object],
    *,
    budget: float,
    device: str = "cpu",
    clock: Clock = time.perf_counter,
) -> tuple[float, float]:
    """Return the median seconds of each side, warm, and in turn so that other work on the machine affects both alike.

    Ours is called five times in each turn, because it is short. `budget` is the total time in seconds, by a real clock.
    """

    for side in (reference, ours, ours):
        side()
    references, times, started = [], [], time.perf_counter()
    while len(references) < 3 or time.perf_counter() - started < budget:
        references.append(seconds(reference, device, clock))
        times += [seconds(ours, device, clock) for _ in range(5)]
    return median(references), median(times)


def render(rows: list[Timing]) -> str:
    """Return the rows as a Markdown table."""

    def milliseconds(seconds: float | None) -> str:
        return "" if seconds is None else f"{seconds * 1e3:.4g} ms"

    cells = [
        [r.case, milliseconds(r.reference), milliseconds(r.ours), f"{r.ratio:.1f}×" if r.ratio else "", r.target, r.note]
        for r in rows
    ]
    return tabulate(cells, ["case", "reference", "ours", "ratio", "at least (aim)", "note"], "github", disable_numparse=True)
