"""Notes below a table: its data, selection, seeds, noise floor and missing cells."""

import math
from collections.abc import Iterator
from typing import Any

from stlight.analysis.audit import noise_floor
from stlight.analysis.evidence import Evidence
from stlight.analysis.protocol import least_exact, protocol_of
from stlight.analysis.values import Values
from stlight.analysis.verdicts.repeats import PaperNoise, factor_effect
from stlight.experiments import Experiment
from stlight.registry.metric_specs import COUNTED_METRICS, METRICS
from stlight.registry.model_specs import OURS, borrows
from stlight.runs.record import RunRecord

UNLEARNT = "†"
"""Marks a cell that is no better than a trivial predictor."""


def table_notes(values: Values) -> list[str]:
    """Return the notes of an experiment's table: about it, and what is missing."""
    evidence = values.evidence
    reasons = [f"{name}: {why}" for name, why in evidence.missing.items()] + evidence.unmeasured
    return [*about_table(values), *(f"Not there yet: {reason}." for reason in reasons)]


def about_table(values: Values) -> list[str]:
    """Return the notes of an experiment's table without what is missing, which the report shows elsewhere."""
    return list(_about_training(values) if values.experiment.train else _ABOUT_COUNTS)


_ABOUT_COUNTS = (
    "Counted at the paper's size (10 → 10 frames of 1×64×64), whatever the scale. The closed forms are the leading"
    " terms of Section B: weights of the convolutions, without biases and BatchNorm.",
    "FLOPs are multiply-adds of the convolutions in one forward pass of one clip, each counted once, by torch's"
    " formulas; fvcore's total also counts BatchNorm. fvcore itself counts an experiment's first STLight, and must agree.",
)


def _about_training(values: Values) -> Iterator[str]:
    experiment, scale = values.experiment, values.evidence.scale
    metrics = set(values.cells["metric"])
    sources = sorted(set(values.cells.loc[values.cells["status"] != "quoted", "data"]))
    counts = sorted({experiment.seeds_of(variant) for variant in experiment.variants})
    seeds = f"{counts[0]} to {counts[-1]}, as the cells say" if len(counts) > 1 else str(counts[0])
    interval = " (± is half the 95 % t interval of the mean)." if counts[-1] > 1 else ", so no interval can be given."
    yield (
        f"Scale {scale.name}: {scale.summary[0].lower()}{scale.summary[1:]}. Data: {', '.join(sources)}. Selection:"
        f" {experiment.selection} epoch. Seeds: {seeds}{interval}"
    )
    yield from (f"Published numbers: {data.source}" for data in experiment.drawn)
    yield from _about_repeats(experiment)
    yield from _about_protocols(values)
    told = values.cells["learnt"].dropna()
    if not told.all():
        yield (
            f"{UNLEARNT} not learnt at this scale: {sum(told.eq(False))} of {len(told)} cells are no better than the best"
            " trivial predictor on their metric (MSE for a metric of a curve). They decide no sentence on it and are never"
            " marked as best."
        )
    for floor in noise_floor(values):
        yield f"{_floor_text(floor)} Cells that cannot be told from the best are marked ≈."
    if shares := {dataset: share for dataset, share in experiment.share_of_epochs.items() if share < 1}:
        several = len(experiment.share_of_epochs) > 1
        words = ", ".join(f"{share:.3g}" + f" ({dataset})" * several for dataset, share in shares.items())
        yield (
            f"At this scale its runs are trained for {words} of the epochs that it states, all rows"
            " alike: recurrent models of this size take many times longer than STLight's."
        )
    models = [(variant.config.model.model, variant.dataset) for variant in experiment.variants]
    if borrowed := ", ".join(f"{model} on {dataset}" for model, dataset in models if borrows(model, dataset)):
        yield f"No configuration of the benchmark, so Moving MNIST's (layers and learning rate): {borrowed}."
    if scale.name != "paper":
        if any(variant.config.model.model != OURS for variant in experiment.variants):
            yield (
                "Other models keep the shares of channels and layers that the scale states, but no fewer than four channels and"
                " one layer; scheduled sampling falls over the same share of a run's steps. A model that the scale states no"
                " learning rate of is not trained."
            )
        yield "Axes are in the paper's units; a smaller scale translates them, so compare shapes, not digits."
    if "stand-in" in sources:
        yield "stand-in: clips generated in the data set's shape; such a number says nothing about the real data set."
    if COUNTED_METRICS & metrics:
        yield "Parameters and FLOPs are counted at the paper's size."
    yield from _about_timings(values.evidence)
    if "ssim" in metrics:
        yield "SSIM follows the benchmark's convention (data range 2); the records also hold the true unit range."
    for dataset, shown in experiment.metrics.items():
        runs = [run for run in values.evidence.runs.values() if run.record.config.data.dataset == dataset]
        records = [run.record for run in runs]
        if records:
            yield f"Trivial predictors on {dataset}: {_trivial(records[0], shown)}."
        if names := ", ".join(f"{run.record.run} {run.spikes}" for run in runs if run.spikes):
            yield (
                "Spikes, evaluations before the last whose test MSE exceeds ten times that of the worst trivial predictor:"
                f" {names}."
            )
        # They were computed otherwise than configured.
        split = [r for r in records if r.device.get("accumulation_steps", 1) != r.config.training.accumulation_steps]
        if names := ", ".join(f"{r.run} in {r.device['accumulation_steps']}" for r in split):
            yield f"Batches in parts, because memory ran out, with BatchNorm's statistics of each part: {names}."


