"""The run that is kept for readers fits the experiments as they are. If not: results/README.md says how to make it anew."""

import io

import pandas as pd
import pytest

from stlight.analysis.aggregate import load_history, load_records, versions
from stlight.analysis.verdicts.ledger import as_table, ledger
from stlight.experiments.yaml_files import half_unit
from stlight.registry.model_specs import OURS
from tests.conftest import REPOSITORY

REFERENCE = REPOSITORY / "results" / "reference" / "demo"
AGAIN = "make it again: results/README.md says how"


@pytest.fixture(scope="module")
def records(demo):
    return {name: r for e in demo.experiments.values() for name, r in load_records(e, REFERENCE).items()}


def test_every_run_is_there_as_it_is_configured_now(demo, records):
    assert records.keys() == demo.runs.keys(), AGAIN
    kept = {str(path.parent.relative_to(REFERENCE / "runs")) for path in REFERENCE.glob("runs/*/*/*/record.json")}
    assert kept == records.keys(), f"runs of no experiment; {AGAIN}"
    for record in records.values():
        assert len(load_history(record, REFERENCE)) >= 1


def test_it_was_made_from_one_clean_commit(records):
    assert len(versions(records)) == 1
    assert not any("+changes" in record.provenance["code"] for record in records.values())


def test_its_verdicts_are_those_of_the_code_and_the_experiments_as_they_are(demo):
    now = pd.read_csv(io.StringIO(as_table(ledger(demo, REFERENCE)).to_csv(index=False)))
    pd.testing.assert_frame_equal(now, pd.read_csv(REFERENCE / "claims.csv"), rtol=1e-6)


def test_table_2_is_counted_as_it_is_printed():
    """To the printed digit, but for STLight-L and PredNet, whose printed FLOPs are other counts (errata)."""
    table = pd.read_csv(REFERENCE / "tables" / "table2_openstl.csv").set_index(["model", "metric"])
    models = set(table.index.get_level_values("model")) - {OURS}
    assert len(models) == 11
    for model in models:
        flops, parameters = table.loc[(model, "benchmark_flops")], table.loc[(model, "num_params")]
        assert (abs(flops["measured"] - flops["published"]) <= half_unit(flops["printed"])) == (model != "PredNet"), AGAIN
        assert parameters["measured"] == pytest.approx(parameters["published"], rel=0.01), AGAIN


def test_all_that_readers_look_at_is_there_and_small(demo):
    for name in demo.experiments:
        for path in (f"tables/{name}.md", f"tables/{name}.csv", f"figures/{name}.png", f"figures/{name}.svg"):
            assert (REFERENCE / path).is_file(), AGAIN
    for name in ("report.html", "errata.md", "noise_floor.csv", "selection_audit.csv"):
        assert (REFERENCE / name).is_file(), AGAIN
    # Kept in git: weights and example clips are not.
    committed = [
        p for p in REFERENCE.rglob("*") if p.suffix in (".html", ".csv", ".json", ".md", ".png", ".svg", ".tex", ".pdf")
    ]
    assert sum(path.stat().st_size for path in committed) < 20e6
