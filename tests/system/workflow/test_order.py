"""The order in which a real Snakemake starts jobs."""

import re

from tests.system.workflow.calls import copy_of_repository, experiment, snakemake


def test_long_runs_start_before_short_ones(tmp_path):
    folder = copy_of_repository(tmp_path / "repository")
    experiment(folder, "epochs", "grid: {num_epochs: [400, 2000, 1000]}")
    arguments = ("--cores", "1", "--until", "train", "--config", "scale=smoke")
    output = snakemake(*arguments, cwd=tmp_path, snakefile=folder / "Snakefile")
    assert re.findall(r"wildcards: .*variant=.*?epochs=(\d+)", output) == ["2000", "1000", "400"]


def test_what_takes_all_cores_starts_before_all_that_could_run_together(tmp_path):
    folder = copy_of_repository(tmp_path / "repository")
    experiment(folder, "digits", "grid: {k1: [3]}")
    experiment(folder, "traffic", "grid: {dataset: [taxibj], k1: [3, 5]}")
    path = folder / "workflow" / "experiments" / "digits.yaml"
    path.write_text(path.read_text().replace("metrics: [mse]", "metrics: [mse, num_params, epoch_seconds]"))
    # On four cores, digits are prepared, multiply-adds counted, and two runs of traffic trained, at the same time.
    output = snakemake("--cores", "4", "--config", "scale=smoke", cwd=tmp_path, snakefile=folder / "Snakefile")
    started = re.findall(r"^localrule (\w+):", output, re.MULTILINE)
    assert started[0] == "measure"
    assert set(started[1:5]) == {"prepare", "count", "train"}
