"""What the ecosystem does with a workflow: import it as a module, deploy it, configure it and make a report of it."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.system.workflow.calls import copy_of_repository, counts, experiment, snakemake

IMPORTER = """
configfile: "mine.yaml"

module stlight:
    snakefile: "../clone/workflow/Snakefile"
    config: config
    prefix: "sub"

use rule * from stlight as stlight_*

rule all:
    input: "mine.txt", rules.stlight_all.input
    default_target: True

# The suite has a rule of the same name. No shell code of the suite precedes this command.
rule fetch:
    output: "mine.txt"
    shell: "! type stlight 2> /dev/null && echo {config[samples]} > {output}"

rule fails:
    output: "never.txt"
    shell: "exit 1"

onstart:
    stlight.onstart()

onerror:
    stlight.onerror()
"""


def git(*arguments, cwd):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *map(str, arguments)], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A git clone of the suite with one small experiment."""
    origin = copy_of_repository(tmp_path_factory.mktemp("conventions") / "stlight")
    for name in ("stlight", "config", ".test/config"):
        shutil.copytree(REPOSITORY / name, origin / name, ignore=shutil.ignore_patterns("__pycache__"))
    experiment(origin, "kernels", "grid: {k1: [3, 5]}")
    git("init", "--initial-branch", "main", cwd=origin)
    git("add", "--all", cwd=origin)
    git("commit", "--message", "Add the suite", cwd=origin)
    git("clone", origin, origin.parent / "clone", cwd=origin)
    return origin.parent / "clone"


@pytest.fixture(scope="module")
def imported(clone):
    """A workflow that imports the clone with a prefix, run once."""
    work = clone.parent / "importer"
    work.mkdir()
    (work / "Snakefile").write_text(IMPORTER)
    (work / "mine.yaml").write_text("samples: 3\nstlight: {scale: smoke, results: out}\n")
    snakemake(cwd=work)
    return work


def test_the_suite_runs_as_a_module_beside_rules_of_its_importer(imported):
    assert (imported / "mine.txt").read_text() == "3\n"
    out = imported / "sub" / "out" / "smoke"
    assert {path.parent.parent.name for path in out.glob("runs/mmnist/*/seed0/record.json")} == {"k1=5", "stlight_l"}
    assert (out / "report.html").stat().st_size > 0
    assert (imported / "sub" / "data" / "prepared" / "mmnist-embedded.npz").exists()
    assert {path.name for path in imported.iterdir()} == {".snakemake", "Snakefile", "mine.txt", "mine.yaml", "sub"}


def test_a_failed_job_of_the_importer_lists_what_waits(imported, tmp_path):
    shutil.copytree(imported.parent / "clone", tmp_path / "clone", ignore=shutil.ignore_patterns(".git"))
    (tmp_path / "importer").mkdir()
    for name in ("Snakefile", "mine.yaml"):
        shutil.copy(imported / name, tmp_path / "importer")
    output = snakemake("never.txt", cwd=tmp_path / "importer", ok=False)
    assert "kernels: 2 of its 2 runs are not there" in output


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ("stlight={scal: demo}", "--config scal: unknown; the settings are scale, hours,"),
        ("stlight={hours: -1}", "--config hours: input should be greater than 0, got '-1'"),
    ],
)
def test_a_wrong_setting_of_the_importer_is_one_line(imported, own, message):
    output = snakemake("-n", "--config", own, cwd=imported, ok=False)
    assert message in output
    assert "Traceback" not in output


def test_moved_folders_are_no_reason_to_train_again(imported, tmp_path):
    moved = shutil.copytree(imported.parent, tmp_path / "moved") / "importer"
    triggers = ("--rerun-triggers", "code", "input", "mtime", "params", "software-env")
    assert not {"stlight_train", "stlight_prepare"} & counts(snakemake("-n", *triggers, cwd=moved)).keys()


