"""Simulate pairs of folders, as losses by seed, and count how often they are called different."""

import numpy as np

from stlight.analysis.comparison.cells import Pair, decide

NOISES = {
    "normal": lambda rng, n: rng.standard_normal(n),
    "t3": lambda rng, n: rng.standard_t(3, n),
    "skewed": lambda rng, n: rng.lognormal(0, 1, n),
}


def side(rng, n, noise, sd, divergence, shared, weight):
    """Draw losses of `n` seeds; a share `weight` of the variance comes from what both sides have in common."""
    losses = 50 + sd * (np.sqrt(weight) * shared[:n] + np.sqrt(1 - weight) * NOISES[noise](rng, n))
    return np.where(rng.random(n) < divergence, np.inf, losses)


def folders(rng, seeds, noise="normal", *, cells=20, ratio=3.0, divergence=0.0, paired=False, shift=0.0, shifted=None):
    """Draw one pair of folders: cells whose standard deviations differ by up to `ratio`, each side with n from `seeds`.

    `paired` sides have the same seeds, which cause half of the variance. B is worse by `shift` standard deviations in the first
    `shifted` cells, or all.
    """
    pairs = []
    for i in range(cells):
        sd, (n_a, n_b) = ratio ** rng.random(), rng.choice(seeds, 2)
        n_b = n_a if paired else n_b
        shared, weight = NOISES[noise](rng, max(n_a, n_b)), 0.5 if paired else 0.0
        a, b = (side(rng, n, noise, sd, divergence, shared, weight) for n in (n_a, n_b))
        b = b + sd * shift * (shifted is None or i < shifted)
        first = 1000 * i
        seeds_b = first + np.arange(n_b) + (0 if paired else 500)
        pairs.append(
            Pair(dict(zip((first + np.arange(n_a)).tolist(), a, strict=True)), dict(zip(seeds_b.tolist(), b, strict=True)))
        )
    return pairs


def called_different(pairs):
    """Return the number of cells that are called different, and True if the number of diverged runs is."""
    runs = [Pair(*({s: float(np.isinf(loss)) for s, loss in part.items()} for part in (pair.a, pair.b))) for pair in pairs]
    decisions, divergence = decide(pairs, runs)
    return sum(d.outcome == "different" for d in decisions), divergence is not None and divergence.outcome == "different"


def rate(trials, seed, *args, **options):
    """Return the share of pairs of folders of which anything is called different, and the mean number of such cells."""
    found = [called_different(folders(np.random.default_rng([seed, i]), *args, **options)) for i in range(trials)]
    return np.mean([bool(cells) or runs for cells, runs in found]), np.mean([cells for cells, _ in found])
