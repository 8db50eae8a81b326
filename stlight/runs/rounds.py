"""Rounds of a budget: which runs each one added, and why. A file `rounds/<k>.json` beside the runs holds each round.

A round's choice stands once it is written. The rounds of another plan, whose cells or claims differ, are ignored.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stlight.config import describe
from stlight.runtime.atomic_files import write_atomically


class Outlook(BaseModel):
    """State of one sentence before a round."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    claim: str
    state: Literal["settled", "open", "hopeless", "unseen"]
    """unseen: some of its cells have too few seeds for a first look. hopeless: more seeds are unlikely to settle it."""
    seeds: int
    """Seeds of the cell that has fewest."""
    next_look: int | None = None
    """Seeds of each of its cells at which the next look is due."""
    chance: float | None = None
    """Chance that the next look settles it."""
    seconds: float | None = None
    """Core seconds of the runs that the next look needs."""
    chosen: bool = False
    """True if the round adds these runs."""
    why: str = ""


class Round(BaseModel):
    """One round: what was known before it, and the runs that it adds."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    number: int
    plan: str
    """Hash of the cells and claims that the rounds are about."""
    hours: float
    """The budget in core hours."""
    spent_seconds: float
    """Core seconds of the runs of all earlier rounds."""
    expected_seconds: float
    """Core seconds that the runs of this round are expected to take."""
    expected_settled: float
    """Sentences that this round's runs are expected to settle; a sentence without data counts as the prior says."""
    seeds: dict[str, int]
    """Cells that get more runs, and how many runs each has then."""
    estimates: dict[str, float]
    """Estimated seconds of a run of each cell, if no run was measured."""
    claims: list[Outlook]
    reason: str
    """The choice in a sentence."""
    stop: Literal["", "settled", "budget"] = ""
    """Why this round is the last and adds no runs: every sentence is settled or hopeless, or the budget is spent."""


def path_of(folder: Path, number: int) -> Path:
    """Return the file of a round under a scale's results."""
    return folder / "rounds" / f"{number}.json"


def write_round(folder: Path, found: Round) -> None:
    """Write a round's file atomically. Raises `StorageError`."""
    write_atomically(path_of(folder, found.number), json.dumps(found.model_dump(), indent=1) + "\n")


def read_rounds(folder: Path, plan: str) -> list[Round]:
    """Return the rounds of a plan from the first to the last. Raises `ValueError` if a file is damaged."""
    rounds: list[Round] = []
    for number in itertools.count(1):
        path = path_of(folder, number)
        if not path.is_file() or (rounds and rounds[-1].stop):
            break
        try:
            found = Round.model_validate_json(path.read_bytes())
        except ValidationError as error:
            raise ValueError(f"{path} is damaged: {describe(error)}; delete it and the rounds after it") from error
        if found.plan != plan:
            break
        rounds.append(found)
    return rounds


def basis_of(rounds: Sequence[Round], number: int, plan: str, hours: float) -> dict[str, Any]:
    """Return the plan and the budget that a round is made for, so that it is made again if they differ from its own.

    A round that added runs stands although the budget has grown since.
    """
    made = rounds[number - 1] if number <= len(rounds) else None
    return {"plan": plan, "hours": made.hours if made and (made.stop != "budget" or made.hours >= hours) else hours}


def seeds_after(rounds: Iterable[Round]) -> dict[str, int]:
    """Return the number of runs of each cell after some rounds; cells without runs are left out."""
    seeds: dict[str, int] = {}
    for found in rounds:
        seeds |= found.seeds
    return seeds
