"""The order of a grid's cells: ties with the best, the probability of being the best, and the noise between seeds.

Values are losses, one per seed: lower is better, infinite for a diverged run.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from scipy import special, stats

from stlight.analysis.verdicts.differences import CONFIDENCE, Difference, is_constant

_HOMOGENEOUS = 0.1
_MIN_POOLED_DF = 10


@dataclass(frozen=True)
class Ranking:
    """The order of a grid's cells and how sure the seeds make it; lists are in the order of the cells."""

    paired: bool
    """True if all cells were compared seed by seed."""
    noise: tuple[float, str]
    """Pooled standard deviation of the seeds, and why it is NaN or not. It is descriptive: no verdict depends on it."""
    smallest_difference: float = math.nan
    """Smallest distinguishable difference from the best cell: the median over the cells."""
    ties: list[bool] = field(default_factory=list)
    """True for a cell that cannot be distinguished from the best (multiple comparisons with the best)."""
    p_best: list[float] = field(default_factory=list)
    """Probability of each cell to be the best if the seeds were drawn again; NaN with one seed."""
    stability: float = math.nan
    """Mean rank correlation (Kendall's τ) between the orders of two seeds; NaN with one seed."""

    def standing(self, cell: int) -> str:
        """Return best, tie or worse for a cell; empty if no cell has a finite value."""
        if not any(self.ties):
            return ""
        return "worse" if not self.ties[cell] else "best" if sum(self.ties) == 1 else "tie"


def rank(cells: Sequence[np.ndarray], groups: Sequence[Hashable] = (), draws: int = 20_000) -> Ranking:
    """Compare the cells of a grid with the best of them. A cell without values is no tie and cannot be the best.

    `groups` names the seed group of each cell: cells of one group are compared seed by seed. Without it, none are.
    """
    paired, noise = len(groups) > 1 and len(set(groups)) == 1, fit_noise(cells)
    present = [i for i, cell in enumerate(cells) if len(cell) and not np.isnan(cell).any()]
    means = {i: float(cells[i].mean()) for i in present}
    ties, p_best = [False] * len(cells), [math.nan] * len(cells)
    finite = [i for i in present if math.isfinite(means[i])]
    if not finite or len(present) < 2:
        return Ranking(paired, noise, ties=ties, p_best=p_best)

    def from_best(i: int) -> Difference:
        return Difference(cells[best], cells[i], bool(groups) and groups[best] == groups[i])

    best, level = min(finite, key=lambda i: means[i]), (1 - CONFIDENCE) / (len(present) - 1)
    for i in present:
        # Multiplied, not divided: the comparison is exact at the boundary.
        ties[i] = i == best or (len(present) - 1) * from_best(i).p_above > (1 - CONFIDENCE)
    seeds = min(len(cells[i]) for i in present)
    if seeds < 2:
        return Ranking(paired, noise, ties=ties, p_best=p_best)
    # Draw means from their t distributions: shape (cells, draws), deterministic.
    rng, found = np.random.default_rng(0), [cells[i] for i in finite]
    drawn = np.array([c.mean() + c.std(ddof=1) / math.sqrt(len(c)) * rng.standard_t(len(c) - 1, draws) for c in found])
    wins = np.bincount(drawn.argmin(0), minlength=len(finite)) / draws
    for i in present:
        p_best[i] = float(wins[finite.index(i)]) if i in finite else 0.0
    orders = np.array([[cells[i][seed] for i in present] for seed in range(seeds)])
    taus = [float(stats.kendalltau(one, other).statistic) for one, other in combinations(orders, 2)]
    others = [from_best(i) for i in finite if i != best]
    errors = [d.error() for d in others if not d.by_ranks]
    least = [error * special.stdtrit(df, 1 - level) for error, df in errors]
    return Ranking(paired, noise, float(np.median(least)) if least else math.nan, ties, p_best, float(np.mean(taus)))


def fit_noise(cells: Sequence[np.ndarray]) -> tuple[float, str]:
    """Return the pooled standard deviation of a grid's cells, NaN if they disagree or the seeds are too few, and why."""
    repeated = [cell for cell in cells if len(cell) > 1]
    df = sum(len(cell) - 1 for cell in repeated)
    if not repeated:
        return math.nan, "one seed" if any(map(len, cells)) else "no run"
    if not all(np.isfinite(cell).all() for cell in repeated):
        return math.nan, "a run diverged"
    if any(map(is_constant, repeated)):
        return math.nan, "the seeds of a cell agree to the last digit"
    if len(cells) < 2:
        return math.nan, "a single cell"
    if len(repeated) < 2 or df < _MIN_POOLED_DF:
        return math.nan, "too few seeds to say whether the cells' spreads are alike"
    homogeneity = float(stats.bartlett(*repeated).pvalue)
    if homogeneity < _HOMOGENEOUS:
        return math.nan, f"the cells' spreads differ (Bartlett p = {homogeneity:.2g})"
    sd = math.sqrt(sum((len(cell) - 1) * cell.var(ddof=1) for cell in repeated) / df)
    return sd, f"the cells' spreads are alike (Bartlett p = {homogeneity:.2g})"
