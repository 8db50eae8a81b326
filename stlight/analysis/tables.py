"""Tables of an experiment: tidy CSV for machines, Markdown and LaTeX for readers, published beside measured."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from stlight.analysis.escaping import csv, latex, markdown, plain
from stlight.analysis.evidence import key
from stlight.analysis.notes import UNLEARNT, table_notes
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import TIDY, Values
from stlight.experiments import Experiment
from stlight.experiments.figure_types import TwoWayTable
from stlight.registry.metric_specs import METRICS
from stlight.runtime.atomic_files import write_atomically

MARKDOWN_MARKS = ("**%s**", "%s ≈", f"%s {UNLEARNT}")
LATEX_MARKS = (r"\textbf{%s}", r"%s $\approx$", r"%s $^\dagger$")
"""How the best cell, its ties and unlearnt cells are marked."""


@dataclass(frozen=True)
class TableCell:
    """One cell of a table for readers."""

    text: str
    best: bool = False
    tie: bool = False
    """True if it is one of several that may be the best."""
    row: int | None = None
    """Its row in `Values.cells`, if it is measured."""
    unlearnt: bool = False
    """True if it is no better than a trivial predictor, so that it decides nothing."""


@dataclass(frozen=True)
class Block:
    """A heading and a grid of cells under a header."""

    heading: str
    header: list[str]
    rows: list[list[TableCell]]


def write_tables(values: Values, into: Path) -> None:
    """Write tables/<item>.csv, .md and .tex under a folder."""
    blocks = table_blocks(values)
    base = into / "tables" / values.experiment.name
    write_atomically(base.with_suffix(".csv"), csv(tidy_table(values)))
    write_atomically(base.with_suffix(".md"), _markdown(values.experiment, blocks, table_notes(values)))
    write_atomically(base.with_suffix(".tex"), _latex(values.experiment, blocks))


def tidy_table(values: Values) -> pd.DataFrame:
    """Return the table that is written as CSV: one row per cell and metric. Lists are joined by semicolons."""
    table = values.cells[[*values.coordinates, "data", *TIDY, "standing", "p_best", "learnt"]].copy()
    table["runs"] = table["runs"].map(";".join)
    table["values"] = table["values"].map(lambda numbers: ";".join(f"{number:.10g}" for number in numbers))
    if values.experiment.train:
        return table
    # Counts are whole numbers.
    return table.merge(_components(values), on=values.experiment.axes, how="left").astype({"measured": int})


def table_blocks(values: Values) -> list[Block]:
    """Return an experiment's table as a reader sees it, in one part or several."""
    if not values.experiment.train:
        return [_complexity(values)]
    return _two_way(values.cells, values.experiment.table) if values.experiment.table else [_long(values)]


def measured_text(row: "pd.Series[Any]") -> str:
    """Return mean, half the interval if there is one, and a word if a run diverged or is missing."""
    if row["status"] == "quoted":
        return ""
    spec, of_the_model = METRICS[row["metric"]], row["status"] in ("counted", "measured")
    text = spec.format(row["measured"])
    if math.isfinite(row["low"]):
        text += f" ± {spec.format((row['high'] - row['low']) / 2)}"
    words = [] if of_the_model or row["status"] == "done" else [row["status"]]
    words += ["stand-in"] if row["data"] == "stand-in" and row["n"] and not of_the_model else []
    return f"{text} ({', '.join(words)})" if words else text


def is_best(values: "pd.Series[float]", metric: str) -> "pd.Series[bool]":
    """Return True for the best values of a metric: several if they print alike, none if none is finite."""
    shown = as_shown(values, metric)
    return shown.eq(shown.max() if METRICS[metric].higher_is_better else shown.min())


def as_shown(values: "pd.Series[float]", metric: str) -> "pd.Series[float]":
    """Return values rounded to their printed digits, because a reader cannot rank what prints alike."""
    spec = METRICS[metric]
    if spec.cost:
        return values
    return values.map(lambda value: float(spec.format(value)) if math.isfinite(value) else math.nan)


def _two_way(cells: pd.DataFrame, layout: TwoWayTable) -> list[Block]:
    blocks = []
    for metric, group in cells.groupby("metric", sort=False):
        across, down = (group[axis].map(axis_text).unique() for axis in (layout.columns, layout.rows))
        header = [f"{field_label(layout.rows)} \\ {field_label(layout.columns)}", *across]
        for source, found in _by_place(group, str(metric), [layout.rows, layout.columns]).items():
            grid = [[TableCell(d), *(found.get((d, a), TableCell("")) for a in across)] for d in down]
            blocks.append(Block(f"{METRICS[str(metric)].arrow_label}, {source}", header, grid))
    return blocks


