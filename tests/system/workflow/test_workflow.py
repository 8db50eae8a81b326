"""The workflow as its users call it: a real Snakemake, on a small copy of the experiments.

The tests share one results folder and run in this order.
"""

import os
import re
import subprocess

import pandas as pd
import pytest

from stlight.runs.record import OUTPUTS, read_record, write_record
from tests.conftest import REPOSITORY
from tests.system.workflow.calls import SNAKEMAKE, again, copy_of_repository, counts, experiment, run_cli, snakemake


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The workflow with two small experiments, in a folder whose name has a space."""
    folder = copy_of_repository(tmp_path_factory.mktemp("with space") / "repository")
    experiment(folder, "kernels", "grid: {k1: [3, 5]}")
    experiment(folder, "seeds", "grid: {decoder: [shuffle_reassemble]}\nseeds: 1")
    return folder


@pytest.fixture(scope="module")
def finished(repository):
    """The small workflow, run once from another folder."""
    work = repository.parent / "elsewhere"
    work.mkdir()
    snakemake("--config", "scale=smoke", cwd=work, snakefile=repository / "Snakefile")
    return work


def test_every_output_is_there_and_runs_are_shared(finished):
    out = finished / "results" / "smoke"
    runs = sorted(str(path.relative_to(out / "runs").parent) for path in out.glob("runs/*/*/*/record.json"))
    assert runs == ["mmnist/k1=5/seed0", "mmnist/stlight_l/seed0"]
    for name in ("kernels", "seeds"):
        assert {path.suffix for path in out.glob(f"tables/{name}.*")} == {".csv", ".md", ".tex"}
        assert {path.suffix for path in out.glob(f"figures/{name}.*")} == {".png", ".svg", ".pdf"}
        assert {path.suffix for path in out.glob(f"examples/{name}.*")} == {".png", ".svg"}
    for name in ("report.html", "claims.csv", "errata.md", "noise_floor.csv", "selection_audit.csv"):
        assert (out / name).stat().st_size > 0
    table = pd.read_csv(out / "tables" / "kernels.csv")
    record = read_record(out / "runs" / "mmnist" / "k1=5" / "seed0" / "record.json")
    assert table.set_index("k1").loc[5, "measured"] == pytest.approx(record.metrics["last"]["mse"])


def test_snakemake_s_own_report_holds_the_page(repository, finished):
    again(repository, finished, "--report", "snakemake.html")
    text = (finished / "snakemake.html").read_text()
    for name in ("report.html", "claims.csv", "kernels.png", "seeds.csv"):
        assert name in text


def test_a_second_call_does_nothing(repository, finished):
    assert "Nothing to be done" in again(repository, finished)
    # A changed shell command is no reason to train again.
    path = repository / "workflow" / "rules" / "train.smk"
    path.write_text(path.read_text().replace(' --threads {threads}"', '  --threads {threads}"'))
    assert "Nothing to be done" in again(repository, finished)


def test_every_deleted_output_is_made_again_or_put_back(repository, finished):
    out = finished / "results" / "smoke"
    history = out / "runs" / "mmnist" / "k1=5" / "seed0" / "history.csv"
    deleted = [history, *(out / name for name in ("claims.csv", "errata.md", "noise_floor.csv", "selection_audit.csv"))]
    before = [path.read_bytes() for path in deleted]
    for path in deleted:
        path.unlink()
    output = again(repository, finished)
    assert (counts(output)["report"], "train" in counts(output)) == (1, False)
    assert [path.read_bytes() for path in deleted] == before


def test_jobs_import_nothing_from_the_current_folder(repository, tmp_path):
    for name in ("random.py", "stlight.py"):
        (tmp_path / name).write_text("raise SystemExit('imported from the current folder')\n")
    snakemake("data/prepared/mmnist-embedded.npz", "--config", "scale=smoke", cwd=tmp_path, snakefile=repository / "Snakefile")


def test_a_changed_grid_trains_only_the_new_runs(repository, finished):
    before = {path: path.stat().st_mtime_ns for path in finished.glob("results/smoke/runs/*/*/*/record.json")}
    experiment(repository, "kernels", "grid: {k1: [3, 5, 7]}")
    experiment(repository, "added", "grid: {skip: [true, false]}")
    assert counts(again(repository, finished, "-n"))["train"] == 2
    again(repository, finished)
    after = {path: path.stat().st_mtime_ns for path in finished.glob("results/smoke/runs/*/*/*/record.json")}
    assert {path.parts[-3] for path in after.keys() - before.keys()} == {"k1=7", "skip=false"}
    assert all(after[path] == time for path, time in before.items())
    assert (finished / "results" / "smoke" / "tables" / "added.md").exists()
    assert "Nothing to be done" in again(repository, finished)


def test_a_changed_configuration_trains_again(repository, finished):
    scale = repository / "workflow" / "scales" / "smoke.yaml"
    text = scale.read_text()
    scale.write_text(text.replace("max_lr: 0.03", "max_lr: 0.06"))
    assert counts(again(repository, finished, "-n"))["train"] >= 2
    scale.write_text(text)
    assert "Nothing to be done" in again(repository, finished, "-n")


def test_a_wrong_setting_is_reported_before_anything_starts(repository, tmp_path):
    output = snakemake("--config", "scale=dmeo", cwd=tmp_path, snakefile=repository / "Snakefile", ok=False)
    assert "no scale 'dmeo'; the scales are demo, gpu, paper, small, smoke" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_a_wrong_experiment_is_reported_before_anything_starts(repository, tmp_path):
    experiment(repository, "wrong", "grid: {k1: [4]}")
    try:
        output = snakemake(cwd=tmp_path, snakefile=repository / "Snakefile", ok=False)
    finally:
        (repository / "workflow" / "experiments" / "wrong.yaml").unlink()
    assert re.search(r"wrong\.yaml: at k1 = 4: kernel_sizes \(k1\) must be odd, got 4", output)
    assert "Traceback" not in output


def test_the_dag_of_scale_paper_has_the_runs_of_the_supplement(tmp_path):
    output = snakemake("--config", "scale=paper", "-n", cwd=tmp_path, snakefile=REPOSITORY / "Snakefile")
    jobs = counts(output)
    assert jobs["train"] == 171
    assert jobs["analyse"] + jobs["analyse_counts"] == 13


def test_directory_option_puts_results_there(repository, tmp_path):
    output = snakemake("-d", tmp_path, "--config", "scale=smoke", "-n", cwd=repository)
    assert counts(output)["train"] >= 2


def test_missing_benchmark_files_stop_with_one_clear_line(repository, tmp_path):
    output = snakemake("--config", "scale=paper", cwd=tmp_path, snakefile=repository / "Snakefile", ok=False)
    assert "put train-images-idx3-ubyte.gz (MD5 f68b3c2dcbeaaa9fbdd348bbdeb94873) there by hand" in output


def test_only_what_is_timed_is_measured(repository, finished):
    assert "measure" not in counts(again(repository, finished, "-n", "--forceall"))
    path = repository / "workflow" / "experiments" / "timed.yaml"
    experiment(repository, "timed", "grid: {k1: [3, 5]}")
    path.write_text(path.read_text().replace("metrics: [mse]", "metrics: [mse, epoch_seconds, peak_memory]"))
    planned = counts(again(repository, finished, "-n"))
    assert (planned["measure"], planned["analyse"]) == (1, 1)
    # All its runs are recorded, but it is incomplete without its times.
    arguments = ("--scale", "smoke", "--workflow", repository / "workflow")
    refused = run_cli("analyse", "timed", "--complete", *arguments, cwd=finished)
    assert refused.returncode == 1
    assert "speed/timed.json is missing: python -m stlight measure timed" in refused.stderr
    assert "timed: results/smoke/speed/timed.json is missing" in run_cli("waiting", *arguments, cwd=finished).stdout
    output = again(repository, finished)
    # It takes all cores, so that no job runs beside it.
    assert re.search(r"rule measure:(?:\n +.*)*\n +threads: 2\n", output)
    table = pd.read_csv(finished / "results" / "smoke" / "tables" / "timed.csv").set_index(["k1", "metric"])
    assert set(table["status"]) == {"done", "measured"}
    assert (table.loc[[(3, "peak_memory"), (5, "peak_memory")], "measured"] > 2**17).all()
    assert "Nothing to be done" in again(repository, finished)
    path.unlink()


def test_status_shows_every_run(repository, finished, demo):
    done = run_cli("status", "--scale", "smoke", "--workflow", repository / "workflow", cwd=finished)
    assert re.search(r"mmnist/k1=5/seed0 +done", done.stdout)
    assert re.search(r"scale smoke: (\d+) runs: \1 done", done.stdout)
    elsewhere = run_cli("status", "--scale", "demo", cwd=finished)
    assert f"{len(demo.runs)} runs: {len(demo.runs)} waiting" in elsewhere.stdout


@pytest.fixture
def broken(repository, tmp_path, monkeypatch):
    """A work folder in which the process of one run kills itself at each start."""
    experiment(repository, "fails", "grid: {k1: [3, 9]}")
    code = """
