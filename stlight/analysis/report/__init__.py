"""Build one page that holds everything: verdicts, items, errata, and the runs behind every number. It opens offline."""

import hashlib
import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from stlight.analysis.audit import noise_floor, selection_audit
from stlight.analysis.errata import HEADINGS, as_markdown, errata
from stlight.analysis.escaping import csv, html
from stlight.analysis.evidence import all_records, code_versions
from stlight.analysis.notes import UNLEARNT, about_table
from stlight.analysis.report.forest import Axis, effects
from stlight.analysis.report.pairs import comparisons
from stlight.analysis.report.pictures import embed
from stlight.analysis.report.rows import by_cell, other_scales, recipe_rows, run_rows, scale_rows
from stlight.analysis.rounds import outlook_table, rounds_table
from stlight.analysis.tables import table_blocks
from stlight.analysis.text import settings_text
from stlight.analysis.values import Values
from stlight.analysis.verdicts.findings import BASES, OUTCOMES, Finding, as_table
from stlight.analysis.verdicts.measured import all_findings
from stlight.experiments import Plan
from stlight.registry.metric_specs import METRICS
from stlight.runs.record import SELECTIONS
from stlight.runs.rounds import Round
from stlight.runtime.atomic_files import write_atomically


def write_report(
    plan: Plan, values: Mapping[str, Values], workflow: Path, into: Path, settings: list[str], rounds: Sequence[Round] = ()
) -> None:
    """Write claims.csv, errata.md, noise_floor.csv, selection_audit.csv and report.html from the evidence that exists.

    `settings` are the command-line options, beyond the scale, that repeat a run; `rounds` those of a budget, if there is one.
    """
    findings = all_findings(plan, values)
    found = errata(plan, workflow)
    audits = {name: selection_audit(one) for name, one in values.items()}
    floors = pd.DataFrame(row for one in values.values() for row in noise_floor(one))
    write_atomically(into / "claims.csv", csv(as_table(finding for both in findings for finding in both)))
    write_atomically(into / "errata.md", as_markdown(found))
    write_atomically(into / "noise_floor.csv", csv(floors))
    write_atomically(into / "selection_audit.csv", csv(pd.concat(list(audits.values()))))
    measured = {name: [on_runs for _, on_runs in findings if on_runs.experiment == name] for name in values}
    experiments = sorted((one.experiment for one in values.values()), key=lambda e: (e.section == "-", e.section, e.item))
    claims = sorted(findings, key=lambda both: (both[0].claim.section == "-", both[0].claim.section))
    on_runs = [measured for _, measured in claims]
    of_paper = [finding for both in findings for finding in both if finding.claim.section != "-"]
    records = all_records(one.evidence for one in values.values())
    page = _template().render(
        scale=plan.scale,
        data_sets={config.data.dataset: config.data for config in plan.runs.values()},
        num_runs=len(plan.runs),
        items=[_item(values[e.name], audits[e.name], measured[e.name]) for e in experiments],
        claims=claims,
        tallies={basis: Counter(one.outcome for one in of_paper if one.basis == basis) for basis in BASES},
        readings=_readings(on_runs),
        remedies=Counter(one.remedy for one in of_paper if one.remedy),
        outcomes=OUTCOMES,
        errata=found,
        **_effects(on_runs),
        titles={e.name: f"{e.item}: {e.title}" for e in experiments},
        pairs=comparisons(values[e.name] for e in experiments),
        **_scales(on_runs, into),
        rounds=rounds_table(rounds),
        ended=rounds[-1] if rounds else None,
        outlook=outlook_table(rounds[-1]) if rounds else [],
        runs=run_rows(values[e.name] for e in experiments),
        settings="".join(f" {shlex.quote(text)}" for text in settings),
        versions=code_versions({name: facts for one in values.values() for name, facts in one.evidence.provenance.items()}),
        dirty=sorted(name for name, r in records.items() if "+changes" in str(r.provenance.get("code"))),
    )
    write_atomically(into / "report.html", page)