def _about_protocols(values: Values) -> Iterator[str]:
    """Yield how near the runs on each data set are to the paper's."""
    by_dataset = {d: least_exact(map(protocol_of, values.variants_of(d))) for d in values.experiment.metrics}
    if set(by_dataset.values()) != {"exact"}:
        texts = ", ".join(f"{protocol} ({dataset})" for dataset, protocol in by_dataset.items())
        yield f"Protocol: {texts}. A verdict on these runs is about this scale, and not about the paper's size."


def _about_repeats(experiment: Experiment) -> Iterator[str]:
    if repeats := PaperNoise([experiment]).repeats:
        effect = factor_effect(repeats[0].factors)
        columns = (f"{r.sd:.2f} at {r.max_lr:g}{' (monotone in the factor)' if r.monotone else ''}" for r in repeats)
        yield (
            f"The printed final division factors change the learning rate by at most {effect:.1g} of its peak, so the printed"
            f" numbers of one learning rate are repeats of one training. Their standard deviations: {', '.join(columns)}. Three"
            " repeats are monotone by chance in one case of three."
        )


def _about_timings(evidence: Evidence) -> Iterator[str]:
    if timings := evidence.timings:
        device, threads = timings["device"], timings["threads"]
        where = f"{device.get('name', '?')} ({device.get('type', '?')}, {threads} thread{'s' * (threads != 1)})"
        counted = any(metric in COUNTED_METRICS for names in evidence.experiment.metrics.values() for metric in names)
        but = ", while parameters and FLOPs are of the paper's" if counted and evidence.scale.name != "paper" else ""
        yield (
            f"Times, rates and memory of all rows were measured side by side in one process on {where}: medians of"
            f" {timings.get('rounds', 'several')} rounds, of training steps and predictions without the making of clips."
        )
        yield (
            f"They are of the sizes of scale {evidence.scale.name}{but}. Memory is the peak of a training step: weights,"
            " gradients, Adam's moments and the step's own tensors."
        )


def _floor_text(floor: dict[str, Any]) -> str:
    """Return the noise floor of one metric as a sentence."""
    spec = METRICS[floor["metric"]]
    name = f"{floor['dataset']} {spec.label}"
    if not math.isfinite(floor["smallest_difference"]):
        return f"{name}: {floor['why']}, so no cell can be told from another."
    text = f"{name}: a cell is told from the best if it is worse by about {spec.format(floor['smallest_difference'])}"
    order = f"; between two seeds the cells' order agrees with τ = {floor['stability']:.2f}"
    return text + (order if math.isfinite(floor["stability"]) else "") + "."


def _trivial(record: RunRecord, metrics: list[str]) -> str:
    """Return the scores of the trivial predictors, which every model should beat, in the metrics that a table shows."""
    names = dict.fromkeys("mse" if METRICS[m].origin == "curve" else m for m in metrics)
    specs = {spec.source or name: spec for name in names if (spec := METRICS[name]).ranked}
    texts = []
    for predictor, scores in record.trivial.items():
        found = [(spec, score) for source, spec in specs.items() if (score := scores.get(source)) is not None]
        shown = ", ".join(f"{spec.label} {spec.format(spec.factor * score)}" for spec, score in found)
        texts.append(f"{predictor.replace('_', ' ')} {shown}")
    return "; ".join(texts)
