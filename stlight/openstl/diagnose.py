"""Compare the protocols of two runs, each of OpenSTL or of the suite, fact by fact."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tabulate import tabulate

from stlight.analysis.escaping import plain
from stlight.openstl.facts import FACTS, Fact
from stlight.openstl.ours import facts_of_run
from stlight.openstl.theirs import facts_of_work_dir
from stlight.openstl.workdir import WorkDir, is_work_dir

SCHEMA = 1
"""Version of the JSON document. It changes if a key is renamed, removed or means something else, but not if one is added."""

Outcome = Literal["same", "different", "unknown"]
"""unknown: one run's files do not tell."""


@dataclass(frozen=True)
class Line:
    """One fact in both runs."""

    name: str
    a: Fact
    b: Fact

    @property
    def outcome(self) -> Outcome:
        """Say whether the runs differ in it."""
        if self.a.value is None or self.b.value is None:
            return "unknown"
        return "same" if self.a.value == self.b.value else "different"


@dataclass(frozen=True)
class Diagnosis:
    """Every fact of two runs' protocols."""

    a: Path
    b: Path
    lines: tuple[Line, ...]

    def of(self, outcome: Outcome) -> list[Line]:
        """Return the facts with an outcome."""
        return [line for line in self.lines if line.outcome == outcome]

    @property
    def exit_status(self) -> int:
        """0: no known fact differs. 1: one does."""
        return int(bool(self.of("different")))


def diagnose(a: Path, b: Path) -> Diagnosis:
    """Compare two runs. Raises `ValueError`, in one line, for a folder that holds no run."""
    ours, theirs = facts_of(a), facts_of(b)
    absent = Fact(None, "not stated")
    return Diagnosis(a, b, tuple(Line(name, ours.get(name, absent), theirs.get(name, absent)) for name in FACTS))


def facts_of(folder: Path) -> dict[str, Fact]:
    """Return the facts of a work dir of OpenSTL, or of a run's folder."""
    if is_work_dir(folder):
        return facts_of_work_dir(WorkDir(folder))
    if (folder / "record.json").is_file():
        return facts_of_run(folder)
    what = "holds neither record.json nor model_param.json" if folder.is_dir() else "is no folder"
    raise ValueError(f"{folder} {what}: diagnose takes a run of the suite, or a work dir of OpenSTL")


def as_text(found: Diagnosis, every_fact: bool = False) -> str:
    """Return the diagnosis for readers: the facts that differ, those that are unknown, or all."""
    return "\n".join(_lines(found, every_fact))


def _lines(found: Diagnosis, every_fact: bool) -> Iterator[str]:
    yield f"A: {found.a}\nB: {found.b}"
    counts = {outcome: len(found.of(outcome)) for outcome in ("same", "different", "unknown")}
    yield f"\n{len(found.lines)} facts: {counts['same']} the same, {counts['different']} different, {counts['unknown']} unknown"
    shown = found.lines if every_fact else found.of("different")
    if shown:
        rows = [_row(line) for line in shown]
        yield "\n" + tabulate(rows, "keys", disable_numparse=True, maxcolwidths=[None, 34, 34, None, 44, 34])
        yield "\nevidence:"
        yield from (f"  {line.name}: {words}" for line in shown for words in _evidence(line))
    if counts["unknown"] and not every_fact:
        yield "\nunknown:"
        for line in found.of("unknown"):
            sides = [f"{side}: {plain(f.evidence)}" for side, f in (("A", line.a), ("B", line.b)) if f.value is None]
            yield f"  {line.name}: {'; '.join(sides)}"
    yield "\nthe protocols differ" if found.exit_status else "\nno known fact of the protocols differs"


def _evidence(line: Line) -> list[str]:
    if line.a.evidence == line.b.evidence:
        return [plain(line.a.evidence)]
    return [f"{side}: {plain(fact.evidence)}" for side, fact in (("A", line.a), ("B", line.b))]


def _row(line: Line) -> dict[str, str]:
    spec = FACTS[line.name]
    found = {"fact": line.name, "A": _value(line.a), "B": _value(line.b), "is": line.outcome}
    return found | {"changes": spec.effect, "see": spec.source}


def _value(fact: Fact) -> str:
    return "unknown" if fact.value is None else plain(fact.value)


def as_json(found: Diagnosis) -> dict[str, Any]:
    """Return the diagnosis as JSON; null for what is unknown."""
    facts = [
        {"fact": line.name, "outcome": line.outcome, "a": line.a.__dict__, "b": line.b.__dict__}
        | {"changes": FACTS[line.name].effect, "see": FACTS[line.name].source}
        for line in found.lines
    ]
    return {"schema": SCHEMA, "a": str(found.a), "b": str(found.b), "exit_status": found.exit_status, "facts": facts}
