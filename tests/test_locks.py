"""The lock, the constraints and the container definitions name the same versions and files."""

import re
import subprocess
import tomllib
from importlib.metadata import requires, version

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.conftest import REPOSITORY

CONTAINERS = REPOSITORY / "containers"
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]


def pinned(requirement):
    (specifier,) = requirement.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


def by_name(lines):
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    assert len({canonicalize_name(r.name) for r in requirements}) == len(requirements)
    return {canonicalize_name(r.name): r for r in requirements}


@pytest.fixture(scope="module")
def constraints():
    return by_name((REPOSITORY / "constraints.txt").read_text().splitlines())


@pytest.fixture(scope="module")
def lock():
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    return by_name(line.removesuffix(" \\") for line in lines if not line.startswith(" "))


def test_the_lock_has_the_versions_of_the_constraints(lock, constraints):
    assert {n: pinned(lock[n]) for n in lock.keys() & constraints.keys()} == {
        n: pinned(constraints[n]) for n in lock.keys() & constraints.keys()
    }
    # The constraints are those of Linux without CUDA. Everything else depends on the platform.
    only_in_lock = lock.keys() - constraints.keys()
    assert all(lock[name].marker for name in only_in_lock), only_in_lock


def test_the_lock_keeps_the_bounds_of_the_project(lock):
    for text in PROJECT["dependencies"]:
        assert pinned(lock[canonicalize_name(Requirement(text).name)]) in Requirement(text).specifier
    # Without an older Python than the project's, a newer one may lack packages.
    assert (
        f"--python-version {PROJECT['requires-python'].removeprefix('>=')} " in (REPOSITORY / "requirements.lock").read_text()
    )


def test_the_lock_has_all_that_the_installed_suite_needs(lock):
    missing, seen, waiting = set(), set(), [Requirement(text) for text in PROJECT["dependencies"]]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        if (name, *requirement.extras) in seen:
            continue
        seen.add((name, *requirement.extras))
        if name not in lock or pinned(lock[name]) != Version(Version(version(name)).public):
            missing.add(name)
        needed = (Requirement(text) for text in requires(name) or [])
        waiting += [
            r for r in needed if not r.marker or any(r.marker.evaluate({"extra": e}) for e in ("", *requirement.extras))
        ]
    assert len(seen) > len(PROJECT["dependencies"])
    assert missing == set()


def test_each_locked_file_has_a_hash_and_no_address(lock):
    text = (REPOSITORY / "requirements.lock").read_text()
    entries = re.split(r"\n(?=[a-z])", text)[1:]
    assert len(entries) == len(lock)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text
    assert "-url" not in text


def test_both_container_definitions_have_the_same_files_and_variables():
    containerfile = (CONTAINERS / "Containerfile").read_text()
    definition = (CONTAINERS / "apptainer.def").read_text()
    copied = [line.split()[1:] for line in containerfile.splitlines() if line.startswith("COPY ")]
    files = {
        source: f"{target}{source}" if target.endswith("stlight/") and "/" not in source else target
        for *s, target in copied
        for source in s
    }
    section = definition.partition("%files")[2].partition("\n%")[0]
    assert files
    assert dict(line.split() for line in section.split("\n") if line) == {
        source: f"{target}install.sh" if source == "containers/install.sh" else target for source, target in files.items()
    }
    assert all((REPOSITORY / source).exists() for source in files)
    (variables,) = re.findall(r"^ENV (.*)$", containerfile, re.MULTILINE)
    assert f"export {variables}\n" in definition
    (base,) = re.findall(r"^ARG BASE=(.*)$", containerfile, re.MULTILINE)
    assert f"BASE={base}\n" in definition


def test_the_recipe_refuses_an_unknown_step():
    done = subprocess.run([CONTAINERS / "install.sh", "sweet"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "install.sh: unknown step sweet; the steps are system, packages and suite\n"
