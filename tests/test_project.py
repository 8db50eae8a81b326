"""Rooms import one way, torch is loaded late, files stay short, and the lists of dependencies agree."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import version

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from tests.conftest import REPOSITORY

# Rooms that another may import. The command line is left out: nothing imports it, and verbs import any room when they run.
MAY_IMPORT = {
    "registry": set(),
    "config": {"registry"},
    "runtime": set(),
    "experiments": {"config", "registry"},
    "runs": {"config", "runtime"},
    "model": {"config", "registry"},
    "kernels": {"config", "model", "runtime"},
    "metrics": {"kernels"},
    "data": {"config", "experiments", "kernels", "registry", "runtime"},
    "training": {"config", "data", "kernels", "metrics", "model", "registry", "runs", "runtime"},
    "costs": {"config", "data", "experiments", "kernels", "metrics", "model", "registry", "runs", "runtime", "training"},
    "analysis": {"config", "experiments", "registry", "runs", "runtime"},
    "openstl": {"analysis", "config", "experiments", "metrics", "model", "registry", "runs", "runtime"},
    "workflow_support": {"config", "costs", "experiments", "registry", "runs", "runtime"},
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"stlight.{alias.name}" for alias in node.names] if node.module == "stlight" else [node.module]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        yield from (name.split(".")[1] for name in names if name.startswith("stlight."))


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_go_one_way(room):
    folder = REPOSITORY / "stlight" / room
    files = list(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]
    assert files
    for path in files:
        assert set(imported_rooms(path)) <= MAY_IMPORT[room] | {room}, path


def test_every_room_is_in_the_table():
    files = (path for path in (REPOSITORY / "stlight").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists())
    assert {path.stem for path in files} == MAY_IMPORT.keys() | {"__init__", "__main__", "cli", "commands"}


def test_rooms_that_must_not_load_torch_do_not():
    rooms = ("analysis", "commands", "experiments", "openstl", "registry", "runs", "runtime")
    folders = [str(REPOSITORY / "stlight" / room) for room in rooms]
    code = f"""if True:
    import importlib, pkgutil, sys, stlight.cli, stlight.costs, stlight.workflow_support
    for folder in {folders}:
        prefix = "stlight." + folder.rpartition("/")[2] + "."
        for module in pkgutil.walk_packages([folder], prefix):
            importlib.import_module(module.name)
            assert "torch" not in sys.modules, module.name
    """
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_no_file_is_longer_than_300_lines():
    files = (p for room in ("stlight", "benchmarks", "tests", "workflow/rules") for p in (REPOSITORY / room).rglob("*.*"))
    lengths = {p: len(p.read_text().splitlines()) for p in files if p.suffix in (".py", ".c", ".h", ".j2", ".smk")}
    assert {p: length for p, length in lengths.items() if length > 300} == {}


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def locked():
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonical(name): Version(version) for name, version in pairs}


def test_every_dependency_is_locked_within_its_bounds(locked):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    requirements = [Requirement(text) for texts in (project["dependencies"], *extras) for text in texts]
    for requirement in requirements:
        # A CUDA build of torch requires its own version of Triton; a lock would contradict it.
        if requirement.name == "triton":
            assert "triton" not in locked
        else:
            assert locked[canonical(requirement.name)] in requirement.specifier, requirement


def test_the_conda_environment_installs_the_same(locked):
    environment = yaml.safe_load((REPOSITORY / "environment.yml").read_text())
    conda = dict(entry.split("=", 1) for entry in environment["dependencies"] if isinstance(entry, str) and "=" in entry)
    assert "c-compiler" in environment["dependencies"]
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert pip == ["-c constraints.txt", "-e .[test]"]
    requires = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["requires-python"]
    assert Version(conda["python"]) in Requirement(f"python{requires}").specifier


def test_the_environment_of_the_rules_has_the_locked_versions(locked):
    environment = yaml.safe_load((REPOSITORY / "workflow" / "envs" / "stlight.yaml").read_text())
    pip = next(entry["pip"] for entry in environment["dependencies"] if isinstance(entry, dict))
    assert "c-compiler" in environment["dependencies"]
    pinned = {canonical(name): Version(version) for name, version in (entry.split("==") for entry in pip)}
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    direct = {canonical(Requirement(text).name) for text in project["dependencies"]} - {"snakemake"}
    assert pinned == {name: locked[name] for name in direct}


def test_installed_versions_are_the_locked_ones(locked):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    names = [Requirement(text).name for text in project["dependencies"]]
    assert {n: Version(Version(version(n)).public) for n in names} == {n: locked[canonical(n)] for n in names}


def test_versions_agree():
    import stlight

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    settings = (REPOSITORY / "workflow" / "rules" / "settings.smk").read_text()
    assert stlight.__version__ == project["version"] == citation["version"]
    assert re.findall('^VERSION = "(.*)"$', settings, re.MULTILINE) == [project["version"]]
    assert f"## {project['version']}" in (REPOSITORY / "CHANGELOG.md").read_text()


def test_the_snakefile_is_a_table_of_contents():
    assert len((REPOSITORY / "Snakefile").read_text().splitlines()) < 10
    assert len((REPOSITORY / "workflow" / "Snakefile").read_text().splitlines()) < 60
    assert len((REPOSITORY / "workflow" / "rules" / "common.smk").read_text().splitlines()) < 100
    for path in (REPOSITORY / "workflow" / "rules").glob("*.smk"):
        if path.name != "common.smk":
            assert "\ndef " not in path.read_text(), path
