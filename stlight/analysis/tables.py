"""Tables of an experiment: tidy CSV for machines, Markdown and LaTeX for readers, published beside measured."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from stlight.analysis.evidence import IncompleteError, key
from stlight.analysis.notes import Note, table_notes
from stlight.analysis.text import axis_text, field_label
from stlight.analysis.values import TIDY, Values
from stlight.experiments import Experiment
from stlight.experiments.figure_types import TwoWayTable
from stlight.registry.metric_specs import METRICS
from stlight.runtime.atomic_files import write_atomically


@dataclass(frozen=True)
class TableCell:
    """One cell of a table for readers."""

    text: str
    best: bool = False
    tie: bool = False
    """True if it is one of several that may be the best."""
    row: int | None = None
    """Its row in `Values.cells`, if it is measured."""


@dataclass(frozen=True)
class Block:
    """A heading and a grid of cells under a header."""

    heading: str
    header: list[str]
    rows: list[list[TableCell]]


def write_tables(values: Values, into: Path) -> None:
    """Write tables/<item>.csv, .md and .tex under a folder."""
    blocks, notes = table_blocks(values), table_notes(values)
    base = into / "tables" / values.experiment.name
    write_atomically(base.with_suffix(".csv"), tidy_table(values).to_csv(index=False))
    write_atomically(base.with_suffix(".md"), _markdown(values.experiment, blocks, notes))
    write_atomically(base.with_suffix(".tex"), _latex(values.experiment, blocks, notes))


def tidy_table(values: Values) -> pd.DataFrame:
    """Return the table that is written as CSV: one row per cell and metric. Lists are joined by semicolons."""
    table = values.cells[[*values.coordinates, "data", *TIDY, "standing", "p_best"]].copy()
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
    rows, columns = layout.rows, layout.columns
    blocks = []
    for metric, group in cells.groupby("metric", sort=False):
        best = dict(zip(group.index, is_best(group["published"], str(metric)), strict=True))
        across, down = group[columns].unique(), group[rows].unique()
        published = {(r[rows], r[columns]): TableCell(r["printed"] or "–", best[i]) for i, r in group.iterrows()}
        measured = {(r[rows], r[columns]): _measured_cell(i, r) for i, r in group.iterrows()}
        header = [f"{field_label(rows)} \\ {field_label(columns)}", *map(axis_text, across)]
        for source, places in (("published", published), ("measured", measured)):
            grid = [[TableCell(axis_text(d)), *(places.get((d, a), TableCell("")) for a in across)] for d in down]
            blocks.append(Block(f"{METRICS[str(metric)].arrow_label}, {source}", header, grid))
    return blocks


def _long(values: Values) -> Block:
    """Return one row per variant or quoted model, with two columns per metric."""
    cells, by_dataset = values.cells, "dataset" in values.experiment.axes
    places = [c for c in values.coordinates if c == "model" or cells[c].nunique() > 1] or values.experiment.axes
    if by_dataset and "model" in places:
        # One row per model and one column per data set, as in the paper.
        places = ["model"]
    columns = {}
    for (dataset, metric), of_kind in cells.groupby(["dataset", "metric"], sort=False):
        spec = METRICS[str(metric)]
        name = f"{dataset} {spec.arrow_label}" if by_dataset else spec.arrow_label
        best = is_best(of_kind["published"], str(metric)) & (not spec.cost)
        # No empty column if the paper prints nothing.
        columns[dataset, metric] = name, bool(of_kind["printed"].any()), set(best.index[best])
    header = [field_label(place) for place in places]
    for name, printed, *_ in columns.values():
        header += [f"{name} published"] * printed + [f"{name} measured"]
    rows = []
    for _, group in cells.groupby(places, sort=False, dropna=False):
        row = [TableCell(axis_text(group.iloc[0][place])) for place in places]
        of_row = {(cell["dataset"], cell["metric"]): (i, cell) for i, cell in group.iterrows()}
        for kind, (_, printed, best_rows) in columns.items():
            if kind in of_row:
                i, cell = of_row[kind]
                row += [TableCell(cell["printed"] or "–", i in best_rows)] * printed + [_measured_cell(i, cell)]
            else:
                row += [TableCell("")] * (1 + printed)
        rows.append(row)
    return Block("", header, rows)


def _measured_cell(index: Any, row: "pd.Series[Any]") -> TableCell:
    return TableCell(measured_text(row), row["standing"] == "best", row["standing"] == "tie", int(index))


def _counts(values: Values) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the coordinates and counts of each variant. Raises `IncompleteError` if there are none."""
    if values.evidence.uncounted:
        raise IncompleteError(values.evidence.uncounted)
    return [(variant.axes, values.evidence.counts[key(variant)]) for variant in values.experiment.variants]


