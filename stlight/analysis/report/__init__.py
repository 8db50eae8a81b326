"""Build one page that holds everything: verdicts, items, errata, and the runs behind every number. It opens offline."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from stlight.analysis.audit import noise_floor, selection_audit
from stlight.analysis.errata import HEADINGS, as_markdown, errata
from stlight.analysis.evidence import all_records, code_versions
from stlight.analysis.report.views import effect_text, item_view, run_view
from stlight.analysis.values import Values
from stlight.analysis.verdicts.findings import Finding, as_table
from stlight.analysis.verdicts.judging import VERDICTS
from stlight.analysis.verdicts.measured import all_findings
from stlight.experiments import Plan
from stlight.runtime.atomic_files import write_atomically

Findings = list[tuple[Finding, Finding]]


def write_report(plan: Plan, values: Mapping[str, Values], workflow: Path, into: Path, settings: list[str]) -> None:
    """Write claims.csv, errata.md, noise_floor.csv, selection_audit.csv and report.html from the evidence that exists.

    `settings` are the command-line options, beyond the scale, that repeat a run.
    """
    findings = all_findings(plan, values)
    found = errata(plan, workflow)
    audits = {name: selection_audit(one) for name, one in values.items()}
    floors = pd.DataFrame(row for one in values.values() for row in noise_floor(one))
    write_atomically(into / "claims.csv", as_table(finding for both in findings for finding in both).to_csv(index=False))
    write_atomically(into / "errata.md", as_markdown(found))
    write_atomically(into / "noise_floor.csv", floors.to_csv(index=False))
    write_atomically(into / "selection_audit.csv", pd.concat(list(audits.values())).to_csv(index=False))
    content = _content(plan, values, findings, audits, settings)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("stlight.analysis", "report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["slug"] = lambda text: "".join(c if c.isalnum() or c in "-_" else "-" for c in text)
    environment.globals["effect"] = effect_text
    write_atomically(
        into / "report.html", environment.get_template("page.html.j2").render(content, errata=found, headings=HEADINGS)
    )


def _content(
    plan: Plan, values: Mapping[str, Values], findings: Findings, audits: Mapping[str, pd.DataFrame], settings: list[str]
) -> dict[str, Any]:
    """Return the variables of the page's template."""
    evidence = {name: one.evidence for name, one in values.items()}
    records = all_records(evidence.values())
    of_runs = {name: one for one in evidence.values() for name in one.runs}
    measured = {name: [both[1] for both in findings if both[1].experiment == name] for name in values}
    items = [item_view(one, audits[name], measured[name]) for name, one in values.items()]
    counted = [both for both in findings if both[0].claim.section != "-"]
    return {
        "scale": plan.scale,
        "data_sets": {config.data.dataset: config.data for config in plan.runs.values()},
        "num_runs": len(plan.runs),
        "items": sorted(items, key=lambda i: (i.experiment.section == "-", i.experiment.section, i.experiment.item)),
        "claims": findings,
        "tallies": {
            "published": Counter(published.verdict for published, _ in counted),
            "measured": Counter(measured.verdict for _, measured in counted),
        },
        "verdicts": VERDICTS,
        "runs": [run_view(name, of_runs[name], settings) for name in sorted(records)],
        "versions": code_versions(records.values()),
        "dirty": sorted(name for name, r in records.items() if "+changes" in str(r.provenance.get("code"))),
    }