import os, pathlib, signal, sys
if "mmnist/k1=9/seed0" in sys.orig_argv and "train" in sys.orig_argv and not pathlib.Path("mended").exists():
    print("started", file=open("tries", "a"))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    yield tmp_path
    (repository / "workflow" / "experiments" / "fails.yaml").unlink()


def test_after_a_run_fails_for_good_the_rest_is_finished_and_what_waits_is_listed(repository, broken):
    output = again(repository, broken, ok=False)
    assert (broken / "tries").read_text().count("started") == 3
    assert "fails: 1 of its 2 runs are not there" in output
    assert re.search(
        r"mmnist/k1=9/seed0: waiting: ended without a word in results/smoke/logs/train/mmnist/k1=9/seed0.log", output
    )
    out = broken / "results" / "smoke"
    assert {path.stem for path in out.glob("tables/*.csv")} == {"kernels", "seeds", "added"}
    table = pd.read_csv(out / "unfinished" / "tables" / "fails.csv").set_index("k1")
    assert (table.loc[3, "status"], table.loc[9, "status"]) == ("done", "waiting")
    text = (out / "unfinished" / "tables" / "fails.md").read_text()
    assert "Not there yet: mmnist/k1=9/seed0: waiting: ended without a word" in text
    page = (out / "report.html").read_text()
    assert "mmnist/k1=9/seed0: waiting: ended without a word" in page
    # Its figure shows the cells that have a record.
    assert page.count("data:image/svg+xml") == 4
    assert run_cli(
        "analyse", "fails", "--complete", "--scale", "smoke", "--workflow", repository / "workflow", cwd=broken
    ).returncode
    # Once the cause is mended, a second call does only what is left.
    (broken / "mended").write_text("")
    assert counts(again(repository, broken, "-n"))["train"] == 1
    again(repository, broken)
    assert "Not there yet" not in (out / "tables" / "fails.md").read_text()
    assert list((out / "unfinished").glob("*/*")) == []
    assert "waiting" not in (out / "report.html").read_text().partition("<main>")[2].lower()
    assert "Nothing to be done" in again(repository, broken)


