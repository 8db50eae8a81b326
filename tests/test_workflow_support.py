"""Settings, inputs and targets of the rules, without Snakemake."""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from stlight.runs.record import read_record, write_record
from stlight.runs.rounds import Round, write_round
from stlight.runtime.atomic_files import fingerprint
from stlight.workflow_support import Settings, Workflow, any_of, image, newer_than
from tests.conftest import REPOSITORY
from tests.tiny_runs import record_untrained, write_experiment


@pytest.fixture
def suite(workflow, tmp_path):
    """A workflow of one experiment that trains two depths, and one that only counts."""
    for path in (workflow / "experiments").glob("*.yaml"):
        path.unlink()
    write_experiment(workflow, "depths")
    write_experiment(workflow, "sizes", train=False, metrics=["num_params"], figure={"kind": "growth"})
    (workflow / "errata.yaml").unlink()
    return Workflow(workflow, Settings(scale="smoke", results=str(tmp_path / "out"), data=str(tmp_path / "data")))


def test_a_wrong_environment_variable_is_said_before_any_job(monkeypatch):
    monkeypatch.setenv("STLIGHT_KERNELS", "bogus")
    with pytest.raises(ValueError, match="STLIGHT_KERNELS must be off or not set, got 'bogus'"):
        Settings.from_config({})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"scal": "demo"},
            "--config scal: unknown; the settings are scale, hours, results, data, experiments, slots_per_gpu,"
            " device_rate, mixed_versions, container",
        ),
        ({"slots_per_gpu": 0}, "--config slots_per_gpu: must be auto or a number from 1 to 100, got 0"),
        ({"slots_per_gpu": 101}, "--config slots_per_gpu: must be auto or a number from 1 to 100, got 101"),
        ({"slots_per_gpu": "yes"}, "--config slots_per_gpu: must be auto or a number from 1 to 100, got 'yes'"),
        ({"slots_per_gpu": "auto"}, "--config slots_per_gpu=auto and device_rate=FILE: one needs the other"),
        ({"device_rate": "card.json"}, "--config slots_per_gpu=auto and device_rate=FILE: one needs the other"),
        ({"slots_per_gpu": "auto", "device_rate": "/none.json"}, "--config device_rate: /none.json is not a file"),
        ({"results": ""}, "--config results: .* at least 1 character, got ''"),
        ({"data": ""}, "--config data: .* at least 1 character, got ''"),
        ({"hours": 0}, "--config hours: input should be greater than 0, got 0"),
        ({"mixed_versions": "maybe"}, "--config mixed_versions: input should be a valid boolean.*, got 'maybe'"),
    ],
)
def test_a_wrong_setting_is_one_line(config, message):
    with pytest.raises(ValueError, match="^" + message.replace("(", r"\(") + "$"):
        Settings.from_config(config)


def test_values_that_snakemake_parses_are_taken():
    settings = Settings.from_config({"mixed_versions": "yes", "results": 5, "slots_per_gpu": "2"})
    assert settings == Settings(results="5", mixed_versions=True, slots_per_gpu=2)
    assert Settings.from_config({"slots_per_gpu": "auto", "device_rate": __file__}).slots_per_gpu == "auto"


@pytest.mark.parametrize("place", ["out", "out/smoke", "data"])
def test_a_file_in_the_place_of_a_folder_is_named(tmp_path, place):
    settings = Settings(scale="smoke", results=str(tmp_path / "out"), data=str(tmp_path / "data"))
    settings.check_folders()
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).touch()
    with pytest.raises(ValueError, match=rf"--config (results|data): .*{place} is not a folder: move it away"):
        settings.check_folders()


def test_results_that_cannot_be_written_are_named(tmp_path, monkeypatch):
    settings = Settings(scale="smoke", results=str(tmp_path / "deep" / "out"))
    settings.check_writable()
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(ValueError, match=f"--config results: {tmp_path} cannot be written"):
        settings.check_writable()


def test_the_command_passes_arguments_and_settings_through_a_shell(tmp_path):
    echo = tmp_path / "echo python"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" $$ "$@"\n')
    echo.chmod(0o755)
    call = Settings(results="with {space} x", mixed_versions=True).shell_command(str(echo), Path("flow"), "a1b2")
    command = f"echo $$; {call} train {shlex.quote('a b')}"
    shell, *printed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout.splitlines()
    # The process that a signal reaches is the one that trains.
    assert printed[:6] == [shell, "-P", "-m", "stlight", "train", "a b"]
    assert "with {space} x" in printed
    assert printed[-3:] == ["--mixed-versions", "--planned-source", "a1b2"]


def test_jobs_import_the_package_beside_the_workflow_and_nothing_from_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "before")
    workflow = tmp_path / "checkout" / "workflow"
    (workflow.parent / "stlight").mkdir(parents=True)
    command = Settings().shell_command(sys.executable, workflow, "a1b2")
    assert f"exec env PYTHONPATH={workflow.parent}:before {sys.executable} -P -m stlight" in command
    # In a wheel, the workflow lies inside the installed package.
    installed = Settings().shell_command(sys.executable, tmp_path / "checkout" / "stlight" / "workflow", "a1b2")
    assert f"exec env PYTHONPATH=before {sys.executable} -P -m stlight" in installed


