"""A budget of core hours as its users spend it: a real Snakemake adds runs in rounds, resumes after a kill, and stops."""

import json
import os
import re
import signal
import subprocess
import time

import pandas as pd
import pytest

from stlight.runs.rounds import Round
from tests.system.workflow.calls import SNAKEMAKE, copy_of_repository, experiment, run_cli, snakemake

CLAIM = "claims: [{id: mine, sentence: It is so., metric: mse, better: {this: {k1: 3}, than: {k1: 5}}}]"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """One experiment with a sentence about two cells, which initial weights decide after a single step, and one without."""
    folder = copy_of_repository(tmp_path_factory.mktemp("budget") / "repository")
    experiment(folder, "kernels", f"grid: {{k1: [3, 5, 7]}}\n{CLAIM}")
    experiment(folder, "depths", "grid: {depth: [8]}")
    scale = folder / "workflow" / "scales" / "smoke.yaml"
    scale.write_text(scale.read_text().replace("max_seeds: 1", "looks: [2, 3, 4]"))
    return folder


def spend(repository, work, hours, *arguments, ok=True):
    settings = ("--config", "scale=smoke", *([f"hours={hours}"] if hours else []), *arguments)
    return snakemake(*settings, cwd=work, snakefile=repository / "Snakefile", ok=ok)


def rounds_in(work):
    paths = sorted((work / "results" / "smoke" / "rounds").glob("*.json"), key=lambda path: int(path.stem))
    return [Round.model_validate(json.loads(path.read_text())) for path in paths]


def runs_in(work):
    """Return the time of each record by the run's name."""
    runs = work / "results" / "smoke" / "runs"
    return {str(path.parent.relative_to(runs)): path.stat().st_mtime_ns for path in runs.glob("*/*/*/record.json")}


def test_rounds_add_runs_until_the_sentence_is_settled_or_hopeless(repository, tmp_path):
    spend(repository, tmp_path, 1)
    first, *_, last = rounds_in(tmp_path)
    claimed, others = ("mmnist/stlight_l", "mmnist/k1=5"), ("mmnist/k1=7", "mmnist/depth=8")
    assert first.seeds == dict.fromkeys(claimed, 2)
    assert last.stop == "settled"
    assert not last.seeds
    seeds = {cell: count for found in rounds_in(tmp_path) for cell, count in found.seeds.items()}
    # When no look can be bought any more, the other cells get a run for the table.
    assert {cell: seeds[cell] for cell in others} == dict.fromkeys(others, 1)
    assert runs_in(tmp_path).keys() == {f"{cell}/seed{k}" for cell, count in seeds.items() for k in range(count)}
    table = pd.read_csv(tmp_path / "results" / "smoke" / "tables" / "kernels.csv").set_index("k1")
    assert dict(table["n"]) == {3: seeds["mmnist/stlight_l"], 5: seeds["mmnist/k1=5"], 7: 1}
    assert last.reason in (tmp_path / "results" / "smoke" / "report.html").read_text()
    assert "Nothing to be done" in spend(repository, tmp_path, 1)
    status = run_cli("status", "--scale", "smoke", "--rounds", "--workflow", repository / "workflow", cwd=tmp_path).stdout
    assert f"scale smoke: {sum(seeds.values())} runs" in status
    # Without a budget, seeds are as the scale states them.
    spend(repository, tmp_path, None)
    assert set(pd.read_csv(tmp_path / "results" / "smoke" / "tables" / "kernels.csv")["n"]) == {1}


def test_after_a_kill_the_same_command_goes_on(repository, tmp_path):
    command = [SNAKEMAKE, "--cores", "1", "-s", repository / "Snakefile", "--config", "scale=smoke", "hours=1"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, **quiet)
    deadline = time.monotonic() + 600
    while len(runs_in(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    first, kept = rounds_in(tmp_path)[0], runs_in(tmp_path)
    assert len(kept) >= 2
    spend(repository, tmp_path, 1, "--unlock")
    spend(repository, tmp_path, 1)
    assert rounds_in(tmp_path)[0] == first
    assert rounds_in(tmp_path)[-1].stop == "settled"
    assert kept.items() <= runs_in(tmp_path).items()


def test_a_spent_budget_stops_and_a_larger_one_goes_on(repository, tmp_path):
    # Starting a process alone is estimated to take three seconds.
    spend(repository, tmp_path, 0.0005)
    (first,) = rounds_in(tmp_path)
    assert (first.stop, first.seeds, runs_in(tmp_path)) == ("budget", {}, {})
    assert "another core hour is expected to settle" in first.reason
    table = tmp_path / "results" / "smoke" / "tables" / "kernels.csv"
    assert "waiting" in set(pd.read_csv(table)["status"])
    assert re.search("fits? into the budget", (tmp_path / "results" / "smoke" / "claims.csv").read_text())
    spend(repository, tmp_path, 1)
    again = rounds_in(tmp_path)
    assert (again[0].hours, again[-1].stop) == (1, "settled")
    # Another grid is another plan: the rounds start again, and runs that still fit are kept.
    before = runs_in(tmp_path)
    experiment(repository, "kernels", f"grid: {{k1: [3, 5, 9]}}\n{CLAIM}")
    spend(repository, tmp_path, 1)
    assert any("mmnist/k1=9" in found.seeds for found in rounds_in(tmp_path))
    assert before.items() <= runs_in(tmp_path).items()
    # A larger budget than needed changes nothing.
    assert "Nothing to be done" in spend(repository, tmp_path, 2)