def _long(values: Values) -> Block:
    """Return one row per variant or quoted model, with two columns per metric."""
    cells, by_dataset = values.cells, "dataset" in values.experiment.axes
    axes = [c for c in values.coordinates if c == "model" or cells[c].nunique() > 1] or values.experiment.axes
    if by_dataset and "model" in axes:
        # One row per model and one column per data set, as in the paper.
        axes = ["model"]
    columns = {}
    for (dataset, metric), group in cells.groupby(["dataset", "metric"], sort=False):
        name = f"{dataset} " * by_dataset + METRICS[str(metric)].arrow_label
        for source, found in _by_place(group, str(metric), axes).items():
            # No empty column if the paper prints nothing.
            if source == "measured" or group["printed"].any():
                columns[f"{name} {source}"] = found
    places = dict.fromkeys(_places(cells, axes))
    rows = [[*map(TableCell, place), *(c.get(place, TableCell("")) for c in columns.values())] for place in places]
    return Block("", [*map(field_label, axes), *columns], rows)


def _by_place(group: pd.DataFrame, metric: str, axes: list[str]) -> dict[str, dict[tuple[str, ...], TableCell]]:
    """Return the published and the measured cells of one metric by their coordinates."""
    best = is_best(group["published"], metric) & (not METRICS[metric].cost)
    published, measured = [], []
    for (index, row), is_the_best in zip(group.iterrows(), best, strict=True):
        published.append(TableCell(row["printed"] or "–", is_the_best))
        unlearnt = row["learnt"] is False
        # The best of cells that predict no better than a black frame is not worth a mark.
        standing = "" if unlearnt else row["standing"]
        measured.append(TableCell(measured_text(row), standing == "best", standing == "tie", int(str(index)), unlearnt))
    found = {"published": published, "measured": measured}
    return {source: dict(zip(_places(group, axes), cells, strict=True)) for source, cells in found.items()}


def _places(cells: pd.DataFrame, axes: list[str]) -> list[tuple[str, ...]]:
    return [tuple(map(axis_text, place)) for place in cells[axes].itertuples(index=False)]


def _components(values: Values) -> pd.DataFrame:
    """Return the counts of the components and their closed forms, one row per variant."""
    counts = ((variant.axes, values.evidence.counts[key(variant)]) for variant in values.experiment.variants)
    return pd.DataFrame(
        axes
        | {f"params_{name}": n for name, n in count["parameters"].items() if name != "total"}
        | {f"closed_form_{name}": n for name, n in count["closed_forms"].items()}
        | {"flops_fvcore": count["flops_fvcore"]}
        for axes, count in counts
    )


def _complexity(values: Values) -> Block:
    values.evidence.check_complete()
    components = ["patch_encoder", "mixers", "patch_reassemble"]
    titles = [title for name in components for title in (name.replace("_", " "), "closed form")]
    header = [*map(field_label, values.experiment.axes), *titles, "parameters", "FLOPs", "FLOPs (fvcore)"]
    rows = []
    for variant in values.experiment.variants:
        count = values.evidence.counts[key(variant)]
        numbers = [count[kind][name] for name in components for kind in ("parameters", "closed_forms")]
        texts = [*map(axis_text, variant.axes.values()), *(f"{n:,}" for n in [*numbers, count["parameters"]["total"]])]
        texts += [f"{count[kind] / 1e9:.3f}G" for kind in ("benchmark_flops", "flops_fvcore")]
        rows.append([*map(TableCell, texts)])
    return Block("", header, rows)


def _markdown(experiment: Experiment, blocks: list[Block], notes: list[str]) -> str:
    parts = [f"# {markdown(f'{experiment.item}: {experiment.title}')}", markdown(experiment.summary)]
    for block in blocks:
        cells = [[_marked(markdown(c.text), c, MARKDOWN_MARKS) for c in row] for row in block.rows]
        parts += [f"## {markdown(block.heading)}"] if block.heading else []
        parts.append(tabulate(cells, [*map(markdown, block.header)], tablefmt="github", disable_numparse=True))
    return "\n\n".join([*parts, "\n".join(f"- {markdown(note)}" for note in notes)]) + "\n"


def _latex(experiment: Experiment, blocks: list[Block]) -> str:
    """Return the grids without the notes, for readers to put into a table of their own."""
    parts = [f"% {plain(f'{experiment.item}: {experiment.title}')}"]
    for block in blocks:
        cells = [[_marked(latex(c.text), c, LATEX_MARKS) for c in row] for row in block.rows]
        parts += [f"% {plain(block.heading)}"] if block.heading else []
        parts.append(tabulate(cells, [*map(latex, block.header)], tablefmt="latex_raw", disable_numparse=True))
    return "\n\n".join(parts) + "\n"


def _marked(text: str, cell: TableCell, marks: tuple[str, str, str]) -> str:
    """Return a cell's text with the mark for the best cell, for one that cannot be told from it, or for an unlearnt one."""
    best, tie, unlearnt = marks
    return (best if cell.best else tie if cell.tie else unlearnt if cell.unlearnt else "%s") % text
