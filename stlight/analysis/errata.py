"""Places where the supplement disagrees with itself, its sources or what can be counted, found by code as far as possible."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from stlight.analysis.escaping import markdown
from stlight.experiments import Experiment, Plan, Variant
from stlight.experiments.field_types import PrintedNumber, Text
from stlight.experiments.published_data import PublishedEntry
from stlight.experiments.yaml_files import ExperimentError, FileModel, read_file
from stlight.registry.metric_specs import METRICS
from stlight.registry.model_specs import OURS

Weight = Literal["results", "numbers", "slips"]


class Erratum(FileModel):
    """A place that disagrees with another, with what can be counted, or with its source."""

    id: str
    weight: Weight
    """Weight, by what it bears on: a result or conclusion, a printed or quoted number, or nothing that misleads for long."""
    place: str
    quote: Text = ""
    """Words of the supplement that a reader can search for."""
    kinder: str = ""
    """The reading that is kindest to the authors, if there are two."""
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


def errata(plan: Plan, workflow: Path) -> list[Erratum]:
    """Return what code finds and what `workflow/errata.yaml` states, in order of weight."""
    found = itertools.chain(stated(workflow), _flops_are_parameters(plan), _sources(plan, workflow), _different(plan))
    return sorted(found, key=lambda entry: get_args(Weight).index(entry.weight))


def stated(workflow: Path) -> list[Erratum]:
    """Return the errata that no code can find. Raises `ExperimentError`, in one line, for a file that violates its schema."""
    path = workflow / "errata.yaml"
    if not path.is_file():
        return []
    entries = read_file(path, list[Erratum])
    ids = [entry.id for entry in entries]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            raise ExperimentError(f"{path}: [{number}].id: {name!r} is given twice")
    return entries


def different_results(plan: Plan) -> list[DifferentResults]:
    """Return the configurations that several of the supplement's tables print with different results."""
    found: dict[tuple[str, str], list[tuple[str, PrintedNumber]]] = {}
    variants: dict[str, Variant] = {}
    for experiment in (e for e in plan.experiments.values() if e.section != "-"):
        for variant, metric, number in _own_numbers(experiment):
            variants[variant.paper.hash] = variant
            found.setdefault((variant.paper.hash, metric), []).append((experiment.item, number))
    return [
        DifferentResults(variants[config], metric, tuple(printed))
        for (config, metric), printed in found.items()
        if any(a.differs(b) for (_, a), (_, b) in itertools.combinations(printed, 2))
    ]


def _own_numbers(experiment: Experiment) -> Iterable[tuple[Variant, str, PrintedNumber]]:
    """Yield the numbers that the paper does not quote: two sources may well print different results of one model."""
    for entry in (entry for entry in experiment.published if not entry.source):
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
            weight="slips",
            place=", ".join(dict.fromkeys(item for item, _ in case.printed)),
            kinder=f"These are repeats, which differ by {most:.4g}.",
            says=f"{model} ({case.variant.name} on {case.variant.dataset}): {metric} {printed}.",
            should="One configuration, one number.",
            here="Differences are judged against the standard deviation of the paper's own repeats.",
        )


def _flops_are_parameters(plan: Plan) -> Iterable[Erratum]:
    for experiment in plan.experiments.values():
        for entry in experiment.published:
            flops = entry.numbers.get("benchmark_flops")
            corrected = entry.corrected.get("benchmark_flops")
            if flops and flops == entry.numbers.get("num_params"):
                yield Erratum(
                    id=f"flops_are_parameters_{experiment.name}",
                    weight="numbers",
                    place=f"{experiment.item}, {entry.model or OURS}",
                    kinder=f"A slip in copying: the main paper prints {corrected} for this model." if corrected else "",
                    says=f"FLOPs {flops}, the same as its number of parameters.",
                    should="33.5G multiply-adds in the convolutions for one clip: each weight is used at 32 × 32 places or"
                    " more, so FLOPs cannot be as few as parameters.",
                    here="Claims about FLOPs are tested on the main paper's number and on counted FLOPs.",
                )


def _sources(plan: Plan, workflow: Path) -> Iterable[Erratum]:
    """Yield for each source the quoted numbers that differ from it, as one erratum."""
    path = workflow / "quoted_sources.yaml"
    for number, source in enumerate(read_file(path, list[QuotedSource]) if path.is_file() else ()):
        if experiment := plan.experiments.get(source.experiment):
            differing = _differing(experiment, source, f"{path}: [{number}]")
            if differing:
                yield _misquoted(experiment, source, differing)