def _components(values: Values) -> pd.DataFrame:
    """Return the counts of the components and their closed forms, one row per variant."""
    return pd.DataFrame(
        axes
        | {f"params_{name}": n for name, n in count["parameters"].items() if name != "total"}
        | {f"closed_form_{name}": n for name, n in count["closed_forms"].items()}
        | {"flops_fvcore": count["flops_fvcore"]}
        for axes, count in _counts(values)
    )


def _complexity(values: Values) -> Block:
    components = ["patch_encoder", "mixers", "patch_reassemble"]
    header = [field_label(axis) for axis in values.experiment.axes]
    for name in components:
        header += [name.replace("_", " "), "closed form"]
    header += ["parameters", "FLOPs", "FLOPs (fvcore)"]
    rows = []
    for axes, count in _counts(values):
        numbers = [count[kind][name] for name in components for kind in ("parameters", "closed_forms")]
        texts = [axis_text(value) for value in axes.values()]
        texts += [f"{number:,}" for number in [*numbers, count["parameters"]["total"]]]
        texts += [f"{count[kind] / 1e9:.3f}G" for kind in ("benchmark_flops", "flops_fvcore")]
        rows.append([TableCell(text) for text in texts])
    return Block("", header, rows)


def _markdown(experiment: Experiment, blocks: list[Block], notes: list[Note]) -> str:
    parts = [f"# {experiment.item}: {experiment.title}", experiment.summary]
    for block in blocks:
        cells = [[_markdown_cell(cell) for cell in row] for row in block.rows]
        parts += [f"## {block.heading}"] if block.heading else []
        parts.append(tabulate(cells, block.header, tablefmt="github", disable_numparse=True))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes)]) + "\n"


def _markdown_cell(cell: TableCell) -> str:
    return f"**{cell.text}**" if cell.best else f"{cell.text} ≈" if cell.tie else cell.text


def _latex(experiment: Experiment, blocks: list[Block], notes: list[Note]) -> str:
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escape(experiment.title)} ({_escape(experiment.item)}).}}"]
    for block in blocks:
        cells = [[_latex_cell(cell) for cell in row] for row in block.rows]
        header = [_escape(text) for text in block.header]
        lines += [rf"\medskip {_escape(block.heading)}\\"] if block.heading else []
        lines.append(tabulate(cells, header, tablefmt="latex_raw", disable_numparse=True))
    lines += [rf"\par\footnotesize {_escape(note.text)}" for note in notes]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _latex_cell(cell: TableCell) -> str:
    text = _escape(cell.text)
    return rf"\textbf{{{text}}}" if cell.best else rf"{text} $\approx$" if cell.tie else text


def _escape(text: str) -> str:
    special = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "±": r"$\pm$", "×": r"$\times$"}
    special |= {"↓": r"$\downarrow$", "↑": r"$\uparrow$", "–": "--", "→": r"$\rightarrow$", "≈": r"$\approx$", "τ": r"$\tau$"}
    return "".join(special.get(character, character) for character in text)
