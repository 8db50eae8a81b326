"""Wrong decisions exactly where a claim turns false, in 50,000 trials: the t tests of `standard_error`, vectorized.

`python -m tests.analysis.verdicts.border_rates` prints the table of docs/statistics.md.
"""

import numpy as np
from scipy import stats
from tabulate import tabulate

from stlight.analysis.verdicts.judging import LEVEL
from stlight.analysis.verdicts.looks import shares
from tests.analysis.verdicts.error_rates import LOOKS, NOISES, draw

SAMPLES = {
    "two cells of a seed group, or blocks of one seed each": [1],
    "two cells": [1, 1],
    "two cells, one three times as noisy": [1, 3],
    "two cells, one ten times as noisy": [1, 10],
    "average over 11 pairs of cells": [1] * 22,
    "average over 11 pairs, noise grows threefold": [*np.linspace(1, 3, 11)] * 2,
    "trend in a 5 × 5 grid": [2, 1, 1, 2] * 5,
    "trend in a 5 × 5 grid, the last value three times as noisy": [2, 1, 1, 6] * 5,
    # Table 4's rates: the weights of the slope at 0.009, times 1.45 over the largest.
    "slope of a parabola through four rates": [0.57, 1.15, 0.87, 1.45],
    "slope of a parabola, the last rate three times as noisy": [0.57, 1.15, 0.87, 4.35],
    "slope of a parabola, the last rate ten times as noisy": [0.57, 1.15, 0.87, 14.5],
    "nine samples, one with eleven times the standard deviation": [1] * 8 + [11],
}
"""Independent samples whose means are summed, by the standard deviation of their values times their weight."""


def wrong(spreads, looks, noise, level=LEVEL, trials=50_000, batch=10_000):
    """Share of trials that decide in the direction that is decided more often, if the sum of the means is 0."""
    rng, found, parts = np.random.default_rng(0), np.zeros(2), shares(looks, level)
    for _ in range(trials // batch):
        values = np.array(spreads)[:, None] * draw(rng, noise, (batch, len(spreads), looks[-1]))
        hits = np.zeros((2, batch), bool)
        for n, part in zip(looks, parts, strict=True):
            seen = values[:, :, :n]
            squares = seen.var(2, ddof=1) / n
            weighted = squares * np.where((squares == squares.max(1, keepdims=True)) & (len(spreads) > 2), 2.0, 1.0)
            df = weighted.sum(1) ** 2 / (weighted**2 / (n - 1)).sum(1)
            t = seen.mean(2).sum(1) / np.sqrt(squares.sum(1))
            hits |= stats.t.sf(np.stack([t, -t]), df) <= level * part
        found += hits.sum(1)
    return found.max() / trials


def main():
    rows = []
    for name, spreads in SAMPLES.items():
        found = [max(wrong(spreads, looks, noise) for noise in NOISES) for looks in ((3,), (5,), LOOKS)]
        rows.append([name, *(f"{share:.1%}" for share in found)])
    print(tabulate(rows, ["comparison", "n = 3", "n = 5", "looks"], tablefmt="github"))


if __name__ == "__main__":
    main()