def _differing(
    experiment: Experiment, source: QuotedSource, file: str
) -> dict[tuple[str, str], tuple[PrintedNumber, PrintedNumber]]:
    """Return by model and metric the numbers as quoted and as in the source, where the two differ."""
    entries = [*experiment.published, *experiment.quoted]
    quoted = {(e.model, metric): printed for e in entries if e.model for metric, printed in e.numbers.items()}
    for place, row in enumerate(source.rows):
        for metric in (row.coordinates | row.numbers).keys() - {"model"}:
            if (row.model, metric) not in quoted:
                raise ExperimentError(f"{file}.rows[{place}].{metric}: {experiment.name} quotes no {metric} of {row.model!r}")
    found = {(str(row.model), metric): value for row in source.rows for metric, value in row.numbers.items()}
    return {key: (quoted[key], value) for key, value in found.items() if value.value != quoted[key].value}


def _misquoted(
    experiment: Experiment, source: QuotedSource, differing: dict[tuple[str, str], tuple[PrintedNumber, PrintedNumber]]
) -> Erratum:
    models = list(dict.fromkeys(model for model, _ in differing))
    other = dict(zip(models, reversed(models), strict=True))
    swapped = {(other[model], metric): both[0].value for (model, metric), both in differing.items()}
    exchanged = len(models) == 2 and swapped == {place: both[1].value for place, both in differing.items()}

    def listed(which: int) -> str:
        return ", ".join(f"{model} {METRICS[metric].label} {both[which]}" for (model, metric), both in differing.items())

    words = f"{' and '.join(models)} are exchanged: " if exchanged else ""
    ours = {name: n for v, name, n in _own_numbers(experiment) if v.paper.model.model == OURS}
    drawn = [(*key, ours[key[1]], *both) for key, both in differing.items() if source.cited and key[1] in ours]
    turned = any(len(set(_ahead(metric, one, printed, found))) > 1 for _, metric, one, printed, found in drawn)
    orders = "".join(_order(*comparison) for comparison in drawn)
    return Erratum(
        id=f"quoted_{experiment.name}_{'_'.join(models)}",
        weight="results" if turned else "numbers",
        place=f"{experiment.item}, {' and '.join(models)}",
        kinder="" if source.cited else "The cited publication was not at hand, and may print what is quoted.",
        says=f"{listed(0)}.",
        should=f"{words}{listed(1)}, in {source.where}.{orders}",
        here="Tables show what is printed. Claims are tested with the cited source's number, otherwise with the printed one.",
    )


def _ahead(metric: str, ours: PrintedNumber, *theirs: PrintedNumber) -> list[bool]:
    """Return for each of another model's numbers if STLight's is better."""
    sign = -1 if METRICS[metric].higher_is_better else 1
    return [sign * ours.value < sign * number.value for number in theirs]


def _order(model: str, metric: str, ours: PrintedNumber, printed: PrintedNumber, found: PrintedNumber) -> str:
    """Return whether the difference matters to the only comparison that the supplement draws."""
    ahead = _ahead(metric, ours, printed, found)
    words = {True: "ahead of", False: "behind"}
    if ahead[0] == ahead[1]:
        return f" {OURS} ({ours}) is {words[ahead[0]]} {model} by either."
    return f" {OURS} ({ours}) is {words[ahead[0]]} {model} as printed, and {words[ahead[1]]} it by the source."


HEADINGS: dict[Weight, str] = {
    "results": "What bears on a result or a conclusion",
    "numbers": "Printed and quoted numbers",
    "slips": "Slips that mislead nobody for long",
}


def as_markdown(entries: list[Erratum]) -> str:
    """Return the content of `errata.md`."""
    kinds = "itself, with what can be counted, or with the sources it quotes"
    parts = [f"# Errata of the supplement\n\n{len(entries)} places where it disagrees with {kinds}, in order of weight."]
    for number, entry in enumerate(entries, 1):
        if number == 1 or entry.weight != entries[number - 2].weight:
            parts.append(f"## {HEADINGS[entry.weight]}")
        kinder = f"- **Kinder reading:** {markdown(entry.kinder)}\n" if entry.kinder else ""
        parts.append(
            f"### {number}. {markdown(entry.place)}\n\n{kinder}- **Says:** {markdown(entry.says)}\n"
            f"- **Should:** {markdown(entry.should)}\n- **Here:** {markdown(entry.here)}\n- `{entry.id}`"
        )
    return "\n\n".join(parts) + "\n"
