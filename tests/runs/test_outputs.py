"""A run is done only if the outputs beside its record are whole; others are put back, or the run is trained again."""

import os
import shutil
import time

import pytest

from stlight.analysis.evidence import Missing, ResultsFolder
from stlight.runs.record import OUTPUTS, RecordError, load_valid_record, read_record, read_state, restore_outputs
from stlight.runtime import run_lock
from stlight.training import train_run
from tests.tiny_runs import tiny

NAME, CONFIG = "taxibj/tiny/seed0", tiny(num_epochs=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    results = tmp_path_factory.mktemp("results")
    train_run(NAME, CONFIG, results / "runs" / NAME, results)
    return results


@pytest.fixture
def results(trained, tmp_path):
    """A copy of a finished run's results, for the test to damage."""
    return shutil.copytree(trained, tmp_path / "results")


@pytest.fixture
def folder(results):
    return results / "runs" / NAME


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    # A history may lose digits of its seconds, which no checksum holds.
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def delete(path):
    path.unlink()


DAMAGES = [flip, cut, delete]
NEEDED = ["history.csv", "losses.csv", "examples.npz"]


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_or_deleted_output_is_put_back(damage, name, folder, caplog):
    before = (folder / name).read_bytes()
    damage(folder / name)
    assert load_valid_record(folder, CONFIG.hash, NAME)
    assert (folder / name).read_bytes() == before
    assert f"{folder / name} " in caplog.text
    assert "put back" in caplog.text


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_without_a_backup_the_run_is_not_done(damage, name, folder, caplog):
    shutil.rmtree(folder / ".finished")
    damage(folder / name)
    assert load_valid_record(folder, CONFIG.hash, NAME) is None
    assert f"{folder / name} " in caplog.text
    assert not (folder / "record.json").exists()
    assert read_state(folder, CONFIG.hash)["status"] == "waiting"


def test_a_damaged_backup_is_not_put_back(folder):
    for path in (folder / "history.csv", folder / ".finished" / "history.csv"):
        flip(path)
    assert load_valid_record(folder, CONFIG.hash, NAME) is None


def test_deleted_weights_do_not_cost_a_training(folder):
    before = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").unlink()
    assert load_valid_record(folder, CONFIG.hash, NAME)
    assert (folder / "weights.safetensors").read_bytes() == before
    shutil.rmtree(folder / ".finished")
    (folder / "weights.safetensors").unlink()
    assert load_valid_record(folder, CONFIG.hash, NAME)


@pytest.mark.parametrize("name", NEEDED)
@pytest.mark.parametrize("damage", DAMAGES)
def test_evidence_names_the_output_and_the_remedy(damage, name, results, folder):
    damage(folder / name)
    found = ResultsFolder(results).run(NAME, CONFIG.hash)
    if (damage, name) == (delete, "examples.npz"):
        # Tables do without it.
        assert not isinstance(found, Missing)
    else:
        assert found.state == "damaged"
        assert found.why.startswith(f"{folder / name} ")
        assert found.why.endswith("; delete the record to train the run again")


def test_a_record_of_another_run_is_refused(results, folder, caplog):
    other = "taxibj/other/seed0"
    shutil.copytree(folder, results / "runs" / other)
    why = f"{results / 'runs' / other / 'record.json'} is not a valid record: it is the record of {NAME}, not of {other}"
    assert ResultsFolder(results).run(other, CONFIG.hash) == Missing("damaged", why)
    with pytest.raises(RecordError, match="it is the record of"):
        read_state(results / "runs" / other, CONFIG.hash, other)
    assert load_valid_record(results / "runs" / other, CONFIG.hash, other) is None
    assert why in caplog.text


def test_a_huge_record_is_refused_before_it_is_read(folder):
    with (folder / "record.json").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(RecordError, match="it is larger than 10000000 bytes"):
        read_record(folder / "record.json")


@pytest.mark.parametrize(("age", "restored"), [(-1000, False), (60, True), (1000, False)])
def test_a_forced_workflow_restores_only_what_is_newer_also_if_the_clock_was_set_back(age, restored, folder):
    record = load_valid_record(folder, CONFIG.hash, NAME)
    written = time.time() - age
    os.utime(folder / ".finished" / "record.json", (written, written))
    for name in OUTPUTS:
        (folder / name).unlink()
    found = restore_outputs(folder, NAME, CONFIG.hash, record.provenance, newer_than=time.time() - 500)
    assert (found == record) == restored
    assert (folder / "record.json").exists() == restored


@pytest.mark.parametrize("name", ["progress.json", ".lock"])
def test_a_pipe_in_a_run_s_folder_is_not_waited_for(name, tmp_path):
    os.mkfifo(tmp_path / name)
    assert read_state(tmp_path, CONFIG.hash)["status"] == "waiting"


def test_a_lock_that_is_a_pipe_is_named(tmp_path):
    os.mkfifo(tmp_path / ".lock")
    with pytest.raises(OSError, match=r"\.lock: is no file, as a lock must be: delete it"), run_lock.hold(tmp_path, print):
        pass


@pytest.mark.parametrize("name", ["history.csv", "losses.csv"])
def test_a_pipe_in_the_place_of_an_output_is_not_waited_for(name, results, folder):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert isinstance(ResultsFolder(results).run(NAME, CONFIG.hash), Missing)
