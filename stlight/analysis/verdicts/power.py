"""Sample sizes and detectable differences of two-sided t tests with a power of 80 %."""

import bisect
import math

from scipy import optimize, special, stats

POWER = 0.8
"""Chance of detecting a difference that a number of seeds is said to suffice for."""

_MAX_SEEDS = 1000


def noncentrality(df: float, level: float) -> float:
    """Return the noncentrality of the t distribution at which a two-sided test at `level` has the usual power."""
    critical = special.stdtrit(df, 1 - level / 2)
    return float(optimize.brentq(lambda shift: stats.nct.sf(critical, df, shift) - POWER, 0.0, 20 * critical + 20))


def seeds_needed(effect: float, sd: float, level: float) -> int | None:
    """Return the seeds per side that tell apart two cells that differ by `effect`; None if 1000 do not suffice."""
    if not effect or not math.isfinite(effect) or not sd > 0:
        return None

    def enough(n: int) -> bool:
        return abs(effect) / (sd * math.sqrt(2 / n)) >= _standard_errors(n, level)

    # Power grows with the number of seeds, so bisection finds the smallest number.
    n = bisect.bisect_left(range(2, _MAX_SEEDS + 1), True, key=enough) + 2
    return n if n <= _MAX_SEEDS else None


def seeds_for_order(level: float) -> int:
    """Return the seeds per side from which a rank test can decide: when every value of one side precedes all of the other."""
    return next(n for n in range(2, _MAX_SEEDS) if 2 / math.comb(2 * n, n) <= level)


def _standard_errors(n: int, level: float) -> float:
    """Return the effect, in standard errors, that n seeds per side detect. Large n use the normal approximation."""
    df = 2 * (n - 1)
    return noncentrality(df, level) if df <= 200 else float(special.ndtri(1 - level / 2) + special.ndtri(POWER))