def test_a_damaged_record_is_set_aside_and_its_run_trained_again(repository, finished):
    path = finished / "results" / "smoke" / "runs" / "mmnist" / "k1=5" / "seed0" / "record.json"
    before = read_record(path).metrics
    content = path.read_text()
    path.write_text(content.replace('"mse": ', '"mse": 1'))
    analysed = run_cli(
        "analyse", "kernels", "--complete", "--scale", "smoke", "--workflow", repository / "workflow", cwd=finished
    )
    assert "runs have no record: mmnist/k1=5/seed0: damaged: " in analysed.stderr
    output = again(repository, finished)
    assert "record.json is not a valid record: its content does not have the checksum it states; set aside" in output
    assert read_record(path).metrics == before
    assert "Nothing to be done" in again(repository, finished)


def test_records_of_several_code_versions_are_mixed_only_on_request(repository, finished):
    path = finished / "results" / "smoke" / "runs" / "mmnist" / "k1=5" / "seed0" / "record.json"
    table = finished / "results" / "smoke" / "tables" / "kernels.csv"
    record = read_record(path)
    other = record.model_copy(update={"provenance": record.provenance | {"source": "0123456789abcdef"}})
    write_record(path, other)
    output = again(repository, finished, ok=False)
    assert re.search(r"kernels: its results come from 2 versions of the code: .* 1 of 0123456789abcdef", output)
    assert not table.exists()
    snakemake("--config", "scale=smoke", "mixed_versions=yes", cwd=finished, snakefile=repository / "Snakefile")
    assert table.exists()
    write_record(path, record)
    again(repository, finished)