def test_the_python_of_an_image_imports_nothing_of_the_host_but_the_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "before")
    (tmp_path / "checkout" / "stlight").mkdir(parents=True)
    command = Settings().shell_command("python", tmp_path / "checkout" / "workflow", "a1b2")
    assert f"exec env PYTHONPATH={tmp_path / 'checkout'} python -P -m stlight" in command


def test_conda_is_refused_where_its_environments_lack_the_package(tmp_path):
    workflow = SimpleNamespace(deployment_settings=SimpleNamespace(deployment_method={"conda"}))
    (tmp_path / "checkout" / "stlight").mkdir(parents=True)
    assert image(workflow, Settings(), tmp_path / "checkout") is None
    with pytest.raises(ValueError, match="^--software-deployment-method conda needs a checkout, because .*/site/stlight"):
        image(workflow, Settings(), tmp_path / "site" / "stlight")


def test_a_workflow_that_imports_this_one_may_have_other_keys():
    own = {"samples": "samples.tsv", "scale": "mine", "stlight": {"scale": "smoke"}}
    assert Settings.from_config(own, imported=True) == Settings(scale="smoke")
    assert Settings.from_config({"samples": 1, "stlight": None}, imported=True) == Settings()
    assert Settings.from_config({"scale": "smoke"}, imported=True) == Settings(scale="smoke")
    assert Settings.from_config({"samples": "samples.tsv", "genome": 1}, imported=True) == Settings()
    with pytest.raises(ValueError, match="^--config scal: unknown; .*; beside keys of your own"):
        Settings.from_config({"samples": "samples.tsv", "scal": "smoke"}, imported=True)
    with pytest.raises(ValueError, match="^--config scal: unknown; the settings are scale, [^;]*$"):
        Settings.from_config({"stlight": {"scal": "smoke"}}, imported=True)
    with pytest.raises(
        ValueError, match="^--config samples: unknown; .*; beside keys of your own, put them under the key stlight"
    ):
        Settings.from_config({"scale": "smoke", "samples": 1}, imported=True)
    with pytest.raises(ValueError, match="^--config stlight: must hold the settings scale, .*, got 'smoke'$"):
        Settings.from_config({"stlight": "smoke"}, imported=True)
    with pytest.raises(ValueError, match="^--config stlight: unknown"):
        Settings.from_config({"stlight": {"scale": "smoke"}})


def test_the_configuration_file_states_the_defaults_and_the_readme_describes_them():
    content = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    assert content == Settings().model_dump()
    rows = re.findall(r"^\| `(\w+)` \| (\S+) \|", (REPOSITORY / "config" / "README.md").read_text(), re.MULTILINE)
    assert {name: yaml.safe_load(default.strip("`")) for name, default in rows} == {
        name: "none" if value is None else value for name, value in content.items()
    }


