"""How much the rule decides beside the one that it replaced: both on the same simulated runs of the paper's grids.

`python -m tests.analysis.verdicts.power` prints the table of docs/statistics.md.
"""

import argparse
from pathlib import Path

import numpy as np
from tabulate import tabulate

from stlight.analysis.verdicts.comparisons import Comparer, build_test
from stlight.analysis.verdicts.judging import LEVEL, Reading, arithmetic, holm, judge
from stlight.experiments import load_plan
from stlight.experiments.claim_base import ComparisonClaim
from stlight.experiments.grid_cells import cells_of

RATE = {0.0003: 2.0, 0.001: 0.5, 0.003: 0.0, 0.01: 3.0}
SIZE_OF_K2 = {3: 1.0, 5: 0.0, 7: 0.0, 9: 0.5, 11: 1.0}
ORDER = {"hybrid": 0.0, "kaiming_uniform": 1.0, "kaiming_normal": 2.0}

GRIDS = {
    "table3_kernel_sizes": ((1, 3), lambda c: (c["k1"] - 3) / 8 + SIZE_OF_K2[c["k2"]]),
    "table4_learning_rate_epochs": ((3, 5), lambda c: RATE[c["max_lr"]] - [200, 500, 1000, 2000].index(c["num_epochs"])),
    "table5_final_div_factor": ((1, 3), lambda c: RATE[c["max_lr"]]),
    "figure1_initialization": ((3, 5), lambda c: ORDER[c["initialization"]]),
    "figure2_decoder_order": ((1, 3), lambda c: (c["decoder"] == "reassemble_shuffle") / 2 - c["depth"] / 9),
}
"""The numbers of seeds, and the mean loss of a cell in units of the effect: as the paper's sentences have it."""


def runs(rng, experiment, cells, mean, effect, n):
    """Losses by variant and metric: standard deviation 1 between seeds, half of it shared by cells that use the same seeds."""
    found = {}
    for metric in sorted({m for claim in experiment.claims for m in claim.metrics}):
        groups = {cell.variant.seed_group: rng.standard_normal(n) for cell in cells}
        for cell in cells:
            noise = np.sqrt(0.5) * (groups[cell.variant.seed_group] + rng.standard_normal(n))
            found[cell.variant.name, metric] = 100 + effect * mean(cell.coordinates) + noise
    return found


def sentences_decided(verdicts, claims, truth):
    """Numbers of sentences with a reading that is decided rightly, and with one that is decided wrongly."""
    decided = {name: verdict == truth[name] for name, verdict in verdicts.items() if verdict != "undecided"}
    return [len({claims[name].sentence for name, right in decided.items() if right is wanted}) for wanted in (True, False)]


def old_rule(tests):
    """The rule before: strict readings, each direction at half the level, all claims in one family, no pairs."""
    adjusted = holm({name: min(1.0, 2 * min(test.p(False), test.p(True))) for name, test in tests.items()})
    better = {name: "reproduced" if test.p(False) < test.p(True) else "contradicted" for name, test in tests.items()}
    return {name: better[name] for name, p in adjusted.items() if p <= LEVEL}


def decisions(experiment, mean, effect, n, trials):
    """Mean numbers of sentences that the old and the new rule decide rightly and wrongly."""
    cells = [cell for cell in cells_of(experiment) if cell.variant]
    claims = {
        c.id: c for c in experiment.claims
        # The grid's truth says nothing about spreads, and amounts have no meaning here.
        if isinstance(c, ComparisonClaim) and c.statistical and c.kind not in ("smaller_spread", "gains")
    }  # fmt: skip
    strict = {name: c for name, c in claims.items() if c.kind not in ("trend", "optimum") and not getattr(c, "on_average", [])}

    def build(claim, losses):
        return build_test(Comparer(experiment, claim, losses), cells)

    exact = {cell.variant.name: np.array([100 + effect * mean(cell.coordinates)]) for cell in cells}
    truth = {name: arithmetic(build(claim, lambda v, _: exact[v.name])) for name, claim in claims.items()}
    rng, total = np.random.default_rng([n, round(10 * effect)]), np.zeros((2, 2))
    for _ in range(trials):
        losses = runs(rng, experiment, cells, mean, effect, n)

        def drawn(variant, metric):
            return losses[variant.name, metric]  # noqa: B023

        old = old_rule({name: build(c.model_copy(update={"paired": False}), drawn) for name, c in strict.items()})
        new = judge({name: Reading(claim.sentence, ((build(claim, drawn), 1.0),)) for name, claim in claims.items()})
        total[0] += sentences_decided(old, claims, truth)
        total[1] += sentences_decided({name: j.verdict for name, j in new.items()}, claims, truth)
    return total / trials


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.analysis.verdicts.power", description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    trials = parser.parse_args().trials
    plan = load_plan(Path("workflow"), "paper")
    rows, sums = [], np.zeros(2)
    for name, (seeds, mean) in GRIDS.items():
        for n in seeds:
            found = [decisions(plan.experiments[name], mean, effect, n, trials) for effect in (1.0, 2.0, 4.0)]
            sums += sum(one[:, 0] for one in found)
            rows.append([name, n, *(f"{old[0]:.2f} → {new[0]:.2f} ({old[1]:.2f} → {new[1]:.2f})" for old, new in found)])
    print(
        f"sentences decided rightly (wrongly), old rule → new, mean of {trials} trials, by the effect in standard deviations\n"
    )
    print(tabulate(rows, ["grid", "n", "1", "2", "4"], tablefmt="github"))
    print(f"\nin all {sums[0]:.1f} → {sums[1]:.1f}: {sums[1] / sums[0]:.2f} times as many")


if __name__ == "__main__":
    main()
