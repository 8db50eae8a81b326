"""Places where the supplement disagrees with itself, its sources or what can be counted, found by code as far as possible."""

import itertools
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stlight.experiments import Experiment, Plan, Variant
from stlight.experiments.field_types import PrintedNumber, Text
from stlight.experiments.plan import PublishedEntry
from stlight.experiments.yaml_files import ExperimentError, FileModel, read_file
from stlight.registry.metric_specs import METRICS
from stlight.registry.model_specs import OURS

if TYPE_CHECKING:
    from stlight.analysis.verdicts.findings import Finding


class Erratum(FileModel):
    """A place that disagrees with another, with what can be counted, or with its source."""

    id: str
    place: str
    quote: Text = ""
    """Words of the supplement that a reader can search for."""
    says: Text
    should: Text
    """The correction, or why none is possible."""
    here: Text
    """How this suite deals with it."""


class QuotedSource(FileModel):
    """Numbers that an experiment quotes, as another publication prints them."""

    experiment: str
    where: str
    cited: bool
    """True if it is the publication that the supplement cites."""
    rows: list[PublishedEntry]


@dataclass(frozen=True)
class DifferentResults:
    """One configuration for which the paper prints results that differ by more than rounding."""

    variant: Variant
    metric: str
    printed: tuple[tuple[str, PrintedNumber], ...]
    """The items that print it, each with its number."""

    @property
    def values(self) -> list[float]:
        """The printed numbers."""
        return [number.value for _, number in self.printed]


def errata(plan: Plan, workflow: Path, contradicted: Iterable["Finding"] = ()) -> list[Erratum]:
    """Return what code finds, the sentences that printed numbers contradict, and what `workflow/errata.yaml` states."""
    found = (_different(plan), _flops_are_parameters(plan), _sources(plan, workflow), _sentences(plan, contradicted))
    return [*itertools.chain(*found, stated(workflow))]


def stated(workflow: Path) -> list[Erratum]:
    """Return the errata that no code can find. Raises `ExperimentError` for a file that violates its schema."""
    path = workflow / "errata.yaml"
    entries = read_file(path, list[Erratum]) if path.is_file() else []
    for number, entry in enumerate(entries):
        if any(entry.id == other.id for other in entries[:number]):
            raise ExperimentError(f"{path}: [{number}].id: {entry.id!r} is given twice")
    return entries


def different_results(plan: Plan) -> list[DifferentResults]:
    """Return the configurations that several tables print with different results."""
    found: dict[tuple[str, str], list[tuple[str, PrintedNumber]]] = {}
    variants: dict[str, Variant] = {}
    for experiment in plan.experiments.values():
        for variant, metric, number in _our_numbers(experiment):
            variants[variant.paper.hash] = variant
            found.setdefault((variant.paper.hash, metric), []).append((experiment.item, number))
    return [
        DifferentResults(variants[config], metric, tuple(printed))
        for (config, metric), printed in found.items()
        if any(a.differs(b) for (_, a), (_, b) in itertools.combinations(printed, 2))
    ]


def _our_numbers(experiment: Experiment) -> Iterable[tuple[Variant, str, PrintedNumber]]:
    for entry in experiment.published:
        place = {axis: entry.coordinates[axis] for axis in experiment.axes if axis in entry.coordinates}
        variant = next(v for v in experiment.variants if place.items() <= v.axes.items())
        metrics = experiment.metrics[variant.dataset]
        yield from ((variant, metric, entry.numbers[metric]) for metric in metrics if metric in entry.numbers)


def _different(plan: Plan) -> Iterable[Erratum]:
    for case in different_results(plan):
        most = max(case.values) - min(case.values)
        model, metric = case.variant.paper.model.model, METRICS[case.metric].label
        printed = ", ".join(f"{number} in {item}" for item, number in case.printed)
        yield Erratum(
            id=f"different_results_{case.variant.dataset}_{case.variant.name}_{case.metric}",
            place=", ".join(dict.fromkeys(item for item, _ in case.printed)),
            says=f"{model} ({case.variant.name} on {case.variant.dataset}): {metric} {printed}.",
            should=f"One configuration, one number; unless these are repeats, which then differ by {most:.4g}.",
            here=f"A printed difference of {most:.4g} or less is said to be within the paper's own repeats.",
        )


