"""The order in which a real Snakemake starts runs."""

import json

from tests.system.workflow.calls import copy_of_repository, experiment, snakemake


def test_long_runs_start_before_short_ones(tmp_path):
    folder = copy_of_repository(tmp_path / "repository")
    experiment(folder, "epochs", "grid: {num_epochs: [400, 2000, 200]}")
    snakemake("--cores", "1", "--until", "train", "--config", "scale=smoke", cwd=tmp_path, snakefile=folder / "Snakefile")
    records = [json.loads(path.read_text()) for path in (tmp_path / "results" / "smoke").glob("runs/*/*/seed0/record.json")]
    records.sort(key=lambda record: record["provenance"]["started"])
    assert [record["config"]["training"]["num_epochs"] for record in records] == [10, 2, 1]
