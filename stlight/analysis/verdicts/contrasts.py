"""Comparisons of many cells at once: an average over a grid, a trend along an axis, the slope of a fitted curve."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from scipy import stats

from stlight.analysis.verdicts.differences import Comparison, is_constant, standard_error

_DRAWS = 1_999


@dataclass(frozen=True, eq=False, kw_only=True)
class Contrast(Comparison):
    """A weighted sum of the mean losses of cells. In each block the weights sum to zero and are a contrast of their own."""

    losses: tuple[np.ndarray, ...]
    """One array for each cell, one value for each seed."""
    weights: np.ndarray
    """One for each cell."""
    groups: tuple[Hashable, ...]
    """Seed group of each cell. Cells of one group share seeds, and with them noise; different groups are independent."""
    blocks: tuple[Hashable, ...]
    """Block of each cell: its values on the axes that the contrast averages over."""
    said: str = ""
    """The result in words, for the finding."""
    seeds: tuple[np.ndarray, ...] = ()
    """Unused; a difference of two cells may have other values to show."""

    @property
    def estimate(self) -> float:
        """Weighted sum of the means; infinite if a run of one side diverged, NaN if runs of both did."""
        terms = [float(w * losses.mean()) for w, losses in zip(self.weights, self.losses, strict=True) if w]
        return math.nan if {math.inf, -math.inf} <= set(terms) else sum(terms)

    @property
    def n(self) -> int:
        """Number of seeds of the cell that has the fewest."""
        return min(map(len, self.losses))

    @property
    def paired(self) -> bool:
        """True if some cells share seeds, so that they are compared seed by seed."""
        return len(set(self.groups)) < len(self.groups)

    @property
    def a(self) -> np.ndarray:
        """The losses of all cells with a negative weight: the side that is claimed to be better."""
        return np.concatenate([x for x, weight in zip(self.losses, self.weights, strict=True) if weight < 0])

    @property
    def b(self) -> np.ndarray:
        """The losses of all cells with a positive weight."""
        return np.concatenate([x for x, weight in zip(self.losses, self.weights, strict=True) if weight > 0])

    @cached_property
    def _clusters(self) -> list[list[int]]:
        """Indices of the cells of each independent part: blocks, merged if they share a seed group."""
        clusters: list[list[int]] = []
        for one in range(len(self.losses)):
            linked = [c for c in clusters if any(self._linked(one, other) for other in c)]
            clusters = [c for c in clusters if c not in linked] + [[one, *(other for c in linked for other in c)]]
        return clusters

    def _linked(self, one: int, other: int) -> bool:
        return self.blocks[one] == self.blocks[other] or self.groups[one] == self.groups[other]

    @property
    def testable(self) -> bool:
        """True if all cells have two seeds or more, or if there are independent blocks to compare with each other."""
        return self.n >= 2 or (self.n > 0 and len(self._clusters) > 1)

    @cached_property
    def samples(self) -> list[np.ndarray]:
        """Independent samples whose means sum to the estimate.

        If all cells are repeated: one sample for each seed group, its cells combined seed by seed. Otherwise one sample, with
        the contrast of each independent block, times their number.
        """
        if self.n < 2:
            sums = [sum(self.weights[i] * self.losses[i].mean() for i in cluster) for cluster in self._clusters]
            return [len(sums) * np.array(sums)]
        samples = []
        for group in dict.fromkeys(self.groups):
            members = [i for i, other in enumerate(self.groups) if other == group]
            shared = min(len(self.losses[i]) for i in members)
            samples.append(sum((self.weights[i] * self.losses[i][:shared] for i in members), np.zeros(shared)))
        return samples

    @property
    def by_ranks(self) -> bool:
        """True if only ranks can be tested: a run diverged, or the repeats show no spread."""
        if not all(np.isfinite(losses).all() for losses in self.losses):
            return True
        size = max(float(np.abs(weight * losses).max()) for weight, losses in zip(self.weights, self.losses, strict=True))
        return all(is_constant(sample, size) for sample in self.samples)

    def error(self) -> tuple[float, float]:
        """Return the standard error of the estimate and its degrees of freedom (Welch and Satterthwaite)."""
        return standard_error(self.samples)

    def rank_p(self) -> float:
        """Return the one-sided p-value of the contrast of ranks within each block. Diverged runs tie as the worst.

        The losses of the k-th seed are permuted among the cells of a block, 1,999 times, always with the same random numbers.
        Blocks that share seeds are permuted alike, because they are copies rather than replicates; 1 if they have not the same
        number of cells.
        """
        rng, observed, permuted = np.random.default_rng(0), 0.0, np.zeros(_DRAWS)
        for cluster in map(sorted, self._clusters):
            blocks = [
                [i for i in cluster if self.blocks[i] == block] for block in dict.fromkeys(self.blocks[i] for i in cluster)
            ]
            if len(set(map(len, blocks))) > 1:
                return 1.0
            shared = min(len(self.losses[i]) for i in cluster)
            orders = [
                rng.permuted(np.broadcast_to(np.arange(len(blocks[0])), (_DRAWS, len(blocks[0]))), axis=1)
                for _ in range(shared)
            ]
            for members in blocks:
                values_CS = np.stack([self.losses[i][:shared] for i in members])
                ranks_SC = stats.rankdata(values_CS).reshape(values_CS.shape).T
                for ranks, order in zip(ranks_SC, orders, strict=True):
                    observed += float(ranks @ self.weights[members])
                    permuted += ranks[order] @ self.weights[members]
        # The observed order is one of those that are possible.
        return (1 + int((permuted >= observed - 1e-9).sum())) / (1 + _DRAWS)

    def reversed(self) -> Self:
        """Return the opposite contrast, with the sign of every weight changed."""
        return replace(self, weights=-self.weights, threshold=-self.threshold, names=self.names[::-1])

    @property
    def identity(self) -> Hashable:
        """Key of the comparison: the weight of each cell, the metric and the threshold."""
        weights = [round(float(weight), 12) for weight in self.weights]
        return frozenset(zip([cell.label for cell in self.cells], weights, strict=True)), self.metric, self.threshold


def block_weights(terms: np.ndarray, blocks: Sequence[Hashable], combination: np.ndarray) -> np.ndarray:
    """Return the weight of each cell in a combination of coefficients, fitted in each block by least squares and averaged.

    Args:
        terms: Shape (cells, terms): the regressors but for the constant, which every block has for itself.
        blocks: Block of each cell. A block must determine all coefficients.
        combination: Shape (terms,).

    Raises:
        ValueError: If the cells of a block do not determine the coefficients.
    """
    weights, names = np.zeros(len(terms)), list(dict.fromkeys(blocks))
    for name in names:
        members = [i for i, block in enumerate(blocks) if block == name]
        design = np.column_stack([np.ones(len(members)), terms[members]])
        if np.linalg.matrix_rank(design) < design.shape[1]:
            raise ValueError(f"{len(members)} cells do not determine {design.shape[1]} coefficients")
        weights[members] = np.append(0.0, combination) @ np.linalg.pinv(design) / len(names)
    return np.where(np.abs(weights) < 1e-12 * np.abs(weights).max(), 0.0, weights)
