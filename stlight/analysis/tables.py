"""Tables of an experiment: tidy CSV for machines, Markdown and LaTeX for readers, published beside measured."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from stlight.analysis.aggregate import (
    COSTS,
    load_counts,
    load_records,
    missing_runs,
    missing_speeds,
    noise_floor,
    speeds_there,
)
from stlight.analysis.text import METRIC_LABELS, axis_text, field_label, is_higher_better, number
from stlight.experiments import Experiment, Scale
from stlight.registry.metric_specs import COUNTED_METRICS
from stlight.registry.model_specs import OURS
from stlight.runs.record import RunRecord
from stlight.runtime.atomic_files import write_atomically

# Numbers that depend on no data, and are as they should be.
_OF_THE_MODEL = ("counted", "measured")


@dataclass(frozen=True)
class Cell:
    """Text of a cell, whether it is the best of its kind or one of several that may be, and its row in the tidy table."""

    text: str
    best: bool = False
    tie: bool = False
    row: int | None = None


@dataclass(frozen=True)
class Block:
    """A heading and a grid of cells under a header."""

    heading: str
    header: list[str]
    rows: list[list[Cell]]


def write_tables(experiment: Experiment, scale: Scale, table: pd.DataFrame, folder: Path, into: Path | None = None) -> None:
    """Write tables/<item>.csv, .md and .tex under `folder`, the scale's results, or under `into`."""
    blocks, notes = table_blocks(experiment, table, folder), table_notes(experiment, scale, table, folder)
    if not experiment.train:
        table = table.merge(_components(experiment, folder), on=experiment.axes, how="left")
    base = (into or folder) / "tables" / experiment.name
    write_atomically(base.with_suffix(".csv"), table.to_csv(index=False))
    write_atomically(base.with_suffix(".md"), _markdown(experiment, blocks, notes))
    write_atomically(base.with_suffix(".tex"), _latex(experiment, blocks, notes))


def table_blocks(experiment: Experiment, table: pd.DataFrame, folder: Path) -> list[Block]:
    """An experiment's table as a reader sees it, in one part or several."""
    if not experiment.train:
        return [_complexity(experiment, folder)]
    return _two_way(experiment, table) if experiment.table else [_long(experiment, table)]


def measured_text(row: "pd.Series[Any]") -> str:
    """Mean, half the interval where there is one, and a word where a run diverged or is missing."""
    if row["status"] == "quoted":
        return ""
    text = number(row["measured"], row["metric"])
    if math.isfinite(row["low"]):
        text += f" ± {number((row['high'] - row['low']) / 2, row['metric'])}"
    words = [row["status"]] if row["status"] not in ("done", *_OF_THE_MODEL) else []
    words += ["stand-in"] if row["data"] == "stand-in" and row["n"] and row["status"] not in _OF_THE_MODEL else []
    return f"{text} ({', '.join(words)})" if words else text


def is_best(values: "pd.Series[float]", metric: str) -> "pd.Series[bool]":
    """Which values are the best of a metric: several where they print alike, none where none is finite."""
    shown = as_shown(values, metric)
    return shown.eq(shown.max() if is_higher_better(metric) else shown.min())


def as_shown(values: "pd.Series[float]", metric: str) -> "pd.Series[float]":
    """Values rounded to the digits they are printed with: what a reader cannot tell apart is not ranked."""
    if metric in COSTS:
        return values
    return values.map(lambda value: float(number(value, metric)) if math.isfinite(value) else math.nan)


def _two_way(experiment: Experiment, table: pd.DataFrame) -> list[Block]:
    rows, columns = experiment.table["rows"], experiment.table["columns"]
    blocks = []
    for metric, group in table.groupby("metric", sort=False):
        for source in ("published", "measured"):
            best = dict(zip(group.index, is_best(group[source], str(metric)), strict=True))
            across, down = group[columns].unique(), group[rows].unique()
            places = {
                (r[rows], r[columns]): Cell(r["printed"] or "–", best[i]) if source == "published" else _measured_cell(i, r)
                for i, r in group.iterrows()
            }
            grid = [[Cell(axis_text(rows, d)), *(places.get((d, a), Cell("")) for a in across)] for d in down]
            header = [f"{field_label(rows)} \\ {field_label(columns)}", *(axis_text(columns, a) for a in across)]
            blocks.append(Block(f"{METRIC_LABELS[str(metric)]}, {source}", header, grid))
    return blocks


