"""The runs that are kept for readers fit the experiments as they are. results/README.md says how to renew them."""

import io
import re
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pandas as pd
import pytest

from stlight.analysis.audit import noise_floor, selection_audit
from stlight.analysis.errata import errata
from stlight.analysis.evidence import code_versions, load_evidence
from stlight.analysis.tables import tidy_table
from stlight.analysis.values import Values
from stlight.analysis.verdicts.findings import as_table
from stlight.analysis.verdicts.measured import all_findings
from stlight.experiments import load_plan
from stlight.experiments.field_types import PrintedNumber
from stlight.registry.model_specs import OURS
from stlight.runs.rounds import Round, seeds_after
from tests.conftest import REPOSITORY, WORKFLOW

KEPT = REPOSITORY / "results" / "reference"
AGAIN = "make it again: results/README.md says how"
WORDS = ["sentence", "why"]
each_scale = pytest.mark.parametrize("scale", ["demo", "small"])


@cache
def plan_of(scale, workflow=WORKFLOW):
    """Return the plan, with the seeds that the kept rounds chose, whatever words have changed since."""
    plan = load_plan(workflow, scale, Path("nowhere"))
    paths = sorted((KEPT / scale / "rounds").glob("*.json"), key=lambda path: int(path.stem))
    rounds = [Round.model_validate_json(path.read_text()) for path in paths]
    return plan.for_budget(seeds_after(rounds)) if rounds else plan


@cache
def evidence_of(scale):
    return load_evidence(plan_of(scale), KEPT / scale)


def stale(plan, scale, evidence):
    """Say why kept results do not fit a plan; nothing if they do."""
    missing = [f"{name}: {why}" for one in evidence.values() for name, why in one.missing.items()]
    if missing:
        return missing
    findings = all_findings(plan, {name: Values(one) for name, one in evidence.items()})
    table = as_table(finding for both in findings for finding in both)
    now = pd.read_csv(io.StringIO(table.to_csv(index=False))).drop(columns=WORDS)
    then = pd.read_csv(KEPT / scale / "claims.csv").drop(columns=WORDS)
    then = then[then["experiment"].isin(plan.experiments)].reset_index(drop=True)
    try:
        pd.testing.assert_frame_equal(now, then, rtol=1e-6)
    except AssertionError as error:
        return [f"verdicts: {error}"]
    return []


@each_scale
def test_the_kept_results_fit_the_experiments(scale):
    evidence = evidence_of(scale)
    assert stale(plan_of(scale), scale, evidence) == [], AGAIN
    kept = {str(path.parent.relative_to(KEPT / scale / "runs")) for path in (KEPT / scale).glob("runs/*/*/*/record.json")}
    assert kept == plan_of(scale).runs.keys(), f"runs of no experiment; {AGAIN}"
    for one in evidence.values():
        one.check_complete()


@each_scale
def test_the_kept_tables_audits_and_errata_are_made_from_the_kept_records(scale):
    for name, one in evidence_of(scale).items():
        now = pd.read_csv(io.StringIO(tidy_table(Values(one)).to_csv(index=False)))
        pd.testing.assert_frame_equal(now, pd.read_csv(KEPT / scale / "tables" / f"{name}.csv"), rtol=1e-6, obj=name)
    values = [Values(one) for one in evidence_of(scale).values()]
    floors = pd.DataFrame(row for one in values for row in noise_floor(one))
    audits = pd.concat([selection_audit(one) for one in values])
    for name, table in {"noise_floor": floors, "selection_audit": audits}.items():
        now = pd.read_csv(io.StringIO(table.to_csv(index=False)))
        pd.testing.assert_frame_equal(now, pd.read_csv(KEPT / scale / f"{name}.csv"), rtol=1e-6, obj=name)
    listed = re.findall(r"^- `(\w\S*)`$", (KEPT / scale / "errata.md").read_text(), re.MULTILINE)
    assert listed == [one.id for one in errata(plan_of(scale), WORKFLOW)], AGAIN


@each_scale
def test_the_kept_page_shows_the_kept_verdicts(scale):
    page = (KEPT / scale / "report.html").read_text()
    shown = {
        name: (printed, runs)
        for name, printed, runs in re.findall(
            r'id="claim-(\w+)" data-section="[^"]*" data-printed="([^"]*)" data-runs="([^"]*)"', page
        )
    }
    claims = pd.read_csv(KEPT / scale / "claims.csv").pivot(index="id", columns="source", values="verdict")
    assert shown == {row.Index: (row.published, row.measured) for row in claims.itertuples()}, AGAIN
    assert 'id="scales"' in page, f"verdicts of both scales; {AGAIN}"


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("The optimal strategy is the Hybrid initialization", "Hybrid is best", None),
        ("Beside Kaiming-Normal.", "Beside the normal scheme.", None),
        ("base: {max_lr: 0.001}", "base: {max_lr: 0.002}", "waiting"),
        (
            "{this: {initialization: hybrid}, than: {initialization: kaiming_uniform}}",
            "{this: {initialization: kaiming_uniform}, than: {initialization: hybrid}}",
            "verdicts",
        ),
    ],
)
def test_words_make_nothing_stale_but_other_runs_and_claims_do(tmp_path, old, new, why):
    workflow = Path(shutil.copytree(WORKFLOW, tmp_path / "workflow"))
    path = workflow / "experiments" / "figure1_initialization.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    plan = plan_of("demo", workflow)
    plan = replace(plan, experiments={path.stem: plan.experiments[path.stem]})
    found = stale(plan, "demo", load_evidence(plan, KEPT / "demo"))
    assert (why in " ".join(found)) if why else (found == [])


@each_scale
def test_one_clean_commit_made_it(scale):
    made = {name: facts for one in evidence_of(scale).values() for name, facts in one.provenance.items()}
    assert len(code_versions(made)) == 1
    assert not any("+changes" in facts["code"] for facts in made.values())


@each_scale
def test_table_2_is_counted_as_it_is_printed(scale):
    """To the printed digit, but for STLight-L and PredNet, whose printed FLOPs are other counts (errata)."""
    table = pd.read_csv(KEPT / scale / "tables" / "table2_openstl.csv").set_index(["model", "metric"])
    models = set(table.index.get_level_values("model")) - {OURS}
    assert len(models) == 11
    for model in models:
        flops, parameters = table.loc[(model, "benchmark_flops")], table.loc[(model, "num_params")]
        printed = PrintedNumber(flops["printed"])
        assert (abs(flops["measured"] - printed.value) <= printed.half_unit) == (model != "PredNet"), AGAIN
        assert parameters["measured"] == pytest.approx(parameters["published"], rel=0.01), AGAIN


@each_scale
def test_all_that_readers_look_at_is_there_and_small(scale):
    for name in plan_of(scale).experiments:
        for path in (f"tables/{name}.md", f"tables/{name}.csv", f"figures/{name}.png", f"figures/{name}.svg"):
            assert (KEPT / scale / path).is_file(), AGAIN
    for name in ("report.html", "errata.md", "noise_floor.csv", "selection_audit.csv"):
        assert (KEPT / scale / name).is_file(), AGAIN
    assert (KEPT / scale / "report.html").stat().st_size < 2e6
    # Kept in git: weights and example clips are not.
    kinds = (".html", ".csv", ".json", ".md", ".png", ".svg", ".tex", ".pdf")
    assert sum(p.stat().st_size for p in (KEPT / scale).rglob("*") if p.suffix in kinds) < 20e6
