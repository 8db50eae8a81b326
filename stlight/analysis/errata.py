"""Where the supplement disagrees with itself, with its sources, or with what can be counted: by code where code can find it."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from stlight.analysis.text import METRIC_LABELS, is_higher_better
from stlight.experiments import Experiment, Plan, Variant
from stlight.experiments.yaml_files import ExperimentError, half_unit, quantity, read_yaml
from stlight.registry.model_specs import OURS

FIELDS = ("id", "place", "says", "should", "here")


@dataclass(frozen=True)
class Erratum:
    """A place that disagrees with another, with what can be counted, or with its source."""

    id: str
    place: str
    says: str
    should: str
    """What it should say, or why it cannot be."""
    here: str
    """What this suite does about it."""


@dataclass(frozen=True)
class Printed:
    """A number of the paper and where it stands."""

    item: str
    text: str

    @property
    def value(self) -> float:
        """As a number."""
        return quantity(self.text)

    @property
    def half_unit(self) -> float:
        """Nearer than that, two numbers are the same."""
        return half_unit(self.text)

    def differs(self, other: "Printed") -> bool:
        """Whether no one number can have been rounded to both."""
        # The share of a millionth is for sums of floats, which miss ties.
        return abs(self.value - other.value) > max(self.half_unit, other.half_unit) * (1 + 1e-6)


@dataclass(frozen=True)
class DifferentResults:
    """One configuration, for which the paper prints results that differ by more than rounding."""

    variant: Variant
    metric: str
    printed: tuple[Printed, ...]

    @property
    def values(self) -> list[float]:
        """The printed numbers."""
        return [p.value for p in self.printed]


def errata(plan: Plan, workflow: Path, contradicted: Iterable[Any] = ()) -> list[Erratum]:
    """All of them: what code finds, the sentences that printed numbers contradict, and what `workflow/errata.yaml` states."""
    found = (_different(plan), _flops_are_parameters(plan), _sources(plan, workflow), _sentences(plan, contradicted))
    return [*itertools.chain(*found), *stated(workflow)]


def stated(workflow: Path) -> list[Erratum]:
    """Those that no code can find. Raises `ExperimentError`, in one line, for a file that does not fit its schema."""
    path = workflow / "errata.yaml"
    if not path.is_file():
        return []
    entries = read_yaml(path, workflow / "schemas" / "errata.schema.json")
    ids = [entry["id"] for entry in entries]
    for number, name in enumerate(ids):
        if name in ids[:number]:
            raise ExperimentError(f"{path}: [{number}].id: {name!r} is given twice")
    return [Erratum(**{name: " ".join(entry[name].split()) for name in FIELDS}) for entry in entries]


def different_results(plan: Plan) -> list[DifferentResults]:
    """Configurations that several tables print, with different results."""
    found: dict[tuple[str, str], list[Printed]] = {}
    variants: dict[str, Variant] = {}
    for experiment in plan.experiments.values():
        for variant, metric, text in _our_numbers(experiment):
            variants[variant.paper.hash] = variant
            found.setdefault((variant.paper.hash, metric), []).append(Printed(experiment.item, text))
    return [
        DifferentResults(variants[config], metric, tuple(printed))
        for (config, metric), printed in found.items()
        if any(a.differs(b) for a, b in itertools.combinations(printed, 2))
    ]


def _our_numbers(experiment: Experiment) -> Iterable[tuple[Variant, str, str]]:
    for entry in experiment.published:
        place = {axis: entry[axis] for axis in experiment.axes if axis in entry}
        variant = next(v for v in experiment.variants if place.items() <= v.axes.items())
        yield from ((variant, metric, entry[metric]) for metric in experiment.metrics[variant.dataset] if metric in entry)


def _different(plan: Plan) -> Iterable[Erratum]:
    for case in different_results(plan):
        listed = ", ".join(f"{p.text} in {p.item}" for p in case.printed)
        most = max(case.values) - min(case.values)
        model = case.variant.paper.model.model
        yield Erratum(
            f"different_results_{case.variant.dataset}_{case.variant.name}_{case.metric}",
            ", ".join(dict.fromkeys(p.item for p in case.printed)),
            f"{model} ({case.variant.name} on {case.variant.dataset}): {_label(case.metric)} {listed}.",
            f"One configuration, one number; unless these are repeats, which then differ by {most:.4g}.",
            f"A printed difference of {most:.4g} or less is said to be within the paper's own repeats.",
        )


def _flops_are_parameters(plan: Plan) -> Iterable[Erratum]:
    for experiment in plan.experiments.values():
        for entry in experiment.published:
            if entry.get("benchmark_flops") and entry.get("benchmark_flops") == entry.get("num_params"):
                yield Erratum(
                    f"flops_are_parameters_{experiment.name}",
                    f"{experiment.item}, {entry.get('model', OURS)}",
                    f"FLOPs {entry['flops']}, the same as its number of parameters.",
                    "33.5G multiply-adds in the convolutions for one clip (33.7G with patches that overlap), by two counters:"
                    " each weight is used at 32 × 32 places or more, so FLOPs cannot be as few as parameters.",
                    "No claim about FLOPs is tested on the printed number; FLOPs are counted.",
                )


def _sources(plan: Plan, workflow: Path) -> Iterable[Erratum]:
    """Quoted numbers that are not those of their sources."""
    path = workflow / "quoted_sources.yaml"
    if not path.is_file():
        return
    content = read_yaml(path, workflow / "schemas" / "quoted_sources.schema.json")
    # Once more as text, so that 15.0M and 0.9480 stay what they are.
    printed = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    for number, (source, as_text) in enumerate(zip(content, printed, strict=True)):
        if experiment := plan.experiments.get(source["experiment"]):
            entries = [*experiment.published, *experiment.quoted]
            quoted = {(entry["model"], m): entry for entry in entries if "model" in entry for m in entry}
            for place, row in enumerate(as_text["rows"]):
                for metric in [name for name in row if name != "model"]:
                    if (row["model"], metric) not in quoted:
                        words = f"{experiment.name} quotes no {metric} of {row['model']!r}"
                        raise ExperimentError(f"{path}: [{number}].rows[{place}].{metric}: {words}")
                    yield from _differing(experiment, quoted[row["model"], metric], row, source, metric)


def _differing(
    experiment: Experiment, entry: dict[str, Any], row: dict[str, str], source: dict[str, Any], metric: str
) -> Iterable[Erratum]:
    if quantity(row[metric]) != quantity(entry[metric]):
        cited = "" if source["cited"] else " The cited one was not at hand."
        numbers = _our_numbers(experiment)
        ours = [text for variant, name, text in numbers if name == metric and variant.paper.model.model == OURS]
        yield Erratum(
            f"quoted_{experiment.name}_{row['model']}_{metric}",
            f"{experiment.item}, {row['model']}",
            f"{_label(metric)} {entry[metric]}.",
            f"{row[metric]} in {source['where']}.{cited}" + _order(row["model"], metric, ours, entry[metric], row[metric]),
            "Published numbers stay as printed, and claims are tested on them.",
        )


def _order(model: str, metric: str, ours: list[str], printed: str, source: str) -> str:
    """Whether it matters to the one comparison that the supplement draws."""
    if len(ours) != 1:
        return ""
    sign = -1 if is_higher_better(metric) else 1
    ahead = [sign * quantity(ours[0]) < sign * quantity(theirs) for theirs in (printed, source)]
    words = {True: "ahead of", False: "behind"}
    if ahead[0] == ahead[1]:
        return f" {OURS} ({ours[0]}) is {words[ahead[0]]} {model} by either."
    return f" {OURS} ({ours[0]}) is {words[ahead[0]]} {model} as printed, and {words[ahead[1]]} it by the source."


def _sentences(plan: Plan, contradicted: Iterable[Any]) -> Iterable[Erratum]:
    for finding in contradicted:
        note = f" ({finding.claim.note.rstrip('.')})" if finding.claim.note else ""
        yield Erratum(
            f"sentence_{finding.claim.id}",
            f"Section {finding.claim.section}, on {plan.experiments[finding.experiment].item}",
            f"“{finding.claim.sentence}”{note}",
            f"Its own printed numbers say otherwise: {finding.why}.",
            f"Claim {finding.claim.id}, tested on the printed numbers and on runs.",
        )


def as_markdown(entries: list[Erratum]) -> str:
    """`errata.md`."""
    kinds = "itself, with what can be counted, or with the sources it quotes"
    parts = [f"# Errata of the supplement\n\n{len(entries)} places where it disagrees with {kinds}."]
    for number, entry in enumerate(entries, 1):
        parts.append(
            f"## {number}. {entry.place}\n\n- **Says:** {entry.says}\n- **Should:** {entry.should}\n- **Here:** {entry.here}\n"
            f"- `{entry.id}`"
        )
    return "\n\n".join(parts) + "\n"


def _label(metric: str) -> str:
    return METRIC_LABELS[metric].rstrip(" ↓↑")
