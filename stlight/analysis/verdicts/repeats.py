"""The noise of the paper's own numbers: repeats that it prints of one configuration, and what they say of a difference."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from stlight.experiments import Experiment, Variant
from stlight.experiments.grid_cells import GridCell
from stlight.registry.model_specs import OURS

LARGEST_FACTOR_EFFECT = 1e-4
"""Share of the peak below which a change of the learning rate is taken for none."""


@dataclass(frozen=True)
class Repeats:
    """Printed results of one configuration but for a final division factor that hardly changes the learning rate."""

    dataset: str
    metric: str
    max_lr: float
    factors: tuple[float, ...]
    values: tuple[float, ...]
    """One for each factor, in ascending order of the factors."""

    @property
    def sd(self) -> float:
        """Standard deviation of the values."""
        return float(np.std(self.values, ddof=1))

    @property
    def df(self) -> int:
        """Degrees of freedom of `sd`."""
        return len(self.values) - 1

    @property
    def monotone(self) -> bool:
        """True if the values rise or fall with the factor throughout; two in n! orders do by chance."""
        steps = np.diff(self.values)
        return bool((steps > 0).all() or (steps < 0).all())


class PaperNoise:
    """How far apart two printed numbers must be to say anything, by the paper's own repeats."""

    def __init__(self, experiments: Iterable[Experiment]) -> None:
        self.repeats = [repeats for experiment in experiments for repeats in _repeats_of(experiment)]
        """Repeats at each learning rate."""

    def resolution(self, cells: Sequence[GridCell], weights: Iterable[float], metric: str) -> float:
        """Return the largest contrast of printed numbers that chance explains; 0 if nothing is known.

        The contrast is the sum of the numbers times their weights: -1 and 1 for a difference of two. The bound is the 97.5 %
        quantile of Student's t times the standard error of the contrast, so that one of forty contrasts in one direction, or
        of twenty in both, exceeds it by chance. The spread is that of repeats at the cell's learning rate, pooled with those of
        other rates that an F test at 5 % does not tell apart from it. A cell without repeats, such as a quoted model, is taken
        to vary as the first cell that has some.
        """
        pools = [self._pool(cell, metric) for cell in cells]
        known = next((pool for pool in pools if pool), None)
        if not known:
            return 0.0
        squares: dict[tuple[Repeats, ...], float] = {}
        for pool, weight in zip(pools, weights, strict=True):
            squares[pool or known] = squares.get(pool or known, 0.0) + weight**2
        freedom = [sum(repeats.df for repeats in pool) for pool in squares]
        shares = zip(squares.items(), freedom, strict=True)
        variances = [square * sum(r.df * r.sd**2 for r in pool) / df for (pool, square), df in shares]
        # Welch's degrees of freedom, in which cells of one pool share an estimate.
        df = sum(variances) ** 2 / sum(variance**2 / df for variance, df in zip(variances, freedom, strict=True))
        return float(stats.t.ppf(0.975, df)) * math.sqrt(sum(variances))

    def _pool(self, cell: GridCell, metric: str) -> tuple[Repeats, ...]:
        if cell.variant is None or cell.variant.paper.model.model != OURS:
            return ()
        alike = [r for r in self.repeats if (r.dataset, r.metric) == (cell.variant.dataset, metric)]
        own = next((r for r in alike if r.max_lr == cell.variant.paper.training.max_lr), None)
        return tuple(r for r in alike if own and not _told_apart(own, r))


def _told_apart(a: Repeats, b: Repeats) -> bool:
    ratio = (a.sd / b.sd) ** 2
    low, high = stats.f.ppf([0.025, 0.975], a.df, b.df)
    return not low <= ratio <= high


def factor_effect(factors: Iterable[float]) -> float:
    """Return the largest change of OneCycle's learning rate between final division factors, as a share of its peak.

    The factor sets where the last phase ends, peak / 25 / factor, and the curves differ most there.
    """
    ends = [1 / 25 / factor for factor in factors]
    return max(ends) - min(ends)


def _repeats_of(experiment: Experiment) -> Iterable[Repeats]:
    groups: dict[tuple[str, str], list[tuple[Variant, float]]] = {}
    for variant in experiment.variants:
        if variant.paper.training.schedule == "onecycle" and "final_div_factor" in variant.axes:
            others = str({axis: value for axis, value in variant.axes.items() if axis != "final_div_factor"})
            for metric, number in experiment.all_printed(variant).items():
                groups.setdefault((others, metric), []).append((variant, number.value))
    for (_, metric), found in groups.items():
        ordered = sorted(found, key=lambda pair: pair[0].axes["final_div_factor"])
        factors = tuple(variant.axes["final_div_factor"] for variant, _ in ordered)
        if len(ordered) > 2 and factor_effect(factors) < LARGEST_FACTOR_EFFECT:
            variant, values = ordered[0][0], tuple(value for _, value in ordered)
            yield Repeats(variant.dataset, metric, variant.paper.training.max_lr, factors, values)
