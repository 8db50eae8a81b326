"""One page that holds everything: verdicts, items, errata, and behind every number the runs it comes from. Opens offline."""

import base64
import io
import logging
import math
import shlex
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from PIL import Image

from stlight.analysis.aggregate import (
    aggregate,
    best_variants,
    load_history,
    load_records,
    missing_runs,
    noise_floor,
    versions,
)
from stlight.analysis.audit import selection_audit
from stlight.analysis.errata import Erratum, as_markdown, errata
from stlight.analysis.tables import Block, table_blocks, table_notes
from stlight.analysis.text import METRIC_LABELS, axis_text, field_label, is_higher_better, number
from stlight.analysis.verdicts.ledger import VERDICTS, Finding, as_table, ledger
from stlight.experiments import Experiment, Plan
from stlight.runs.record import RecordError, RunRecord
from stlight.runtime.atomic_files import write_atomically

_FRAME_MILLISECONDS = 220

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class CellView:
    """One measured number: what it stands beside, and the seeds behind it."""

    key: str
    name: str
    metric: str
    published: str
    measured: str
    difference: str
    interval: str
    standing: str
    p_best: str
    seeds: list[tuple[str, str]]
    """Each seed's value and its run."""
    selections: list[str]


@dataclass(frozen=True)
class ItemView:
    """One item of the paper."""

    experiment: Experiment
    blocks: list[Block] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    cells: list[CellView] = field(default_factory=list)
    figure: str = ""
    movies: list[tuple[str, str, str, int]] = field(default_factory=list)
    """What it shows, moving, still, and how wide."""
    waiting: dict[str, str] = field(default_factory=dict)
    optimism: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def has(self, row: int) -> bool:
        """Whether a row of the tidy table is among the cells."""
        return any(cell.key == f"{self.experiment.name}-{row}" for cell in self.cells)


@dataclass(frozen=True)
class RunView:
    """One run, for who wants to know where a number comes from."""

    record: RunRecord
    curve: str
    """Points of the test MSE by epoch, for a polyline in a box of 200 × 60."""
    ends: tuple[str, str]
    facts: list[tuple[str, str]]
    command: str


def write_report(plan: Plan, workflow: Path, folder: Path, settings: list[str]) -> None:
    """Write claims.csv, errata.md, noise_floor.csv, selection_audit.csv and report.html under a scale's results.

    From whatever records there are; `settings` are the options that repeat a run here, beyond its scale.
    """
    findings = ledger(plan, folder)
    found = errata(plan, workflow, [f for f in findings if f.source == "published" and f.verdict == "contradicted"])
    tables = {e.name: aggregate(e, folder) for e in plan.experiments.values()}
    audits = {e.name: selection_audit(e, folder) for e in plan.experiments.values()}
    floors = pd.DataFrame(row for e in plan.experiments.values() for row in noise_floor(e, tables[e.name]))
    write_atomically(folder / "claims.csv", as_table(findings).to_csv(index=False))
    write_atomically(folder / "errata.md", as_markdown(found))
    write_atomically(folder / "noise_floor.csv", floors.to_csv(index=False))
    write_atomically(folder / "selection_audit.csv", pd.concat(list(audits.values())).to_csv(index=False))
    items = [
        _item(e, plan, folder, tables[e.name], audits[e.name], [f for f in findings if f.experiment == e.name])
        for e in plan.experiments.values()
    ]
    write_atomically(folder / "report.html", _page(plan, folder, items, findings, found, settings))


def _page(
    plan: Plan, folder: Path, items: list[ItemView], findings: list[Finding], found: list[Erratum], settings: list[str]
) -> str:
    records = {name: r for item in items for name, r in load_records(item.experiment, folder).items()}
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined)
    environment.filters["slug"] = slug
    template = environment.from_string(files(__package__).joinpath("page.html.j2").read_text(encoding="utf-8"))
    return template.render(
        scale=plan.scale,
        data_sets={config.data.dataset: config.data for config in plan.runs.values()},
        num_runs=len(plan.runs),
        num_done=len(records),
        items=sorted(items, key=lambda item: (item.experiment.section == "-", item.experiment.section, item.experiment.item)),
        claims=list(zip(findings[::2], findings[1::2], strict=True)),
        tallies={
            source: Counter(f.verdict for f in findings if f.source == source and f.claim.section != "-")
            for source in ("published", "measured")
        },
        verdicts=VERDICTS,
        errata=found,
        runs=[_run(r, plan, folder, settings) for _, r in sorted(records.items())],
        versions=versions(records),
        dirty=sorted(name for name, r in records.items() if "+changes" in str(r.provenance.get("code"))),
        effect=_effect,
        metric_labels=METRIC_LABELS,
    )


