"""Items, cells and runs as the text that the page shows."""

import base64
import io
import logging
import math
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from stlight.analysis.evidence import Evidence, Examples
from stlight.analysis.notes import Note, table_notes
from stlight.analysis.tables import Block, table_blocks
from stlight.analysis.text import settings_text
from stlight.analysis.values import Values
from stlight.analysis.verdicts.findings import Finding
from stlight.experiments import Experiment
from stlight.registry.metric_specs import METRICS
from stlight.runs.record import SELECTIONS, RecordError, RunRecord

_FRAME_MILLISECONDS = 220

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Movie:
    """Clips as data URIs."""

    caption: str
    moving: str
    still: str
    """The last frame."""
    width: int
    """Width on the page in pixels."""


@dataclass(frozen=True)
class CellView:
    """One measured number with what it is compared to, and the seeds behind it."""

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
    findings: list[Finding]
    """The verdicts on its runs."""
    waiting: dict[str, str]
    blocks: list[Block] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    cells: dict[int, CellView] = field(default_factory=dict)
    """By their row in `Values.cells`."""
    figure: str = ""
    movies: list[Movie] = field(default_factory=list)
    optimism: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class RunView:
    """One run, for readers who follow a number to its origin."""

    record: RunRecord
    curve: str
    """Points of the test MSE by epoch, for a polyline in a box of 200 × 60."""
    ends: tuple[str, str]
    facts: dict[str, str]
    command: str


def item_view(values: Values, audit: pd.DataFrame, findings: list[Finding]) -> ItemView:
    """Return one item as the page shows it. `audit` is its selection audit, `findings` are the verdicts on its runs."""
    experiment, evidence = values.experiment, values.evidence
    if not experiment.train and evidence.uncounted:
        return ItemView(experiment, findings, {f"counts of {experiment.name}": "not made yet"})
    cells = values.cells[(values.cells["n"] > 0) & experiment.train]
    return ItemView(
        experiment,
        findings,
        evidence.missing,
        table_blocks(values),
        [note for note in table_notes(values) if note.kind != "missing"],
        {int(i): _cell_view(values, int(i), row, audit) for i, row in cells.iterrows()},  # type: ignore[call-overload]
        _figure(evidence),
        _movies(values) if experiment.train else [],
        _optimism(audit),
    )


def _figure(evidence: Evidence) -> str:
    """Return the item's figure, or that of the finished cells while some wait; empty if there is neither."""
    for folder in ("figures", "unfinished/figures"):
        path = evidence.results.path / folder / f"{evidence.experiment.name}.svg"
        if path.is_file():
            return f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"
    return ""


def _cell_view(values: Values, index: int, row: "pd.Series[Any]", audit: pd.DataFrame) -> CellView:
    spec, gap = METRICS[row["metric"]], row["measured"] - row["published"]
    same = audit[(audit[["dataset", "variant", "metric"]] == row[["dataset", "variant", "metric"]]).all(axis=1)]
    return CellView(
        key=f"{values.experiment.name}-{index}",
        name=settings_text(row, values.experiment.axes, equals=" "),
        metric=spec.arrow_label,
        published=row["printed"],
        measured=spec.format(row["measured"]),
        difference=f"{'+' if gap >= 0 else '−'}{spec.format(abs(gap))}" if math.isfinite(gap) else "",
        interval=f"{spec.format(row['low'])} to {spec.format(row['high'])}" if math.isfinite(row["low"]) else "",
        standing=row["standing"],
        p_best=f"{row['p_best']:.0%}" if math.isfinite(row["p_best"]) else "",
        seeds=[(spec.format(value), name) for value, name in zip(row["values"], row["runs"], strict=False)],
        selections=[spec.format(mean) for mean in same.iloc[0][list(SELECTIONS)]] if len(same) else [],
    )


def _optimism(audit: pd.DataFrame) -> list[str]:
    """Return what the choice of the epoch adds on average, in a sentence per data set and metric."""
    words = []
    for (dataset, metric), group in audit.groupby(["dataset", "metric"], sort=False):
        spec = METRICS[str(metric)]
        better, worse = ("best_on_test", "last") if spec.higher_is_better else ("last", "best_on_test")
        words.append(
            f"{dataset} {spec.label}: picking each run's best epoch on the test clips looks better by"
            f" {spec.format(group['optimism'].mean())} than picking it on validation clips, and by"
            f" {spec.format((group[better] - group[worse]).mean())} than taking the last; mean over {len(group)} cells."
        )
    return words