def _long(experiment: Experiment, table: pd.DataFrame) -> Block:
    """One row for each variant or quoted model, two columns for each metric."""
    places = [c for c in table.columns[: list(table.columns).index("data")] if c == "model" or table[c].nunique() > 1]
    places = places or experiment.axes
    if "dataset" in experiment.axes and "model" in places:
        # One row a model, one column a data set, as the paper has it.
        places = ["model"]
    kinds = list(dict.fromkeys(zip(table.get("dataset", pd.Series("", table.index)), table["metric"], strict=True)))
    # No empty column where the paper prints nothing.
    printed = {kind: bool(_of_kind(table, kind)["printed"].any()) for kind in kinds}
    header = [field_label(place) for place in places]
    for dataset, metric in kinds:
        name = f"{dataset} {METRIC_LABELS[metric]}".strip()
        header += [f"{name} published"] * printed[dataset, metric] + [f"{name} measured"]

    best = {kind: is_best(_of_kind(table, kind)["published"], kind[1]) for kind in kinds}
    rows = []
    for _, group in table.groupby(places, sort=False, dropna=False):
        cells = [Cell(axis_text(place, group.iloc[0][place])) for place in places]
        for kind in kinds:
            of_kind = _of_kind(group, kind)
            if of_kind.empty:
                cells += [Cell("")] * (1 + printed[kind])
                continue
            i, row = of_kind.index[0], of_kind.iloc[0]
            ranked = kind[1] not in COSTS
            cells += [Cell(row["printed"] or "–", ranked and best[kind][i])] * printed[kind] + [_measured_cell(i, row)]
        rows.append(cells)
    return Block("", header, rows)


def _measured_cell(index: Any, row: "pd.Series[Any]") -> Cell:
    return Cell(measured_text(row), row["standing"] == "best", row["standing"] == "tie", int(index))


def _of_kind(table: pd.DataFrame, kind: tuple[str, str]) -> pd.DataFrame:
    dataset, metric = kind
    same_metric = table["metric"] == metric
    return table[same_metric & (table["dataset"] == dataset)] if dataset else table[same_metric]


def _components(experiment: Experiment, folder: Path) -> pd.DataFrame:
    """Counts of the components and their closed forms, one row for each variant."""
    counts = load_counts(experiment, folder)
    rows = []
    for variant in experiment.variants:
        count = counts[f"{variant.dataset}/{variant.name}"]
        rows.append(
            variant.axes
            | {f"params_{name}": n for name, n in count["parameters"].items() if name != "total"}
            | {f"closed_form_{name}": n for name, n in count["closed_forms"].items()}
            | {"flops_fvcore": count["flops_fvcore"]}
        )
    return pd.DataFrame(rows)


def _complexity(experiment: Experiment, folder: Path) -> Block:
    counts = load_counts(experiment, folder)
    components = ["patch_encoder", "mixers", "patch_reassemble"]
    header = [*map(field_label, experiment.axes)]
    for name in components:
        header += [name.replace("_", " "), "closed form"]
    header += ["parameters", "FLOPs", "FLOPs (fvcore)"]
    rows = []
    for variant in experiment.variants:
        count = counts[f"{variant.dataset}/{variant.name}"]
        values = [v for name in components for v in (count["parameters"][name], count["closed_forms"][name])]
        values.append(count["parameters"]["total"])
        rows.append(
            [Cell(axis_text(axis, variant.axes[axis])) for axis in experiment.axes]
            + [Cell(f"{value:,}") for value in values]
            + [Cell(f"{count[kind] / 1e9:.3f}G") for kind in ("benchmark_flops", "flops_fvcore")]
        )
    return Block("", header, rows)


def table_notes(experiment: Experiment, scale: Scale, table: pd.DataFrame, folder: Path) -> list[str]:
    """What a reader must know of a table."""
    if not experiment.train:
        return [
            "Counted at the paper's size (10 → 10 frames of 1×64×64), whatever the scale. The closed forms are the leading"
            " terms of Section B: weights of the convolutions, without biases and BatchNorm.",
            "FLOPs are multiply-adds of the convolutions in one forward pass of one clip, each counted once, by two counters"
            " that agree; fvcore's total also counts BatchNorm.",
        ]
    sources = sorted({str(s) for s in table.loc[table["status"] != "quoted", "data"]})
    notes = [
        f"Scale {scale.name}: {scale.summary[0].lower()}{scale.summary[1:]}. Data: {', '.join(sources)}. Selection:"
        f" {experiment.selection} epoch. Seeds: {experiment.seeds}"
        + (" (± is half the 95 % t interval of the mean)." if experiment.seeds > 1 else ", so no interval can be given.")
    ]
    for floor in noise_floor(experiment, table):
        notes.append(f"{_floor_words(floor)} Cells that cannot be told from the best are marked ≈.")
    if experiment.share_of_epochs < 1:
        notes.append(
            f"At this scale its runs are trained for {experiment.share_of_epochs:.3g} of the epochs that it states, all rows"
            " alike: recurrent models of this size take many times longer than STLight's."
        )
    if scale.name != "paper" and any(variant.config.model.model != OURS for variant in experiment.variants):
        notes.append(
            "Other models are reduced in the proportion in which STLight is, to no fewer than four channels and one layer;"
            " scheduled sampling falls over the same share of a run's steps."
        )
    if scale.name != "paper":
        notes.append("Axes are in the paper's units; a smaller scale translates them, so compare shapes, not digits.")
    if "stand-in" in sources:
        notes.append("stand-in: clips generated in the data set's shape; such a number says nothing about the real data set.")
    if COUNTED_METRICS & set(table["metric"]):
        notes.append("Parameters and FLOPs are counted at the paper's size.")
    notes += _how_measured(experiment, scale, folder)
    if {"ssim"} & set(table["metric"]):
        notes.append("SSIM follows the benchmark's convention (data range 2); the records also hold the true unit range.")
    for dataset, metrics in experiment.metrics.items():
        records = [r for r in load_records(experiment, folder).values() if r.config.data.dataset == dataset]
        if records:
            notes.append(f"Trivial predictors on {dataset}: {_trivial(records[0], metrics)}.")
        notes += _uncommon(
            [r for r in records if r.device.get("accumulation_steps", 1) != r.config.training.accumulation_steps]
        )
    notes += [f"Not there yet: {name}: {why}." for name, why in missing_runs(experiment, folder).items()]
    if unmeasured := missing_speeds(experiment, folder):
        notes.append(f"Not there yet: {unmeasured}.")
    return notes