def _item(
    experiment: Experiment, plan: Plan, folder: Path, table: pd.DataFrame, audit: pd.DataFrame, findings: list[Finding]
) -> ItemView:
    waiting = missing_runs(experiment, folder)
    if not experiment.train and (table["status"] == "waiting").any():
        waiting = {f"counts of {experiment.name}": "not made yet"}
        return ItemView(experiment, waiting=waiting, findings=findings)
    figure = _file(folder, f"figures/{experiment.name}.svg")
    return ItemView(
        experiment,
        table_blocks(experiment, table, folder),
        [n for n in table_notes(experiment, plan.scale, table, folder) if not n.startswith("Not there yet")],
        [_cell(experiment, i, row, audit) for i, row in table.iterrows() if row["n"] and experiment.train],
        _data_uri(figure.read_bytes(), "image/svg+xml") if figure else "",
        _movies(experiment, table, folder) if experiment.train else [],
        waiting,
        _optimism(audit),
        findings,
    )


def _file(folder: Path, name: str) -> Path | None:
    """An item's file, or that of the cells there are, where some wait."""
    return next((path for path in (folder / name, folder / "unfinished" / name) if path.is_file()), None)


def _cell(experiment: Experiment, index: Any, row: "pd.Series[Any]", audit: pd.DataFrame) -> CellView:
    metric, runs = row["metric"], [name for name in row["runs"].split(";") if name]
    variant = runs[0].rpartition("/")[0] if runs else ""
    place = [f"{field_label(axis)} {axis_text(axis, row[axis])}" for axis in experiment.axes if axis_text(axis, row[axis])]
    same = (audit["dataset"] + "/" + audit["variant"] == variant) & (audit["metric"] == metric)
    selections = [number(audit[same].iloc[0][s], metric) for s in audit.columns[5:8]] if same.any() else []
    gap = row["measured"] - row["published"]
    return CellView(
        key=f"{experiment.name}-{index}",
        name=", ".join(place),
        metric=METRIC_LABELS[metric],
        published=row["printed"],
        measured=number(row["measured"], metric),
        difference=f"{'+' if gap >= 0 else '−'}{number(abs(gap), metric)}" if math.isfinite(gap) else "",
        interval=f"{number(row['low'], metric)} to {number(row['high'], metric)}" if math.isfinite(row["low"]) else "",
        standing=row["standing"],
        p_best=f"{row['p_best']:.0%}" if math.isfinite(row["p_best"]) else "",
        seeds=[(number(float(v), metric), name) for v, name in zip(row["values"].split(";"), runs, strict=False)],
        selections=selections,
    )


def _optimism(audit: pd.DataFrame) -> list[str]:
    """What the choice of the epoch adds on average, in a sentence for each data set and metric."""
    words = []
    for (dataset, metric), group in audit.groupby(["dataset", "metric"], sort=False):
        label = str(metric)
        last = group["best_on_test"] - group["last"]
        gain = (last if is_higher_better(label) else -last).mean()
        words.append(
            f"{dataset} {METRIC_LABELS[label][:-2]}: picking each run's best epoch on the test clips looks better by"
            f" {number(group['optimism'].mean(), label)} than picking it on validation clips, and by {number(gain, label)} than"
            f" taking the last; mean over {len(group)} cells."
        )
    return words