def test_two_workflows_on_one_results_folder(repository, tmp_path):
    # Without Snakemake's own lock, which some file systems do not support, the runs' locks must suffice.
    command = [SNAKEMAKE, "--cores", "1", "--nolock", "-s", repository / "Snakefile", "--config", "scale=smoke"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"]
    outputs = [process.communicate()[0] for process in both]
    # The slower one may fail because its outputs appear while it runs, but every output is whole.
    assert 0 in [process.returncode for process in both], outputs
    for path in tmp_path.glob("results/smoke/runs/*/*/*/record.json"):
        assert read_record(path).status == "done"
        assert not (path.parent / ".lock").exists()


def test_deleted_outputs_of_a_finished_run_are_restored_unless_training_is_forced(repository, finished):
    folder = finished / "results" / "smoke" / "runs" / "mmnist" / "k1=5" / "seed0"
    started = read_record(folder / "record.json").provenance["started"]
    # Snakemake deletes all outputs if a job is killed just after it wrote its record.
    for name in OUTPUTS:
        (folder / name).unlink()
    (finished / "results" / "smoke" / "tables" / "kernels.csv").unlink()
    again(repository, finished)
    assert read_record(folder / "record.json").provenance["started"] == started
    assert "Nothing to be done" in again(repository, finished)
    again(repository, finished, "--forcerun", "train")
    assert read_record(folder / "record.json").provenance["started"] != started


def test_a_dry_run_changes_nothing(repository, finished):
    path = finished / "results" / "smoke" / "runs" / "mmnist" / "k1=5" / "seed0" / "record.json"
    content = path.read_bytes()
    path.write_bytes(content[:-50])
    before = {p: p.stat().st_mtime_ns for p in (finished / "results").rglob("*")}
    again(repository, finished, "-n")
    assert {p: p.stat().st_mtime_ns for p in (finished / "results").rglob("*")} == before
    path.write_bytes(content)


def test_the_gpu_profile_counts_the_gpus(repository, tmp_path, monkeypatch):
    arguments = ("-n", "--profile", repository / "profiles" / "gpu", "--config", "scale=smoke", "slots_per_gpu=2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    output = snakemake(*arguments, cwd=tmp_path, snakefile=repository / "Snakefile")
    assert re.search(r"resources: .*gpu=1, gpu_percent=50, slots_per_gpu=2", output)
    # A run that failed may have lacked memory, so it has its GPU alone.
    output = snakemake(*arguments, "--attempt", "2", cwd=tmp_path, snakefile=repository / "Snakefile")
    assert re.search(r"resources: .*gpu=1, gpu_percent=100, slots_per_gpu=1", output)
    assert "gpu_percent=50" not in output
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    output = snakemake(*arguments, cwd=tmp_path, snakefile=repository / "Snakefile", ok=False)
    assert "profiles/gpu finds no GPU here; leave out --profile to train on the CPU" in output