def _readings(on_runs: Sequence[Finding]) -> dict[str, int]:
    """Return how many readings and sentences the tallies count, and how many sentences of our own they leave out."""
    of_paper = [one for one in on_runs if one.claim.section != "-"]
    trained = [one for one in on_runs if one.basis == "trained"]
    return {
        "of_paper": len(of_paper),
        "sentences": len({one.claim.sentence for one in of_paper}),
        "trained": len([one for one in trained if one.claim.section != "-"]),
        "own": len([one for one in trained if one.claim.section == "-"]),
    }


def _effects(on_runs: Sequence[Finding]) -> dict[str, Any]:
    """Return the rows of the plot of effects, its axis, and the number of sentences about trained runs without an effect."""
    found = effects(on_runs)
    axis = Axis(found)
    return {
        "axis": axis,
        "effects": [axis.row(one) for one in found],
        "shares": {one.finding.claim.id: one.share for one in found},
        "without_effect": len([one for one in on_runs if one.basis == "trained"]) - len(found),
    }


def _scales(on_runs: Sequence[Finding], into: Path) -> dict[str, Any]:
    """Return the verdicts at this scale and those whose results lie beside it."""
    others, problems = other_scales(into)
    here = {one.claim.id: one.outcome for one in on_runs}
    return {"scale_rows": scale_rows(here, others), "other_scales": list(others), "scale_problems": problems}


def _template() -> jinja2.Template:
    loader = jinja2.PackageLoader("stlight.analysis", "report")
    environment = jinja2.Environment(
        loader=loader, autoescape=True, finalize=html, trim_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["slug"] = lambda text: "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
    environment.filters["anchor"] = anchor
    environment.filters["by_cell"] = by_cell
    environment.globals |= {
        "effect": _effect,
        "settings_text": settings_text,
        "metrics": METRICS,
        "headings": HEADINGS,
        "unlearnt_mark": UNLEARNT,
    }
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False, "ensure_ascii": False}
    return environment.get_template("page.html.j2")


def anchor(run: str) -> str:
    """Return eight digits by which links on the page name a run. A page has thousands of them, and names are long."""
    return hashlib.blake2b(run.encode(), digest_size=4).hexdigest()


def _item(values: Values, audit: pd.DataFrame, findings: list[Finding]) -> dict[str, Any]:
    """Return one item of the paper for the page. `findings` are the verdicts on its runs."""
    experiment, evidence = values.experiment, values.evidence
    uncounted = not experiment.train and evidence.unmeasured
    chosen = audit.groupby(["dataset", "metric"], sort=False, as_index=False)
    return {
        "experiment": experiment,
        "findings": findings,
        "waiting": {f"counts of {experiment.name}": "not made yet"} if uncounted else evidence.missing,
        "blocks": [] if uncounted else table_blocks(values),
        "notes": [] if uncounted else about_table(values),
        "cells": values.cells[(values.cells["n"] > 0) & experiment.train].to_dict("index"),
        "audit": chosen.agg(dict.fromkeys(SELECTIONS, "mean") | {"variant": "size"}).to_dict("records"),
        "recipe": recipe_rows(experiment),
        "figure": _picture(evidence.folder, "figures", f"{experiment.name}.svg"),
        "examples": _picture(evidence.folder, "examples", f"{experiment.name}.png"),
    }


def _picture(results: Path, folder: str, name: str) -> str:
    """Return a picture as a data URI, or that of the finished cells while some wait; empty if there is neither."""
    paths = (results / folder / name, results / "unfinished" / folder / name)
    return next((embed(path) for path in paths if path.is_file()), "")


def _effect(finding: Finding) -> str:
    """Return effect and interval in the metric's digits; empty if there is no effect."""
    if not math.isfinite(finding.effect):
        return ""
    metrics = finding.claim.metrics
    show = METRICS[metrics[0]].format if len(metrics) == 1 and abs(finding.effect) >= 0.005 else "{:.3g}".format
    interval = f" ({show(finding.low)} to {show(finding.high)}), 95 % interval" if math.isfinite(finding.low) else ""
    return f"{show(finding.effect)}{interval}"
