"""Write the tables of findings into the documentation from the claims of the kept results.

A table stands between `<!-- findings: … -->` and `<!-- end of findings -->`. The words after the colon name what it shows:
`tally`, `rounds`, `made`, `base`, or a source of numbers (`printed`, `figures`, `counts` or a kept scale), an outcome (`holds`,
`not`, `open`) or `each` of them and, if only the clearest are shown, their number. A test fails if writing changes a file. Call
`python docs/write_findings.py`.
"""

import math
import re
import statistics
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from stlight.experiments import load_plan
from stlight.experiments.claim_types import Claim
from stlight.registry.dataset_specs import DATASETS
from stlight.registry.metric_specs import METRICS
from stlight.runs.record import read_record
from stlight.runs.rounds import Round, seeds_after

REPOSITORY = Path(__file__).resolve().parent.parent
PAGES = ("docs/findings.md", "docs/all-findings.md", "docs/scales.md", "README.md")
KEPT = ("small", "demo")
OUTCOMES = {
    "holds": ("reproduced", "holds at this scale"),
    "not": ("contradicted", "reversed at this scale"),
    "open": ("undecided",),
    "untested": ("untested",),
}
SOURCES = {
    "printed": "numbers that the supplement prints",
    "figures": "curves and points of the paper's figures",
    "counts": "parameters and FLOPs, counted by us",
    "small": "our runs at `small`",
    "demo": "our runs at `demo`",
}
# Items of which the paper prints a figure and no table.
DRAWN = ("figure1_initialization", "figure2_decoder_order", "main_figure6_width_depth")
# Seconds without a run that end a sitting.
PAUSE = 600
# Section of the sentences that are not the supplement's, but the suite's about what it leaves open.
OWN_SECTION = "-"

_BLOCK = re.compile(r"(<!-- findings: ([^>]*?) -->\n).*?(<!-- end of findings -->)", re.DOTALL)


class Findings:
    """The claims of the kept scales, and the tables made from them."""

    def __init__(self) -> None:
        plan = load_plan(REPOSITORY / "workflow", KEPT[0], REPOSITORY / "data")
        self._claims = {claim.id: claim for experiment in plan.experiments.values() for claim in experiment.claims}
        self._tables = {scale: pd.read_csv(REPOSITORY / f"results/reference/{scale}/claims.csv") for scale in KEPT}

    def written(self, page: str) -> str:
        """Return a page's text with its tables as the results give them; `page` is a path below the repository."""
        to_root = "../" * page.count("/")
        text = (REPOSITORY / page).read_text(encoding="utf-8")
        return _BLOCK.sub(lambda block: f"{block[1]}\n{self._table(block[2].split(), to_root)}\n\n{block[3]}", text)

    def of(self, source: str) -> pd.DataFrame:
        """Return the claims of one source of numbers."""
        table = self._tables[source if source in KEPT else KEPT[0]]
        if source in ("printed", "figures"):
            drawn = table["experiment"].isin(DRAWN)
            return table[(table["source"] == "published") & (drawn if source == "figures" else ~drawn)]
        kept = ["exact"] if source == "counts" else ["reduced", "stand-in"]
        return table[(table["source"] == "measured") & table["protocol"].isin(kept)]

    def _table(self, words: list[str], to_root: str) -> str:
        match words:
            case ["tally"]:
                return self._tally()
            case ["rounds"]:
                return self._rounds()
            case ["base"]:
                return _base()
            case ["made"]:
                return _made(KEPT[0])
            case [source, "each", most]:
                lines = [["on our runs", "sentence", "effect [95 %]", "n"], ["---"] * 4]
                for outcome in ("holds", "not", "open"):
                    word = outcome.replace("not", "does not")
                    lines += [[word, *self._cells(row, source, to_root)] for row in self._clearest(source, outcome, int(most))]
                return _markdown(lines)
            case [source, outcome, *most]:
                with_reasons = source in KEPT and outcome == "open"
                heads = ["sentence", "effect [95 %]" if source in KEPT else "effect", "n"]
                heads += ["least told apart, or what forbids a decision"] * with_reasons
                found = list(self._found(source, outcome).itertuples())
                rows = self._clearest(source, outcome, int(most[0])) if most else found
                cells = [self._cells(row, source, to_root) + [self._least(row)] * with_reasons for row in rows]
                return _markdown([heads, ["---"] * len(heads), *cells]) if rows else "None."
        raise ValueError(f"findings: {words} names no table")

    def _found(self, source: str, outcome: str) -> pd.DataFrame:
        found = self.of(source)
        return found[found["verdict"].isin(OUTCOMES[outcome])]

    def _clearest(self, source: str, outcome: str, most: int) -> list[Any]:
        """Return the claims whose effects are largest beside their intervals, in the order of the paper.

        Open ones that no number of seeds could decide are left out.
        """
        found = self._found(source, outcome)
        found = found[found["detectable"].notna()] if outcome == "open" else found
        clearness = found["effect"].abs() / (found["high"] - found["low"]).fillna(math.inf)
        return list(found.loc[sorted(clearness.sort_values(ascending=False, kind="stable").index[:most])].itertuples())

    def _cells(self, row: Any, source: str, to_root: str) -> list[str]:
        page = f"{to_root}results/reference/{source if source in KEPT else KEPT[0]}/report.html"
        link = f"[{row.id.replace('_', ' ')}]({page}#claim-{row.id})" + " (ours)" * (row.section == OWN_SECTION)
        return [link, _effect(self._claims[row.id], row), str(row.n)]

    def _least(self, row: Any) -> str:
        return _number(self._claims[row.id], row.detectable) if math.isfinite(row.detectable) else _reason(row.why)

    def _tally(self) -> str:
        lines = [["on", "holds", "does not", "open", "untested"], ["---"] * 5]
        for source, name in SOURCES.items():
            found = self.of(source)
            verdicts = found.loc[found["section"] != OWN_SECTION, "verdict"]
            lines.append([name, *(str(int(verdicts.isin(names).sum())) for names in OUTCOMES.values())])
        return _markdown(lines)

    def _rounds(self) -> str:
        paths = sorted((REPOSITORY / f"results/reference/{KEPT[0]}/rounds").glob("*.json"), key=lambda path: int(path.stem))
        rounds = [Round.model_validate_json(path.read_text(encoding="utf-8")) for path in paths]
        settled = [{outlook.claim for outlook in one.claims if outlook.state == "settled"} for one in rounds]
        lines = [["round", "core hours before it", "runs added", "sentences settled by them"], ["---"] * 4]
        for i, one in enumerate(rounds[:-1]):
            added = sum(seeds_after(rounds[: i + 1]).values()) - sum(seeds_after(rounds[:i]).values())
            found = ", ".join(f"`{claim}`" for claim in sorted(settled[i + 1] - settled[i]))
            lines.append([str(one.number), f"{one.spent_seconds / 3600:.2f}", str(added), found or "none"])
        return f"{_markdown(lines)}\n\nThen {rounds[-1].reason.split(' (')[0]}."


