"""The effects of all sentences that runs have tested, as shares on one axis: estimates first, places in the drawing after."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from stlight.analysis.verdicts.findings import Finding

WIDTH = 400.0
"""Width of the drawing, in its own units."""
_MARGIN = 14.0
_LINEAR = 0.01
"""Share up to which the axis is linear; logarithmic beyond."""
_TICKS = (0.01, 0.1, 1.0, 10.0)


@dataclass(frozen=True)
class Effect:
    """The effect of one sentence as a share of the mean value of what is compared; above 0 it is as the sentence says."""

    finding: Finding
    share: float
    """Infinite if a run of one side diverged, or never learnt."""
    low: float
    high: float
    """The 95 % t interval; NaN without repeats."""

    @property
    def text(self) -> str:
        """Effect, interval and n for readers: "+3.1 % (−0.4 to +6.6), n = 3"."""
        n = f"n\u00a0=\u00a0{self.finding.n}"
        if math.isinf(self.share):
            return f"{'as stated' if self.share > 0 else 'reversed'}, not finite, {n}"
        interval = f" ({_percent(self.low)} to {_percent(self.high)})" if math.isfinite(self.low) else ""
        return f"{_percent(self.share)} %{interval}, {n}"


def _percent(share: float) -> str:
    digits = 0 if abs(share) >= 0.1 else 1 if abs(share) >= 0.01 else 2
    return f"{100 * share:+.{digits}f}".replace("-", "−")


def effects(findings: Iterable[Finding]) -> list[Effect]:
    """Return the effects of the findings on trained runs that have one, in their order."""
    found = []
    for one in findings:
        size = one.size if one.size > 0 else 1.0
        if one.basis == "trained" and not math.isnan(one.effect):
            found.append(Effect(one, one.effect / size, one.low / size, one.high / size))
    return found


class Axis:
    """A symmetric axis from shares to places: linear near zero, logarithmic beyond, wide enough for all effects."""

    def __init__(self, shown: Iterable[Effect]) -> None:
        ends = [abs(x) for one in shown for x in (one.share, one.low, one.high) if math.isfinite(x)]
        self.most = max([_LINEAR, *ends])

    def place(self, share: float) -> float:
        """Return where a share lies between 0 and `WIDTH`; an infinite one lies at the edge."""
        if math.isinf(share):
            return _MARGIN / 2 if share < 0 else WIDTH - _MARGIN / 2
        return WIDTH / 2 + (WIDTH / 2 - _MARGIN) * _stretch(share) / _stretch(self.most)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Places of round shares and their texts; those within the linear part have none, for want of room."""
        shares = [share for share in _TICKS if share <= self.most]
        both = [*(-share for share in reversed(shares)), 0.0, *shares]
        texts = {share: f"{share:+.0%}".replace("-", "−") for share in both if abs(share) > _LINEAR}
        return [(self.place(share), texts.get(share, "" if share else "0")) for share in both]

    def row(self, effect: Effect) -> dict[str, Any]:
        """Return the places of one effect: `at`, and `low` and `high` if it has an interval."""
        row = {"finding": effect.finding, "share": effect.share, "at": self.place(effect.share)}
        row |= {"finite": math.isfinite(effect.share), "text": effect.text}
        if math.isfinite(effect.low):
            row |= {"low": self.place(effect.low), "high": self.place(effect.high)}
        return row


def _stretch(share: float) -> float:
    return math.copysign(math.log1p(abs(share) / _LINEAR), share)
