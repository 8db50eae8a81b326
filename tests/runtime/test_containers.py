"""Containers of Snakemake's jobs get the right image, folders and GPUs."""

import os
from pathlib import Path

import pytest

from stlight.runtime import containers
from stlight.runtime.containers import container_image


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with an image, a working directory beside it, and an Apptainer in PATH."""
    image = tmp_path / "checkout" / "containers" / "stlight.sif"
    image.parent.mkdir(parents=True)
    image.touch()
    (image.parent / "apptainer.def").touch()
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.touch(mode=0o755)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("PATH", str(program.parent))
    for name in ("APPTAINER_BIND", "APPTAINER_NV", "SINGULARITY_BIND"):
        # Set first, so that monkeypatch deletes it afterwards.
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    return image.parent.parent


def test_without_apptainer_there_is_no_image_and_no_variable(checkout):
    for methods in (set(), {"conda"}, {"conda", "apptainer"}):
        assert container_image(methods, "missing.sif", checkout, "results") is None
    assert "APPTAINER_BIND" not in os.environ


def test_the_image_is_the_checkout_s_or_the_given_one(checkout):
    assert container_image({"apptainer"}, None, checkout, "results") == str(checkout / "containers" / "stlight.sif")
    assert container_image({"apptainer"}, "docker://lab/image:1", checkout) == "docker://lab/image:1"


def test_mistakes_are_said_before_any_job(checkout):
    (checkout / "containers" / "stlight.sif").unlink()
    with pytest.raises(ValueError, match=f"stlight.sif does not exist: call 'cd {checkout} && apptainer build"):
        container_image({"apptainer"}, None, checkout)
    (checkout / "containers" / "apptainer.def").unlink()
    with pytest.raises(ValueError, match=r"stlight.sif does not exist: name an image, --config container=FILE"):
        container_image({"apptainer"}, None, checkout)
    with pytest.raises(ValueError, match=r"--config container: my.sif does not exist"):
        container_image({"apptainer"}, "my.sif", checkout)
    missing = checkout.parent / "scratch"
    with pytest.raises(ValueError, match=f"{missing} does not exist: create it"):
        container_image({"apptainer"}, "docker://lab/image:1", checkout, str(missing))


def test_containers_see_what_lies_outside_of_the_working_directory(checkout, monkeypatch):
    store, work = checkout.parent / "store", checkout.parent / "work"
    for folder in (store / "kth", store / "results", work / "data"):
        folder.mkdir(parents=True)
    (work / "data" / "kth").symlink_to(store / "kth")
    (work / "data" / "broken").symlink_to(store / "nothing")
    (checkout.parent / "link").symlink_to(store / "results")
    monkeypatch.setenv("APPTAINER_BIND", "/opt/site")
    arguments = ({"apptainer"}, None, checkout, "data", str(checkout.parent / "link"), "not/made/yet")
    container_image(*arguments)
    expected = [Path("/opt/site"), checkout, checkout.parent / "link", store / "results", store / "kth"]
    assert os.environ["APPTAINER_BIND"] == ",".join(map(str, expected))
    # The Snakemake of a cluster's job inherits the variable and adds the same.
    container_image(*arguments)
    assert os.environ["APPTAINER_BIND"] == ",".join(map(str, expected))


def test_singularity_has_variables_of_its_own(checkout, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    container_image({"apptainer"}, None, checkout)
    assert os.environ["SINGULARITY_BIND"] == str(checkout)
    assert "APPTAINER_BIND" not in os.environ


@pytest.mark.parametrize("driver", [True, False])
def test_containers_see_gpus_if_the_driver_is_loaded(checkout, monkeypatch, driver):
    monkeypatch.setattr(containers, "NVIDIA_DRIVER", checkout if driver else checkout / "missing")
    container_image({"apptainer"}, None, checkout)
    assert os.environ.get("APPTAINER_NV") == ("1" if driver else None)
