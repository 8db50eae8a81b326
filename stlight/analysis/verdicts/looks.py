"""Group-sequential looks: the share of a level that each look may spend when seeds are added and looked at again."""

from functools import lru_cache

import numpy as np
from scipy import optimize, special, stats

_POINTS = 1201

_SPENT = 0.9
"""Share of the level that several looks spend: t tests of few seeds agree less from look to look than normal means do."""


@lru_cache
def shares(looks: tuple[int, ...], level: float) -> tuple[float, ...]:
    """Return the nominal level of a test at each look, as a share of the level of all looks together.

    A single look spends all. Several spend nine tenths, which grow linearly with the seeds (Lan and DeMets; the power family of
    Kim and DeMets with exponent 1). Means of the first n seeds are correlated from look to look. The boundaries are exact for
    normal means. The shares decrease with the level, so that those of a lower level are safe at a higher one.

    Args:
        looks: Numbers of seeds, ascending.
        level: One-sided level, 0 to 0.5.
    """
    if len(looks) == 1:
        return (1.0,)
    spent = np.diff([0.0, *(_SPENT * level * n / looks[-1] for n in looks)])
    levels, deviation, bound = [float(spent[0])], np.sqrt(looks[0]), -special.ndtri(spent[0]) * np.sqrt(looks[0])
    # The density of the sum over the first n seeds, for sums that no look has stopped at yet.
    sums = np.linspace(-9 * deviation, bound, _POINTS)
    density = stats.norm.pdf(sums, scale=deviation)
    for before, n, share in zip(looks, looks[1:], spent[1:], strict=False):
        step, deviation = np.sqrt(n - before), np.sqrt(n)

        def excess(bound: float) -> float:
            return float(np.trapezoid(density * special.ndtr((sums - bound) / step), sums) - share)  # noqa: B023

        bound = optimize.brentq(excess, 0.0, 12 * deviation)
        levels.append(float(special.ndtr(-bound / deviation)))
        next_sums = np.linspace(-9 * deviation, bound, _POINTS)
        density = np.trapezoid(density * stats.norm.pdf(next_sums[:, None], sums, step), sums, axis=1)
        sums = next_sums
    return tuple(nominal / level for nominal in levels)
