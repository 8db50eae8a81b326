"""Jobs in containers: a real Snakemake calls a program in Apptainer's place, which runs the command without a container.

It shows what Snakemake asks of Apptainer, and that jobs use the image's interpreter. It cannot show what a container sees.
"""

import shutil
import sys

import pytest

from tests.conftest import REPOSITORY
from tests.system.workflow.calls import copy_of_repository, experiment, snakemake

RECORD = "smoke/runs/mmnist/stlight_l/seed0/record.json"


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The workflow with one small experiment."""
    folder = copy_of_repository(tmp_path_factory.mktemp("checkout"))
    experiment(folder, "seeds", "grid: {decoder: [shuffle_reassemble]}\nseeds: 1")
    return folder


@pytest.fixture
def apptainer(tmp_path):
    """A folder for PATH. Its Apptainer logs image, bound folders and command; the image's Python logs that it was called."""
    programs, image = tmp_path / "programs", tmp_path / "image"
    programs.mkdir()
    image.mkdir()
    (programs / "apptainer").write_text(f"""#!/bin/bash
    if [ "$1" = --version ]; then echo "apptainer version 1.4.5"; exit; fi
    echo "$APPTAINER_BIND" "${{@:1:$# - 1}}" >> {tmp_path}/calls
    PATH={image}:/usr/bin:/bin exec "${{@: -3}}"
    """)
    (image / "python").write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/pythons\nPYTHONPATH={REPOSITORY} exec {sys.executable} "$@"\n'
    )
    for path in (programs / "apptainer", image / "python"):
        path.chmod(0o755)
    return programs


def call(apptainer, repository, work, *arguments, ok=True):
    arguments = ("--software-deployment-method", "apptainer", *arguments)
    return snakemake(*arguments, cwd=work, snakefile=repository / "Snakefile", programs=apptainer, ok=ok)


def test_each_job_runs_with_the_image_s_python_and_sees_its_folders(apptainer, repository, tmp_path):
    work, results = tmp_path / "work", tmp_path / "results"
    work.mkdir()
    results.mkdir()
    (work / "my.sif").touch()
    settings = ("scale=smoke", f"results={results}", "container=my.sif")
    call(apptainer, repository, work, "--config", *settings, "--", results / RECORD)
    assert (results / RECORD).exists()
    jobs = (tmp_path / "calls").read_text().splitlines()
    assert len(jobs) == 2
    # Snakemake adds a folder of its own.
    assert all(job.startswith(f"{repository},{results} exec --home {work} ") for job in jobs)
    assert all(job.endswith(" my.sif bash -c") for job in jobs)
    verbs = [line.split()[3] for line in (tmp_path / "pythons").read_text().splitlines()]
    assert verbs == ["prepare", "train"]


def test_a_missing_image_is_said_before_any_job(apptainer, repository, tmp_path):
    shutil.copytree(REPOSITORY / "containers", repository / "containers")
    output = call(apptainer, repository, tmp_path, "--config", "scale=smoke", ok=False)
    assert f"--config container: {repository}/containers/stlight.sif does not exist: call 'cd {repository} && " in output
    assert not (tmp_path / "calls").exists()