def _movies(experiment: Experiment, table: pd.DataFrame, folder: Path) -> list[tuple[str, str, str, int]]:
    """For each data set the predictions of the best run, as a loop and as its last frame."""
    shown = []
    for dataset, variant in best_variants(experiment, table).items():
        path = folder / "runs" / variant.run_name(0) / "examples.npz"
        if not path.is_file():
            continue
        try:
            with np.load(path, allow_pickle=False) as stored:
                context, truth, prediction = (stored[name] for name in ("context", "truth", "prediction"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            # The page is worth more than one film.
            logger.warning("%s is damaged: its predictions are left out", path)
            continue
        stand_in = ", stand-in data" if variant.config.data.source == "stand_in" else ""
        frames = [_picture(context, truth, prediction, step) for step in range(context.shape[1] + truth.shape[1])]
        caption = f"{dataset}{stand_in}: {variant.name}, seed 0, the best cell; above the truth, below context and prediction"
        # Small frames are kept small and shown large.
        width = frames[0].width * max(1, 128 // truth.shape[-1])
        shown.append((caption, _gif(frames), _gif(frames[-1:]), width))
    return shown


def _picture(context: np.ndarray, truth: np.ndarray, prediction: np.ndarray, step: int) -> Image.Image:
    """Clips side by side at one time step; a grey bar under the lower row says that it is predicted."""
    given = context.shape[1]
    above = context[:, step] if step < given else truth[:, step - given]
    below = context[:, step] if step < given else prediction[:, step - given]
    height = above.shape[-2]
    gap = np.full((height, 3), 255, np.uint8)
    rows = [np.concatenate([part for clip in row for part in (clip[0], gap)], 1)[:, :-3] for row in (above, below)]
    bar = np.full((3, rows[0].shape[1]), 255 if step < given else 128, np.uint8)
    picture = np.concatenate([rows[0], np.full_like(bar, 255), rows[1], bar])
    return Image.fromarray(picture).quantize(16)


def _gif(frames: list[Image.Image]) -> str:
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=_FRAME_MILLISECONDS, loop=0, optimize=True)
    return _data_uri(buffer.getvalue(), "image/gif")


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def _run(record: RunRecord, plan: Plan, folder: Path, settings: list[str]) -> RunView:
    curve, ends = "", ("", "")
    try:
        history = load_history(record, folder)
        values = history["test_mse"].to_numpy(float)
        values = values[np.isfinite(values)]
        if len(values) > 1:
            low, high = values.min(), values.max()
            xs = np.linspace(2, 198, len(values))
            ys = 57 - 54 * (values - low) / ((high - low) or 1)
            curve = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
            ends = (number(values[0], "mse"), number(values[-1], "mse"))
    except RecordError as error:
        ends = (str(error), "")
    command = ["python", "-m", "stlight", "train", record.run, "--scale", plan.scale.name, *settings]
    return RunView(record, curve, ends, _facts(record), shlex.join(command))


def _facts(record: RunRecord) -> list[tuple[str, str]]:
    """All that a run's record says of where its numbers come from."""
    made, data = record.provenance, record.provenance.get("data", {})
    sections = record.config.model_dump(exclude={"seed"}).values()
    return [
        ("seed", str(record.config.seed)),
        ("metrics, last epoch", _listed(record.metrics["last"])),
        ("code", f"commit {made.get('code', '?')}, sources {made.get('source', '?')}"),
        ("libraries", f"{_listed(made.get('libraries', {}))}, Python {made.get('python', '?')}"),
        (
            "data",
            f"{record.config.data.dataset}, {record.config.data.source}, SHA-256 {data.get('sha256') or 'none: generated'}",
        ),
        ("device", _listed({name: value for name, value in record.device.items() if not isinstance(value, dict)})),
        ("parameters, FLOPs", f"{record.num_params:,}, {record.prediction_flops:,}"),
        ("seconds", _listed(record.seconds)),
        ("started", str(made.get("started", "?"))),
        ("configuration", f"{record.config_hash}: {_listed({n: v for section in sections for n, v in section.items()})}"),
    ]


def _listed(values: Mapping[str, Any]) -> str:
    shown = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{name} {text}" for name, text in shown.items())


def _effect(finding: Finding) -> str:
    """Effect, interval and what could have been seen, in the metric's digits."""
    if not math.isfinite(finding.effect):
        return ""
    metric = finding.claim.metrics[0] if len(finding.claim.metrics) == 1 else ""
    show = (lambda v: number(v, metric)) if metric and abs(finding.effect) >= 0.005 else (lambda v: f"{v:.3g}")
    text = f"{show(finding.effect)}"
    if math.isfinite(finding.low):
        text += f" ({show(finding.low)} to {show(finding.high)})"
    return text


def slug(text: str) -> str:
    """A name as it can stand in the page's addresses."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
