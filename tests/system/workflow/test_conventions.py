"""What the ecosystem does with a workflow: import it as a module, deploy it, configure it and make a report of it."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import stlight
from tests.conftest import REPOSITORY
from tests.system.workflow.calls import copy_of_repository, counts, experiment, snakemake

# Added to the example of docs/snakemake.md. The suite, too, has a rule `fetch`, and none of its shell code precedes this one.
MORE_RULES = """
rule fetch:
    output: "mine.txt"
    shell: "! type stlight 2> /dev/null && echo {config[samples]} > {output}"

rule fails:
    output: "never.txt"
    shell: "exit 1"
"""


def examples(kind):
    """Return the blocks of docs/snakemake.md, which the tests run so that they cannot go stale."""
    page = (REPOSITORY / "docs" / "snakemake.md").read_text()
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [text for found, text in blocks if found == kind]


def git(*arguments, cwd):
    identity = ("-c", "user.name=Test", "-c", "user.email=test@example.org")
    subprocess.run(["git", *identity, *map(str, arguments)], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A git clone of the suite with one small experiment, named like the one whose table the example reads."""
    origin = copy_of_repository(tmp_path_factory.mktemp("conventions") / "stlight")
    for name in ("stlight", "config", ".test/config"):
        shutil.copytree(REPOSITORY / name, origin / name, ignore=shutil.ignore_patterns("__pycache__"))
    experiment(origin, "table3_kernel_sizes", "grid: {k1: [3, 5], k2: [7]}")
    git("init", "--initial-branch", "main", cwd=origin)
    git("add", "--all", cwd=origin)
    git("commit", "--message", "Add the suite", cwd=origin)
    git("tag", "v0.1.0", cwd=origin)
    git("clone", origin, origin.parent / "clone", cwd=origin)
    return origin.parent / "clone"


@pytest.fixture(scope="module")
def imported(clone):
    """The example of docs/snakemake.md, which imports the clone with a prefix, run once."""
    work = clone.parent / "importer"
    work.mkdir()
    (code,), (settings,) = examples("python"), examples("yaml")
    assert "/path/to/stlight/workflow" in code
    (work / "Snakefile").write_text(code.replace("/path/to/stlight", "../clone") + MORE_RULES)
    (work / "config.yaml").write_text(settings)
    snakemake(cwd=work)
    return work


def test_the_suite_runs_as_a_module_beside_rules_of_its_importer(imported):
    out = imported / "supplement" / "results" / "smoke"
    assert {path.parent.parent.name for path in out.glob("runs/mmnist/*/seed0/record.json")} == {"k1=5", "stlight_l"}
    assert (out / "report.html").stat().st_size > 0
    assert (imported / "supplement" / "data" / "prepared" / "mmnist-embedded.npz").exists()
    table = pd.read_csv(out / "tables" / "table3_kernel_sizes.csv")
    best = table.loc[table["measured"].idxmin(), ["k1", "k2", "measured"]]
    assert [float(value) for value in (imported / "best.txt").read_text().split(",")] == pytest.approx(best.tolist())
    assert {path.name for path in imported.iterdir()} == {".snakemake", "Snakefile", "best.txt", "config.yaml", "supplement"}


def test_a_rule_of_the_importer_may_have_the_name_of_one_of_the_suite(imported):
    assert counts(snakemake("mine.txt", cwd=imported)) == {"fetch": 1, "total": 1}
    assert (imported / "mine.txt").read_text() == "samples.tsv\n"
    (imported / "mine.txt").unlink()


def test_a_failed_job_of_the_importer_lists_what_waits(imported, tmp_path):
    shutil.copytree(imported.parent / "clone", tmp_path / "clone", ignore=shutil.ignore_patterns(".git"))
    (tmp_path / "importer").mkdir()
    for name in ("Snakefile", "config.yaml"):
        shutil.copy(imported / name, tmp_path / "importer")
    output = snakemake("never.txt", cwd=tmp_path / "importer", ok=False)
    assert "table3_kernel_sizes: 2 of its 2 runs are not there" in output


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

    out = "supplement/results/smoke"
    found = {name: {item: sorted(paths) for item, paths in items.items()} for name, items in embedded("categories").items()}
    assert found == {
        "Tables": {"Mine": [f"{out}/tables/table3_kernel_sizes.csv"]},
        "Figures": {"Mine": [f"{out}/figures/table3_kernel_sizes.png"]},
        "Example predictions": {"Mine": [f"{out}/examples/table3_kernel_sizes.png"]},
        "Report": {"All items": [f"{out}/claims.csv", f"{out}/report.html"]},
    }
    labels = {path.removeprefix(f"{out}/"): result["labels"] for path, result in embedded("results").items()}
    assert labels.pop("claims.csv") == {"contents": "verdicts", "scale": "smoke"}
    assert labels.pop("report.html") == {"contents": "page", "scale": "smoke"}
    # By whole paths, because a figure and its examples have the same name.
    items = ("tables/table3_kernel_sizes.csv", "figures/table3_kernel_sizes.png", "examples/table3_kernel_sizes.png")
    assert labels == {item: {"experiment": "table3_kernel_sizes", "scale": "smoke"} for item in items}
    assert all(result["caption"] for result in embedded("results").values())