def _flops_are_parameters(plan: Plan) -> Iterable[Erratum]:
    for experiment in plan.experiments.values():
        for entry in experiment.published:
            flops = entry.numbers.get("benchmark_flops")
            if flops and flops == entry.numbers.get("num_params"):
                yield Erratum(
                    id=f"flops_are_parameters_{experiment.name}",
                    place=f"{experiment.item}, {entry.model or OURS}",
                    says=f"FLOPs {flops}, the same as its number of parameters.",
                    should="33.5G multiply-adds in the convolutions for one clip (33.7G with patches that overlap), by two"
                    " counters: each weight is used at 32 × 32 places or more, so FLOPs cannot be as few as parameters.",
                    here="No claim about FLOPs is tested on the printed number; FLOPs are counted.",
                )


def _sources(plan: Plan, workflow: Path) -> Iterable[Erratum]:
    """Yield quoted numbers that differ from their sources."""
    path = workflow / "quoted_sources.yaml"
    for number, source in enumerate(read_file(path, list[QuotedSource]) if path.is_file() else ()):
        if not (experiment := plan.experiments.get(source.experiment)):
            continue
        entries = [*experiment.published, *experiment.quoted]
        quoted = {(e.model, metric): printed for e in entries for metric, printed in e.numbers.items()}
        for place, row in enumerate(source.rows):
            for metric in (row.coordinates | row.numbers).keys() - {"model"}:
                if (row.model, metric) not in quoted:
                    words = f"{experiment.name} quotes no {metric} of {row.model!r}"
                    raise ExperimentError(f"{path}: [{number}].rows[{place}].{metric}: {words}")
            for metric, found in row.numbers.items():
                if found.value != (printed := quoted[row.model, metric]).value:
                    cited = "" if source.cited else " The cited one was not at hand."
                    yield Erratum(
                        id=f"quoted_{experiment.name}_{row.model}_{metric}",
                        place=f"{experiment.item}, {row.model}",
                        says=f"{METRICS[metric].label} {printed}.",
                        should=f"{found} in {source.where}.{cited}{_order(experiment, row.model, metric, printed, found)}",
                        here="Published numbers stay as printed, and claims are tested on them.",
                    )


def _order(experiment: Experiment, model: str | None, metric: str, printed: PrintedNumber, found: PrintedNumber) -> str:
    """Return whether the difference matters to the only comparison that the supplement draws."""
    ours = [n for variant, name, n in _our_numbers(experiment) if name == metric and variant.paper.model.model == OURS]
    if len(ours) != 1:
        return ""
    better = operator.gt if METRICS[metric].higher_is_better else operator.lt
    one, other = ("ahead of" if better(ours[0].value, theirs.value) else "behind" for theirs in (printed, found))
    ending = "by either." if one == other else f"as printed, and {other} it by the source."
    return f" {OURS} ({ours[0]}) is {one} {model} {ending}"


def _sentences(plan: Plan, contradicted: Iterable["Finding"]) -> Iterable[Erratum]:
    for finding in contradicted:
        note = f" ({finding.claim.note.rstrip('.')})" if finding.claim.note else ""
        yield Erratum(
            id=f"sentence_{finding.claim.id}",
            place=f"Section {finding.claim.section}, on {plan.experiments[finding.experiment].item}",
            says=f"“{finding.claim.sentence}”{note}",
            should=f"Its own printed numbers say otherwise: {finding.why}.",
            here=f"Claim {finding.claim.id}, tested on the printed numbers and on runs.",
        )


def as_markdown(entries: list[Erratum]) -> str:
    """Return the content of `errata.md`."""
    kinds = "itself, with what can be counted, or with the sources it quotes"
    parts = [f"# Errata of the supplement\n\n{len(entries)} places where it disagrees with {kinds}."]
    for number, entry in enumerate(entries, 1):
        rows = f"- **Says:** {entry.says}\n- **Should:** {entry.should}\n- **Here:** {entry.here}\n- `{entry.id}`"
        parts.append(f"## {number}. {entry.place}\n\n{rows}")
    return "\n\n".join(parts) + "\n"