def test_the_report_of_snakemake_sorts_and_labels_every_file(imported):
    snakemake("--report", "report.html", cwd=imported)
    text = (imported / "report.html").read_text()
    (imported / "report.html").unlink()

    def embedded(name):
        start = re.search(rf'<script id="{name}">\s*var {name} = ', text).end()
        return json.JSONDecoder().raw_decode(text, start)[0]

    out = "sub/out/smoke"
    found = {name: {item: sorted(paths) for item, paths in items.items()} for name, items in embedded("categories").items()}
    assert found == {
        "Tables": {"Mine": [f"{out}/tables/kernels.csv"]},
        "Figures": {"Mine": [f"{out}/figures/kernels.png"]},
        "Example predictions": {"Mine": [f"{out}/examples/kernels.png"]},
        "Report": {"All items": [f"{out}/claims.csv", f"{out}/report.html"]},
    }
    labels = {path: result["labels"] for path, result in embedded("results").items()}
    assert labels.pop(f"{out}/claims.csv") == {"contents": "verdicts", "scale": "smoke"}
    assert labels.pop(f"{out}/report.html") == {"contents": "page", "scale": "smoke"}
    assert list(labels.values()) == 3 * [{"experiment": "kernels", "scale": "smoke"}]
    assert all(result["caption"] for result in embedded("results").values())


def test_snakedeploy_deploys_a_local_repository_into_an_empty_folder(clone, tmp_path):
    pytest.importorskip("snakedeploy", reason="snakedeploy is not installed (it needs Python 3.12 or older)")
    tool = Path(sys.executable).parent / "snakedeploy"
    subprocess.run([tool, "deploy-workflow", clone, tmp_path, "--branch", "main"], check=True, capture_output=True)
    assert (tmp_path / "config" / "config.yaml").read_text() == (clone / "config" / "config.yaml").read_text()
    # As docs/snakemake.md says: snakedeploy writes a path of a local repository that leads nowhere.
    deployed = tmp_path / "workflow" / "Snakefile"
    text = deployed.read_text()
    deployed.write_text(text.replace('"workflow/Snakefile"', f'"{clone}/workflow/Snakefile"'))
    assert deployed.read_text() != text
    output = snakemake("--config", "scale=smoke", cwd=tmp_path)
    assert "profiles/default" in output
    assert (tmp_path / "results" / "smoke" / "report.html").stat().st_size > 0
    assert (tmp_path / "results" / "smoke" / "tables" / "kernels.csv").exists()
    refused = snakemake("-n", "--config", "scal=smoke", cwd=tmp_path, ok=False)
    assert "--config scal: unknown; the settings are scale," in refused


def test_rules_from_github_use_the_installed_package(clone, tmp_path, monkeypatch):
    # Git takes the local clone for the repository on GitHub.
    (tmp_path / "gitconfig").write_text(f'[url "{clone.parent}/"]\n insteadOf = https://github.com/someone/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)
    (tmp_path / "Snakefile").write_text(
        'module suite:\n    snakefile: github("someone/clone", path="workflow/Snakefile", branch="main")\n'
        '    config: {"scale": "smoke"}\n\nuse rule * from suite\n'
    )
    jobs = counts(snakemake("-n", cwd=tmp_path))
    # The clone has one experiment; these are all of the package's.
    assert (jobs["all"], jobs["analyse"]) == (1, 9)


def test_the_configuration_of_the_current_folder_applies_and_the_command_line_overrides_it(clone, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("scale: smoke\nresults: mine\n")
    arguments = {"cwd": tmp_path, "snakefile": clone / "workflow" / "Snakefile"}
    assert "mine/smoke/report.html" in snakemake("-n", **arguments)
    output = snakemake("-n", "--config", "results=other", **arguments)
    assert "other/smoke/report.html" in output
    assert "mine/smoke" not in output


def test_the_test_folder_of_the_catalog_runs_the_smallest_scale(clone):
    output = snakemake("-n", "--directory", ".test", cwd=clone)
    assert counts(output)["train"] == 2
    assert set(re.findall(r"results/(\w+)/report\.html", output)) == {"smoke"}
