"""The noise of the paper's own numbers: repeats that it prints of one configuration, and what they say of a difference."""

import math
from collections.abc import Iterable
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

    item: str
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
        """All columns of repeats, by item and learning rate."""

    def resolution(self, a: GridCell, b: GridCell, metric: str) -> float:
        """Return the largest difference of two printed numbers that chance explains; 0 if nothing is known.

        It is the 97.5 % quantile of Student's t times the standard error of the difference, so that one of forty differences in
        one direction, or of twenty in both, exceeds it by chance. The spread is that of the repeats at the cell's learning
        rate. A cell without one, a quoted model or a learning rate without repeats, is taken to vary as the other cell does.
        """
        known = [found for cell in (a, b) if (found := self._at(cell, metric))]
        if not known:
            return 0.0
        variances = [repeats.sd**2 for repeats in (known[0], known[-1])]
        if known[0] is known[-1]:
            df = float(known[0].df)
        else:
            parts = [v**2 / repeats.df for v, repeats in zip(variances, known, strict=True)]
            df = sum(variances) ** 2 / sum(parts)
        return float(stats.t.ppf(0.975, df)) * math.sqrt(sum(variances))

    def _at(self, cell: GridCell, metric: str) -> Repeats | None:
        if cell.variant is None or cell.variant.paper.model.model != OURS:
            return None
        place = (cell.variant.dataset, metric, cell.variant.paper.training.max_lr)
        return next((r for r in self.repeats if (r.dataset, r.metric, r.max_lr) == place), None)


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
            yield Repeats(experiment.item, variant.dataset, metric, variant.paper.training.max_lr, factors, values)