@pytest.fixture
def github(clone, tmp_path, monkeypatch):
    """Let git take the local repository for the one on GitHub, and refuse the network."""
    (tmp_path / "gitconfig").write_text(f'[url "{clone.parent}/"]\n insteadOf = https://github.com/OWNER/\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("GIT_ALLOW_PROTOCOL", "file")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("GITHUB_TOKEN", raising=False)


def deploy(source, tmp_path):
    """Run the block of docs/snakemake.md that deploys from `source`. Return the new folder and what was printed."""
    pytest.importorskip("snakedeploy", reason="snakedeploy is not installed (it needs Python 3.12 or older)")
    (block,) = (block for block in examples("") if f"deploy-workflow {source} my-study" in block)
    script = block.removeprefix("pip install snakedeploy\n").replace("--cores all", "--cores 2")
    assert "pip" not in script
    script = script.replace("/path/to/stlight", str(tmp_path / "repository"))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    command = ["bash", "-euc", script]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return tmp_path / "my-study", done.stdout + done.stderr


def test_snakedeploy_deploys_a_local_repository_into_an_empty_folder(clone, tmp_path):
    (tmp_path / "repository").symlink_to(clone)
    study, output = deploy("/path/to/stlight", tmp_path)
    assert (study / "config" / "config.yaml").read_text() == (clone / "config" / "config.yaml").read_text()
    assert "profiles/default" in output
    assert counts(output)["train"] == 2
    assert (study / "results" / "smoke" / "report.html").stat().st_size > 0
    assert (study / "results" / "smoke" / "tables" / "table3_kernel_sizes.csv").exists()
    refused = snakemake("-n", "--config", "scal=smoke", cwd=study, ok=False)
    assert "--config scal: unknown; the settings are scale," in refused


def test_snakedeploy_deploys_from_github_and_the_written_snakefile_runs_as_it_is(clone, github, tmp_path, monkeypatch):
    # As docs/snakemake.md says, the package is installed from the same tag.
    monkeypatch.setenv("PYTHONPATH", str(clone))
    study, output = deploy("https://github.com/OWNER/stlight", tmp_path)
    text = (study / "workflow" / "Snakefile").read_text()
    assert 'github("OWNER/stlight", path="workflow/Snakefile", tag="v0.1.0")' in text
    assert counts(output)["train"] == 2
    assert (study / "results" / "smoke" / "report.html").stat().st_size > 0
    assert (study / "results" / "smoke" / "tables" / "table3_kernel_sizes.csv").exists()


def test_rules_from_github_use_the_installed_package(github, tmp_path):
    (tmp_path / "Snakefile").write_text(
        'module suite:\n    snakefile: github("OWNER/stlight", path="workflow/Snakefile", branch="main")\n'
        '    config: {"scale": "smoke"}\n\nuse rule * from suite\n'
    )
    jobs = counts(snakemake("-n", cwd=tmp_path))
    # The clone has one experiment; these are all of the package's.
    assert (jobs["all"], jobs["analyse"]) == (1, 9)


def test_rules_of_a_tag_refuse_the_package_of_another_version(github, tmp_path, monkeypatch):
    # It has none of the modules that the rules import.
    (tmp_path / "other" / "stlight").mkdir(parents=True)
    (tmp_path / "other" / "stlight" / "__init__.py").write_text('__version__ = "0.0.9"\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "other"))
    (tmp_path / "Snakefile").write_text(
        'module suite:\n    snakefile: github("OWNER/stlight", path="workflow/Snakefile", tag="v0.1.0")\n'
        '    config: {"scale": "smoke"}\n\nuse rule * from suite\n'
    )
    output = snakemake(cwd=tmp_path, ok=False)
    assert (
        f"the workflow is of version {stlight.__version__}, but the installed package stlight of 0.0.9:"
        " pip install git+https://github.com/OWNER/stlight@v0.1.0\n"
    ) in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_the_configuration_of_the_current_folder_applies_and_the_command_line_overrides_it(clone, tmp_path):
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.yaml").write_text("scale: smoke\nresults: mine\n")
    arguments = {"cwd": tmp_path, "snakefile": clone / "workflow" / "Snakefile"}
    assert "mine/smoke/report.html" in snakemake("-n", **arguments)
    output = snakemake("-n", "--config", "results=other", **arguments)
    assert "other/smoke/report.html" in output
    assert "mine/smoke" not in output


def test_the_test_folder_of_the_catalog_runs_the_smallest_scale(clone):
    output = snakemake("--directory", ".test", cwd=clone)
    assert counts(output)["train"] == 2
    results = clone / ".test" / "results"
    assert [path.name for path in results.iterdir()] == ["smoke"]
    assert (results / "smoke" / "report.html").stat().st_size > 0