def run_view(name: str, evidence: Evidence, settings: list[str]) -> RunView:
    """Return one recorded run as the page shows it. `settings` are the options that repeat it, beyond its scale."""
    run, curve, ends = evidence.runs[name], "", ("", "")
    values = run.history["test_mse"].to_numpy(float)
    values = values[np.isfinite(values)]
    if len(values) > 1:
        low, high = values.min(), values.max()
        xs = np.linspace(2, 198, len(values))
        ys = 57 - 54 * (values - low) / ((high - low) or 1)
        curve = " ".join(f"{x:.1f},{y:.1f}" for x, y in zip(xs, ys, strict=True))
        ends = (METRICS["mse"].format(values[0]), METRICS["mse"].format(values[-1]))
    command = ["python", "-m", "stlight", "train", name, "--scale", evidence.scale.name, *settings]
    return RunView(run.record, curve, ends, _facts(run.record), shlex.join(command))


def _facts(record: RunRecord) -> dict[str, str]:
    """Return all that a run's record says about the origin of its numbers."""
    made, data = record.provenance, record.provenance.get("data", {})
    sections = record.config.model_dump(exclude={"seed"}).values()
    source = f"{record.config.data.dataset}, {record.config.data.source}"
    return {
        "seed": str(record.config.seed),
        "metrics, last epoch": _listed(record.metrics["last"]),
        "code": f"commit {made.get('code', '?')}, sources {made.get('source', '?')}",
        "libraries": f"{_listed(made.get('libraries', {}))}, Python {made.get('python', '?')}",
        "data": f"{source}, SHA-256 {data.get('sha256') or 'none: generated'}",
        "device": _listed({name: value for name, value in record.device.items() if not isinstance(value, dict)}),
        "parameters, FLOPs": f"{record.num_params:,}, {record.prediction_flops:,}",
        "seconds": _listed(record.seconds),
        "started": str(made.get("started", "?")),
        "configuration": f"{record.config_hash}: {_listed({n: v for section in sections for n, v in section.items()})}",
    }


def _listed(values: Mapping[str, Any]) -> str:
    shown = {name: f"{value:.6g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{name} {text}" for name, text in shown.items())


def effect_text(finding: Finding) -> str:
    """Return effect and interval in the metric's digits; empty if there is no effect."""
    if not math.isfinite(finding.effect):
        return ""
    metric = finding.claim.metrics[0] if len(finding.claim.metrics) == 1 else ""
    show = METRICS[metric].format if metric and abs(finding.effect) >= 0.005 else "{:.3g}".format
    interval = f" ({show(finding.low)} to {show(finding.high)})" if math.isfinite(finding.low) else ""
    return f"{show(finding.effect)}{interval}"


def _movies(values: Values) -> list[Movie]:
    """Return the predictions of the best run on each data set. A missing file is skipped, a damaged one is logged."""
    shown = []
    for dataset, variant in values.best_variants().items():
        try:
            clips = values.evidence.results.examples(variant.run_name(0))
        except OSError:
            continue
        except RecordError as error:
            logger.warning("%s: its predictions are left out of the report", error)
            continue
        stand_in = ", stand-in data" if variant.config.data.source == "stand_in" else ""
        caption = f"{dataset}{stand_in}: {variant.name}, seed 0, the best cell; above the truth, below context and prediction"
        frames = [_picture(clips, step) for step in range(clips.context.shape[1] + clips.truth.shape[1])]
        # Small frames are stored small and shown large.
        width = frames[0].width * max(1, 128 // clips.truth.shape[-1])
        shown.append(Movie(caption, _gif(frames), _gif(frames[-1:]), width))
    return shown


def _picture(clips: Examples, step: int) -> Image.Image:
    """Return the clips side by side at one time step; a grey bar under the lower row marks predictions."""
    given = clips.context.shape[1]
    above = clips.context[:, step] if step < given else clips.truth[:, step - given]
    below = clips.context[:, step] if step < given else clips.prediction[:, step - given]
    height = above.shape[-2]
    gap = np.full((height, 3), 255, np.uint8)
    rows = [np.concatenate([part for clip in row for part in (clip[0], gap)], 1)[:, :-3] for row in (above, below)]
    bar = np.full((3, rows[0].shape[1]), 255 if step < given else 128, np.uint8)
    picture = np.concatenate([rows[0], np.full_like(bar, 255), rows[1], bar])
    return Image.fromarray(picture).quantize(16)


def _gif(frames: list[Image.Image]) -> str:
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=_FRAME_MILLISECONDS, loop=0, optimize=True)
    return f"data:image/gif;base64,{base64.b64encode(buffer.getvalue()).decode()}"