def _made(scale: str) -> str:
    """Return how many runs of a scale there are, what they took and which commit made them. A longer pause ends a sitting."""
    records = [read_record(path) for path in REPOSITORY.glob(f"results/reference/{scale}/runs/*/*/*/record.json")]
    started = [datetime.fromisoformat(one.provenance["started"]).timestamp() for one in records]
    spans = sorted((start, start + one.seconds["total"]) for start, one in zip(started, records, strict=True))
    sittings = [list(spans[0])]
    for start, end in spans:
        if start - sittings[-1][1] > PAUSE:
            sittings.append([start, end])
        sittings[-1][1] = max(sittings[-1][1], end)
    hours = sum(one.seconds["total"] for one in records) / 3600
    minutes = " and ".join(f"{(end - start) / 60:.0f}" for start, end in sittings)
    (commit,) = {one.provenance["code"][:7] for one in records}
    several = f" ({len(sittings)} sittings)" * (len(sittings) > 1)
    took = f"{hours:.2f} core hours, in {minutes} minutes{several} on two cores"
    return f"It trained {len(records)} runs at commit {commit}: {took}."


def _base() -> str:
    """Return what STLight-L's base of each kept scale and data set reaches, beside the best trivial predictor."""
    heads = ["scale, data set", "MSE", "MAE", "SSIM / trivial", "seeds", "spread of MSE", "seconds"]
    lines = [heads, ["---"] * len(heads)]
    for scale in reversed(KEPT):
        for dataset in DATASETS:
            paths = sorted(REPOSITORY.glob(f"results/reference/{scale}/runs/{dataset}/stlight_l/*/record.json"))
            if not (records := [read_record(path) for path in paths]):
                continue
            errors = {
                metric: [one.metrics["last"][metric] / min(t[metric] for t in one.trivial.values()) for one in records]
                for metric in ("mse", "mae")
            }
            ssim = statistics.fmean(one.metrics["last"]["ssim"] for one in records)
            trivial = max(t["ssim"] for t in records[0].trivial.values())
            spread = statistics.stdev(errors["mse"]) if len(records) > 1 else math.nan
            seconds = statistics.median(one.seconds["total"] for one in records)
            name = f"`{dataset}`" + " (stand-in)" * (records[0].config.data.source == "stand_in")
            mse, mae = (f"{statistics.fmean(values):.3f}" for values in errors.values())
            known = f"{spread:.3f}" if math.isfinite(spread) else "–"
            numbers = [mse, mae, f"{ssim:.3f} / {trivial:.3f}", str(len(records)), known, f"{seconds:.0f}"]
            lines.append([f"`{scale}`, {name}", *numbers])
    return _markdown(lines)


def _reason(why: str) -> str:
    """Return the part of a verdict's explanation that says what forbids a decision."""
    after = re.search(r"; n = \d+: ([^;]*)", why)
    return after[1] if after else why.split(":")[0]


def _markdown(lines: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _number(claim: Claim, value: float) -> str:
    if not math.isfinite(value):
        return "diverged" if value == math.inf else "–"
    if len(claim.metrics) > 1 or abs(value) < 0.005:
        return f"{value:.2g}"
    # The sign apart, because counts get their K, M or G by size.
    return "-" * (value < 0) + METRICS[claim.metrics[0]].format(abs(value))


def _effect(claim: Claim, row: "pd.Series[float]") -> str:
    labels = [METRICS[name].label for name in claim.metrics]
    unit = f" {labels[0]}" if len(labels) == 1 and math.isfinite(row.effect) else ""
    interval = f" [{_number(claim, row.low)}, {_number(claim, row.high)}]" if math.isfinite(row.low) else ""
    return f"{_number(claim, row.effect)}{unit}{interval}"


if __name__ == "__main__":
    findings = Findings()
    for page in PAGES:
        (REPOSITORY / page).write_text(findings.written(page), encoding="utf-8")
