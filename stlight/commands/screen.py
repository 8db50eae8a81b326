"""Draw an overview of a scale as one screen of a terminal, or as one line."""

import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stlight.costs.overview import Overview
    from stlight.runs.survey import Status

# Sections share what the heading leaves of a screen. Each shows this many rows at least, if it has them.
_LEAST_ROWS = 3
_BAR = 24
_ORDER: tuple["Status", ...] = ("done", "diverged", "running", "starting", "waiting", "interrupted", "failed")
_COLOURS = {"failed": "31", "diverged": "33", "interrupted": "33", "blocked": "31", "running": "36", "done": "32"}


def draw_line(overview: "Overview") -> str:
    """Return the progress as one line, for a log."""
    return f"{overview.time:%H:%M:%S} scale {overview.scale}: {_progress(overview)}; {_counts(overview)}"


def draw_screen(overview: "Overview", folder: str, width: int, height: int, colours: bool = False) -> list[str]:
    """Return at most `height` lines of at most `width` characters, without counting the codes of colours."""
    head = [
        f"stlight {overview.scale}  {folder}  {overview.time:%Y-%m-%d %H:%M:%S}",
        f"[{_bar(overview.share)}] {_progress(overview)}",
        _counts(overview),
    ]
    sections = [section for section in _sections(overview) if section[1]]
    rows = _share_out([len(lines) for _, lines in sections], height - len(head) - 2 * len(sections))
    lines = head + [line for section, kept in zip(sections, rows, strict=True) for line in _section(*section, kept)]
    paint = _paint if colours else str
    return [paint(line if len(line) <= width else f"{line[: width - 1]}…") for line in lines[:height]]


def _sections(overview: "Overview") -> Iterator[tuple[str, list[str]]]:
    yield "failed", [f"{one.name}: {one.why} ({one.log})" for one in overview.failures]
    active = [
        (one.name, one.status, _epochs(one.epoch, one.num_epochs), _place(one.host, one.pid, one.gpus), one.since[-8:],
         _left(one.remaining_seconds))
        for one in overview.active
    ]  # fmt: skip
    yield "under way", _table(("name", "status", "epoch", "where", "since", "left"), active)
    items = [
        (item.name, f"{item.finished}/{item.runs}", item.active or "", item.failed or "", item.table)
        for item in sorted(overview.items, key=lambda item: item.table == "done")
    ]
    yield "items", _table(("item", "finished", "running", "failed", "table"), items)
    kinds = [
        (f"{kind.dataset} {kind.model}", kind.num_epochs, f"{kind.finished}/{kind.runs}",
         "" if kind.median_seconds is None else duration(kind.median_seconds), _left(kind.remaining_seconds))
        for kind in sorted(overview.kinds, key=lambda kind: -(kind.remaining_seconds or 0))
    ]  # fmt: skip
    yield "kinds of runs", _table(("kind", "epochs", "finished", "median", "left, one by one"), kinds)


def _section(title: str, lines: Sequence[str], rows: int) -> Iterator[str]:
    if rows > 0:
        hidden = len(lines) - rows
        yield ""
        yield f"{title}, {hidden} more lines" if hidden else title
        yield from lines[:rows]


def _share_out(wanted: list[int], room: int) -> list[int]:
    """Share the rows of a screen out: the least to each section in turn, then the rest from the first section on."""
    rows = [0] * len(wanted)
    for least in (_LEAST_ROWS, max(wanted, default=0)):
        for place, lines in enumerate(wanted):
            more = max(0, min(min(lines, least) - rows[place], room))
            rows[place] += more
            room -= more
    return rows


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return aligned lines; none without rows."""
    texts = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *texts, strict=True)]
    lines = ["  " + "  ".join(map(str.ljust, row, widths)).rstrip() for row in (header, *texts)]
    return lines if texts else []


def _progress(overview: "Overview") -> str:
    total, finished = sum(overview.runs.values()), overview.runs.get("done", 0) + overview.runs.get("diverged", 0)
    words = [f"{overview.share:.0%}"] if overview.share is not None else []
    words.append(f"{finished} of {total} runs")
    if overview.finished:
        words.append("finished")
    elif overview.remaining_seconds is None or overview.ends is None:
        words.append("remaining time unknown until a run is timed")
    else:
        left = f"about {duration(overview.remaining_seconds)} left with {overview.runs_at_a_time} at a time"
        words.append(f"{left}, until {overview.ends:%H:%M}" if overview.active else f"{left}, but nothing is running")
    return ", ".join(words)


def _counts(overview: "Overview") -> str:
    failed = len(overview.failures) - overview.runs.get("failed", 0)
    counts = [f"{overview.runs[status]} {status}" for status in _ORDER if overview.runs.get(status)]
    return ", ".join(counts + ([f"{failed} other jobs failed"] if failed else []))


def _bar(share: float | None) -> str:
    return "#" * (full := int(_BAR * (share or 0))) + "-" * (_BAR - full)


def _epochs(epoch: int | None, num_epochs: int | None) -> str:
    return "" if epoch is None else f"{epoch}/{num_epochs}"


def _place(host: str | None, pid: str | None, gpus: Sequence[str]) -> str:
    return ", ".join([f"{host} {pid}"] * bool(host) + [f"GPU {gpu}" for gpu in gpus])


def _left(seconds: float | None) -> str:
    return "" if seconds is None else duration(seconds)


def duration(seconds: float) -> str:
    """Return a time of a few characters: 45 s, 12 min, 3.5 h, 2.1 d."""
    for unit, size, limit in (("s", 1, 100), ("min", 60, 6000)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 3600:.1f} h" if seconds < 100 * 3600 else f"{seconds / 86400:.1f} d"


def _paint(line: str) -> str:
    """Colour the words that name a state, and set titles in bold."""
    if line and line[0].isalpha():
        return f"\x1b[1m{line}\x1b[0m"
    # Not inside names and paths.
    states = r"(?<![\w/=.+-])(" + "|".join(_COLOURS) + r")(?![\w/=.+-])"
    return re.sub(states, lambda found: f"\x1b[{_COLOURS[found[0]]}m{found[0]}\x1b[0m", line)


def wants_colours() -> bool:
    """Return True if stdout is a terminal that shows colours and https://no-color.org's variable does not forbid them."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
