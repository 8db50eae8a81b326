"""A claim's verdict on one source of numbers, and the table of all of them."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from stlight.analysis.verdicts.judging import Test, Verdict
from stlight.analysis.verdicts.wording import label, seeds_text
from stlight.experiments.claim_types import Claim

Source = Literal["published", "measured"]


@dataclass(frozen=True)
class Part:
    """One comparison of a claim."""

    label: str
    effect: float
    """By how much it is as the sentence says."""
    as_stated: bool
    values: str
    """Every seed's value on both sides."""


@dataclass(frozen=True)
class Finding:
    """A claim's verdict on one source, with all that explains it."""

    claim: Claim
    experiment: str
    source: Source
    verdict: Verdict = "untested"
    why: str = ""
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    n: int = 0
    detectable: float = math.nan
    parts: list[Part] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)


_OF_THE_CLAIM = ("id", "section", "sentence")
_OF_THE_FINDING = ("experiment", "source", "verdict", "effect", "low", "high", "n", "detectable", "why")
COLUMNS = ("id", "experiment", "section", "sentence", *_OF_THE_FINDING[1:])


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """Return the rows of claims.csv: one per claim and source."""
    rows = [
        {name: getattr(f.claim, name) for name in _OF_THE_CLAIM} | {name: getattr(f, name) for name in _OF_THE_FINDING}
        for f in findings
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def parts_of(test: Test) -> list[Part]:
    """Return the comparisons behind a verdict: those of the groups that support the sentence most."""
    return [Part(label(d), d.estimate, d.margin > 0, seeds_text(d)) for d in test.for_it()]