def _how_measured(experiment: Experiment, scale: Scale, folder: Path) -> list[str]:
    """Where times, rates and memory come from, and of which sizes they are."""
    speeds = speeds_there(experiment, folder)
    if not speeds:
        return []
    device, threads = speeds["device"], speeds["threads"]
    where = f"{device.get('name', '?')} ({device.get('type', '?')}, {threads} thread{'s' * (threads != 1)})"
    counted = any(metric in COUNTED_METRICS for names in experiment.metrics.values() for metric in names)
    but = ", while parameters and FLOPs are of the paper's" if counted and scale.name != "paper" else ""
    return [
        f"Times, rates and memory of all rows were measured side by side in one process on {where}: medians of"
        f" {speeds.get('rounds', 'several')} rounds, of training steps and predictions without the making of clips.",
        f"They are of the sizes of scale {scale.name}{but}. Memory is the peak of a training step: weights, gradients,"
        " Adam's moments and the step's own tensors.",
    ]


def _floor_words(floor: dict[str, Any]) -> str:
    """The noise floor of one metric in a sentence."""
    metric = floor["metric"]
    name = f"{floor['dataset']} {METRIC_LABELS[metric][:-2]}"
    if not math.isfinite(floor["smallest_difference"]):
        return f"{name}: {floor['why']}, so no cell can be told from another."
    words = f"{name}: a cell is told from the best if it is worse by about {number(floor['smallest_difference'], metric)}"
    order = f"; between two seeds the cells' order agrees with τ = {floor['stability']:.2f}"
    return words + (order if math.isfinite(floor["stability"]) else "") + "."


def _uncommon(split: list[RunRecord]) -> list[str]:
    """Runs that did not fit into memory were computed otherwise than configured, which a reader must be told."""
    names = ", ".join(f"{r.run} in {r.device['accumulation_steps']}" for r in split)
    return [f"Batches in parts, for want of memory, with BatchNorm's statistics of each part: {names}."] if split else []


def _trivial(record: RunRecord, metrics: list[str]) -> str:
    """What no model should be worse than, in the metrics that a table shows."""
    names = ["mse" if m == "dispersion" else m for m in metrics if m not in COSTS]
    words = []
    for predictor, scores in record.trivial.items():
        values = {**scores, "mse_x100": None if scores.get("mse") is None else 100 * (scores["mse"] or 0)}
        shown = [f"{METRIC_LABELS[n][:-2]} {number(v, n)}" for n in dict.fromkeys(names) if (v := values.get(n)) is not None]
        words.append(f"{predictor.replace('_', ' ')} {', '.join(shown)}")
    return "; ".join(words)


def _markdown(experiment: Experiment, blocks: list[Block], notes: list[str]) -> str:
    parts = [f"# {experiment.item}: {experiment.title}", experiment.summary]
    for block in blocks:
        cells = _render(
            block.rows, lambda cell: f"**{cell.text}**" if cell.best else f"{cell.text} ≈" if cell.tie else cell.text
        )
        parts += [f"## {block.heading}"] if block.heading else []
        parts.append(tabulate(cells, block.header, tablefmt="github", disable_numparse=True))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _latex(experiment: Experiment, blocks: list[Block], notes: list[str]) -> str:
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escape(experiment.title)} ({_escape(experiment.item)}).}}"]
    for block in blocks:
        cells = _render(block.rows, _latex_cell)
        header = [_escape(text) for text in block.header]
        lines += [rf"\medskip {_escape(block.heading)}\\"] if block.heading else []
        lines.append(tabulate(cells, header, tablefmt="latex_raw", disable_numparse=True))
    lines += [rf"\par\footnotesize {_escape(note)}" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_cell(cell: Cell) -> str:
    text = _escape(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else rf"{text} $\approx$" if cell.tie else text


def _render(rows: Iterable[list[Cell]], text: Callable[[Cell], str]) -> list[list[str]]:
    return [[text(cell) for cell in row] for row in rows]


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "×": r"$\times$"}
    special |= {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--", "→": r"$\rightarrow$", "≈": r"$\approx$", "τ": r"$\tau$"}
    return "".join(special.get(character, character) for character in text)