def test_paths_on_disk_have_the_prefix_of_a_module_and_those_in_rules_do_not(suite, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = Settings(scale="smoke", results="out")
    on_disk = settings.on_disk(lambda path: f"sub/{path}")
    assert (on_disk.out, on_disk.data) == ("sub/out/smoke", "sub/data")
    placed = Workflow(tmp_path / "workflow", settings, on_disk)
    for folder, expected in (("data", []), ("sub/data", ["data/fetched/kth.asked"])):
        marker = tmp_path / folder / "fetched" / "kth.asked"
        marker.parent.mkdir(parents=True)
        marker.touch()
        assert placed.fetch_marker(SimpleNamespace(dataset="kth")) == expected
    assert all(path.startswith("out/smoke/") for path in placed.items())


def test_an_experiment_asks_for_its_records_and_counts(suite, tmp_path):
    out = f"{tmp_path}/out/smoke"
    runs = [f"{out}/runs/mmnist/{name}/seed0/record.json" for name in ("depth=8", "stlight_l")]
    assert suite.experiment_inputs(SimpleNamespace(experiment="depths")) == runs
    assert suite.experiment_inputs(SimpleNamespace(experiment="sizes")) == [f"{out}/complexity/sizes.json"]
    assert suite.count_files() == [f"{out}/complexity/sizes.json"]
    assert list(suite.counted()) == ["sizes"]
    assert f"{out}/examples/depths.png" in suite.items()
    assert f"{out}/examples/sizes.png" not in suite.items()
    stated = [path for path in suite.report_inputs() if path.endswith(".yaml")]
    assert [Path(path).name for path in stated] == ["quoted_sources.yaml"]


def test_a_run_that_failed_has_its_gpu_alone(workflow, tmp_path, monkeypatch):
    monkeypatch.setenv("STLIGHT_SLOTS_PER_GPU", "")
    suite = Workflow(workflow, Settings(scale="smoke", data=str(tmp_path), slots_per_gpu=3))
    suite.export_slots()
    assert [(suite.slots_per_gpu(None, attempt), suite.gpu_percent(None, attempt)) for attempt in (1, 2)] == [(3, 33), (1, 100)]


def test_slots_are_those_that_a_gpus_file_says(workflow, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("STLIGHT_SLOTS_PER_GPU", "")
    for path in (workflow / "experiments").glob("*.yaml"):
        path.unlink()
    write_experiment(workflow, "depths")
    steps = {"one": {"multiply_adds": 1e9, "float32": {"ours_seconds": 1, "listing_seconds": 1}}}
    file = tmp_path / "card.json"
    # A run of this scale takes less than an empty process, and nine tenths of the memory hold four of those.
    file.write_text(json.dumps({"device": {"name": "A", "memory": 5 * 2**30, "process_memory": 2**30}, "steps": steps}))
    suite = Workflow(workflow, Settings(scale="smoke", data=str(tmp_path), slots_per_gpu="auto", device_rate=str(file)))
    suite.export_slots()
    assert suite.slots_per_gpu(None, 1) == 4
    assert "slots_per_gpu=auto: 4" in capsys.readouterr().err
    file.write_text("{}")
    with pytest.raises(ValueError, match="card.json: not a file of `python -m benchmarks gpu`"):
        suite.export_slots()


def test_a_later_round_decides_on_records_and_counts(suite, tmp_path):
    settings = Settings(scale="smoke", results=str(tmp_path / "out"), data=str(tmp_path / "data"), hours=1)
    budget = Workflow(tmp_path / "workflow", settings)
    assert budget.round_inputs(SimpleNamespace(round=1)) == []
    cells = dict.fromkeys(suite.plan.seeds, 1)
    nothing = {"spent_seconds": 0, "expected_seconds": 0, "expected_settled": 0, "estimates": {}, "claims": [], "reason": ""}
    write_round(tmp_path / "out" / "smoke", Round(number=1, plan=budget.plan.hash, hours=1, seeds=cells, **nothing))
    budget.read_rounds()
    found = budget.round_inputs(SimpleNamespace(round=2))
    assert sum(path.endswith("record.json") for path in found) == len(cells)
    assert str(tmp_path / "out" / "smoke" / "complexity" / "sizes.json") in found


def test_a_run_asks_for_its_prepared_data(suite, tmp_path):
    wildcards = SimpleNamespace(dataset="mmnist", variant="stlight_l", seed="0")
    assert suite.prepared_data(wildcards) == [f"{tmp_path}/data/prepared/mmnist-embedded.npz"]
    assert suite.config_hash(wildcards) == suite.plan.run("mmnist/stlight_l/seed0").hash


def test_only_damaged_records_are_set_aside_with_their_table(suite, tmp_path):
    folder, name = tmp_path / "out" / "smoke", "mmnist/stlight_l/seed0"
    record_untrained(folder, name, suite.plan.run(name))
    record, table = folder / "runs" / name / "record.json", folder / "tables" / "depths.csv"
    table.parent.mkdir()
    table.touch()
    wildcards = SimpleNamespace(experiment="depths")
    suite.set_aside_damaged_records(wildcards)
    assert read_record(record).run == name
    assert table.exists()
    # It names the outputs that it was written with. One of them is gone.
    losses = hashlib.sha256(record.with_name("losses.csv").read_bytes()).hexdigest()
    write_record(record, read_record(record).model_copy(update={"files": {"losses.csv": losses}}))
    suite.set_aside_damaged_records(wildcards)
    assert record.exists()
    whole = record.read_bytes()
    record.with_name("losses.csv").unlink()
    suite.set_aside_damaged_records(wildcards)
    assert not record.exists()
    assert not table.exists()
    record.write_bytes(whole[:-50])
    table.touch()
    suite.set_aside_damaged_records(wildcards)
    assert not record.exists()
    assert not table.exists()


def test_files_are_requested_again_only_after_a_change(workflow, tmp_path):
    suite = Workflow(workflow, Settings(scale="paper", data=str(tmp_path)))
    marker, verified = tmp_path / "fetched" / "taxibj.asked", tmp_path / "fetched" / "taxibj.json"
    suite.request_files()
    first = marker.read_text()
    (tmp_path / "file").write_text("a")
    verified.write_text(json.dumps({"noted": fingerprint(tmp_path, ["file"])}))
    suite.request_files()
    assert marker.read_text() == first
    (tmp_path / "file").write_text("bc")
    suite.request_files()
    assert marker.read_text() != first


def test_a_constraint_without_names_matches_nothing():
    assert any_of([]) == "(?!)"
    assert any_of(["a+b", "c"]) == r"a\+b|c"


@pytest.mark.parametrize("option", ["forceall", "forcetargets", "forcerun"])
def test_a_forced_workflow_outdates_records(option):
    started, options = datetime(2026, 1, 1), {"forceall": False, "forcetargets": False, "forcerun": []}
    assert newer_than(SimpleNamespace(dag_settings=SimpleNamespace(**options), start_time=started)) == "0"
    options[option] = ["train"]
    assert (
        float(newer_than(SimpleNamespace(dag_settings=SimpleNamespace(**options), start_time=started))) == started.timestamp()
    )
