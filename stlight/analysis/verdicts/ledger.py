"""Both verdicts on every claim: on the printed numbers and on the runs."""

from collections.abc import Mapping

from stlight.analysis.values import Values
from stlight.analysis.verdicts.finding import Finding
from stlight.analysis.verdicts.measured import Measured, seed_spread
from stlight.analysis.verdicts.published import on_published, printed_repeats
from stlight.experiments import Plan


def all_findings(plan: Plan, values: Mapping[str, Values]) -> list[tuple[Finding, Finding]]:
    """Return the published and the measured finding of every claim, in the order of the files."""
    spread, repeats = seed_spread(values), printed_repeats(plan)
    found = []
    for name, experiment in plan.experiments.items():
        measured = Measured(values[name], spread).findings()
        found += [(on_published(experiment, claim, repeats), measured[claim.id]) for claim in experiment.claims]
    return found
