"""From the network to Table 1: small files in the exact formats of the real ones, published on localhost."""

import json
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from stlight.experiments import load_plan
from stlight.runs.record import read_record
from tests.conftest import REPOSITORY
from tests.data.fetching.web import serving
from tests.data.real_files import publish
from tests.system.workflow.calls import copy_of_repository, counts, snakemake

SCALE = """
summary: The benchmark's files, tiny
base: {hidden_dim: 16, depth: 2, patch_size: 2, batch_size: 4, num_epochs: 16, max_lr: 0.01}
data:
  mmnist: {source: files, clips_per_epoch: 8, validation_clips: 2, test_clips: 6}
  mfmnist: {source: files, clips_per_epoch: 8, validation_clips: 2, test_clips: 6}
  taxibj: {source: files, clips_per_epoch: 24, validation_clips: 6, test_clips: 6}
  kth: {source: files, clips_per_epoch: 4, validation_clips: 2, test_clips: 6}
baselines: {baseline_width: 0.1, baseline_depth: 0.1, max_lr: {}}
seeds: 1
"""


@pytest.fixture(scope="module")
def site():
    with pytest.MonkeyPatch.context() as environment, serving() as the_site:
        environment.setenv("NO_PROXY", "127.0.0.1")
        environment.setenv("no_proxy", "127.0.0.1")
        yield the_site


@pytest.fixture(scope="module")
def repository(tmp_path_factory, site):
    """Copy the workflow with Table 1 alone, and let it fetch from the local site."""
    folder = copy_of_repository(tmp_path_factory.mktemp("real") / "repository", keep=["table1_literature"])
    (folder / "workflow" / "scales" / "real.yaml").write_text(SCALE)
    table = folder / "workflow" / "experiments" / "table1_literature.yaml"
    table.write_text(table.read_text().replace("num_epochs: [2000]", "num_epochs: [200]"))
    publish(site, folder.parent / "there", folder / "workflow", np.random.default_rng(0))
    return folder


def errors(table):
    """Return the rows of STLight-L's error metrics by data set."""
    return table[(table["model"] == "STLight-L") & table["metric"].isin(["mse", "mse_x100", "ssim"])].set_index("dataset")


def run(repository, *arguments, ok=True):
    settings = ("--config", "scale=real", *arguments)
    return snakemake(*settings, cwd=repository.parent, snakefile=repository / "Snakefile", ok=ok)


def test_without_one_data_set_the_other_columns_are_filled_and_what_waits_is_listed(repository, site):
    site.status["/kth/kth_action.zip"] = 404
    output = run(repository, ok=False)
    assert "put kth_action.zip there by hand, at data/kth_action.zip" in output
    out = repository.parent / "results" / "real"
    table = pd.read_csv(out / "unfinished" / "tables" / "table1_literature.csv")
    ours = errors(table)
    assert dict(ours["status"]) == {"mmnist": "done", "taxibj": "done", "kth": "waiting"}
    assert np.isfinite(ours.loc[["mmnist", "taxibj"], "measured"]).all()
    words = "kth waits for data/kth/boxing: python -m stlight fetch kth"
    assert words in (out / "unfinished" / "tables" / "table1_literature.md").read_text()
    assert words in (out / "report.html").read_text()


def test_all_of_table_1_comes_from_the_files(repository, site):
    site.status.clear()
    run(repository)
    out = repository.parent / "results" / "real"
    table = pd.read_csv(out / "tables" / "table1_literature.csv")
    ours = errors(table)
    assert dict(ours["status"]) == dict.fromkeys(("mmnist", "taxibj", "kth"), "done")
    assert set(ours["data"]) == {"benchmark files"}
    record = read_record(out / "runs" / "taxibj" / "stlight_l" / "seed0" / "record.json")
    assert ours.loc["taxibj", "measured"] == pytest.approx(100 * record.metrics["last"]["mse"])
    assert record.provenance["data"]["frames"]["test"]["file"] == "prepared/taxibj-files.npy"
    # TaxiBJ has a schedule of its own: four epochs, too few for a warm-up epoch; the cosine does not reach its floor.
    history = pd.read_csv(out / "runs" / "taxibj" / "stlight_l" / "seed0" / "history.csv")
    fall = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4))
    floor = 1e-6 * 0.01 / 0.003
    assert history["learning_rate"].to_numpy() == pytest.approx(floor + fall * (0.01 - floor))
    assert "Nothing to be done" in run(repository)


def test_checksums_of_the_first_fetch_are_recorded(repository):
    lock = json.loads((repository / "workflow" / "data.lock.json").read_text())
    assert {"taxibj/dataset.npz", "kth"} <= set(lock)


def test_a_file_that_changes_later_stops_the_workflow_before_any_training(repository):
    path = repository.parent / "data" / "taxibj" / "dataset.npz"
    content = path.read_bytes()
    path.write_bytes(content + b"!")
    for _ in range(2):
        assert "is not the published one" in run(repository, ok=False)
    path.write_bytes(content)
    jobs = counts(run(repository))
    # The restored file is verified and prepared again, and the run's outputs are restored.
    assert jobs["fetch"] == jobs["prepare"] == 1
    plan = load_plan(repository / "workflow", "real", repository.parent / "data")
    config = plan.run("taxibj/stlight_l/seed0")
    record = read_record(repository.parent / "results" / "real" / "runs" / "taxibj" / "stlight_l" / "seed0" / "record.json")
    assert record.config_hash == config.hash


def test_a_custom_data_set_is_trained_and_scored(tmp_path):
    """Run the example of docs/data.md."""
    folder = copy_of_repository(tmp_path / "repository")
    page = (REPOSITORY / "docs" / "data.md").read_text()
    (code,), (lines,) = (re.findall(rf"```{kind}\n(.*?)```", page, re.DOTALL) for kind in ("python", "yaml"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    (folder / "workflow" / "experiments" / "balls.yaml").write_text(lines)
    settings = {"cwd": tmp_path, "snakefile": folder / "Snakefile"}
    snakemake("--config", "scale=smoke", **settings)
    table = pd.read_csv(tmp_path / "results" / "smoke" / "tables" / "balls.csv")
    assert set(table["status"]) == {"done"}
    assert set(table["data"]) == {"custom files"}
    assert np.isfinite(table["measured"]).all()
    # Changed clips are prepared and trained again.
    clips = np.load(tmp_path / "data" / "balls" / "test.npy")
    np.save(tmp_path / "data" / "balls" / "test.npy", clips[:, ::-1].copy())
    jobs = counts(snakemake("--config", "scale=smoke", **settings))
    assert (jobs["prepare"], jobs["train"]) == (1, 2)
    again = pd.read_csv(tmp_path / "results" / "smoke" / "tables" / "balls.csv")
    assert (again["measured"] != table["measured"]).any()
