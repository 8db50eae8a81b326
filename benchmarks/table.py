"""Rows of the benchmark's table."""

from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

REPOSITORY = Path(__file__).resolve().parent.parent


@dataclass
class Options:
    """Options of the command line."""

    threads: int
    device: str
    quick: bool


@dataclass
class Row:
    """One line of the table. Times are in seconds; `target` is a ratio to reach, or a time not to exceed."""

    case: str
    reference: float | None = None
    ours: float | None = None
    ratio: float | None = None
    limit: float | None = None
    memory: float | None = None
    target: str = ""
    note: str = ""


def render(rows: list[Row]) -> str:
    """Return the rows as a Markdown table."""

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
