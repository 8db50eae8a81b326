"""A run that is stopped and started again ends as one that never was."""

import contextlib
import json
import math
import os
import signal
import time

import pytest
import torch

from stlight.data import TaxiBJStandIn
from stlight.runs.record import OUTPUTS, read_state
from stlight.runtime.process import Interrupted, Interruption
from stlight.training import Training, train, train_run
from stlight.training.checkpoint import pack, unpack
from stlight.training.loop import take_step
from tests.tiny_runs import outputs, tiny
from tests.training.clips import CONFIG, ExplodingClips, SignalledClips, begin

EVALUATIONS = 2
SAFE_POINTS = 3 * (4 + EVALUATIONS + 1)


def train_until(training, number, dataset=None):
    """Train up to the safe point of this number, counted from 1; gives the state there, through a checkpoint's bytes."""
    passed = []

    def at_safe_point(epoch_ended):
        passed.append(epoch_ended)
        if len(passed) == number:
            raise Interrupted("here")

    with contextlib.suppress(Interrupted):
        train(training, dataset or TaxiBJStandIn(), at_safe_point=at_safe_point)
    return unpack(b"".join(pack(training.state_dict())))


@pytest.fixture(scope="module")
def straight():
    return train(begin(), TaxiBJStandIn())


def assert_same(one, other):
    """Weights, statistics of BatchNorm, moments, schedule, random numbers and history to the bit, times aside."""
    (tensors, facts), (other_tensors, other_facts) = one.state_dict(), other.state_dict()
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name
    for state in (facts, other_facts):
        state["history"] = [{k: v for k, v in row.items() if not k.endswith("seconds")} for row in state["history"]]
        del state["seconds"]
    assert json.dumps(facts) == json.dumps(other_facts)


@pytest.mark.parametrize("number", range(1, SAFE_POINTS + 1))
def test_stopped_at_any_safe_point_it_goes_on_to_the_same_end(straight, number):
    state = train_until(begin(), number)
    # Nothing of the first training is left but the bytes; other random numbers have been drawn meanwhile.
    torch.manual_seed(number)
    resumed = begin()
    resumed.load_state_dict(state)
    assert_same(train(resumed, TaxiBJStandIn()), straight)


def test_thinned_losses_survive_a_stop_within_a_row(monkeypatch):
    # Rows of six steps, epochs of four.
    monkeypatch.setattr("stlight.training.loop.LOSS_ROWS", 2)
    whole = train(begin(), TaxiBJStandIn())
    assert [row["step"] for row in whole.loss_rows] == [6, 12]
    for number in range(1, SAFE_POINTS + 1):
        resumed = begin()
        resumed.load_state_dict(train_until(begin(), number))
        assert_same(train(resumed, TaxiBJStandIn()), whole)


def test_stopped_many_times_in_a_row(straight):
    training, state = begin(), None
    for _ in range(SAFE_POINTS):
        if state:
            training = begin()
            training.load_state_dict(state)
        # An evaluation, which is done anew each time, has two.
        state = train_until(training, 3)
    assert_same(training, straight)


@pytest.mark.parametrize("kernels", ["plain", "fused", "space_to_batch"])
def test_whatever_the_kernels_and_parts(kernels):
    config = tiny(num_epochs=2, accumulation_steps=2, prediction="rollout")
    whole, part, resumed = (begin(config, kernels) for _ in range(3))
    train(whole, TaxiBJStandIn())
    resumed.load_state_dict(train_until(part, 6))
    assert_same(train(resumed, TaxiBJStandIn()), whole)


def test_a_diverged_training_stays_so():
    training = train(begin(), ExplodingClips(math.nan))
    resumed = begin()
    resumed.load_state_dict(unpack(b"".join(pack(training.state_dict()))))
    train(resumed, ExplodingClips(math.nan))
    assert resumed.diverged
    assert len(resumed.history) == 2


def test_parts_add_up_to_the_gradients_of_the_whole_batch():
    # Without BatchNorm's statistics, which are each part's own, nothing else can differ.
    clip = torch.rand(4, 8, 2, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients, losses = [], []
    for parts in (1, 2, 4):
        training = begin()
        training.model.eval()
        losses.append(float(take_step(training.model, training.optimizer, clip, 4, CONFIG.training, parts)))
        gradients.append(training.optimizer.flat.grad)
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-5)
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-3, atol=1e-6)


# -- whole runs, from folder to folder


def run_with_signals(folder, monkeypatch, at):
    interruption = Interruption()
    monkeypatch.setattr("stlight.training.run.open_dataset", lambda *_, **__: (SignalledClips(at), {}))
    with interruption.noticed():
        return train_run("taxibj/tiny/seed0", CONFIG, folder, folder, interruption=interruption)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("straight")
    with pytest.MonkeyPatch.context() as patch:
        run_with_signals(folder, patch, {})
    return outputs(folder)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
@pytest.mark.parametrize("request_number", [1, 2, 3, 5, 7])
def test_signals_stop_a_run_that_then_goes_on(tmp_path, monkeypatch, uninterrupted, number, request_number):
    with pytest.raises(Interrupted, match=number.name):
        run_with_signals(tmp_path, monkeypatch, {request_number: [number]})
    state = read_state(tmp_path, CONFIG.hash)
    assert (state["status"], state["why"]) == ("interrupted", f"stopped by {number.name}")
    assert list(tmp_path.glob("checkpoints/*/*.checkpoint"))
    assert not (tmp_path / "record.json").exists()
    run_with_signals(tmp_path, monkeypatch, {})
    assert outputs(tmp_path) == uninterrupted
    # Nothing but what a run leaves.
    assert {path.name for path in tmp_path.iterdir()} == {*OUTPUTS, ".finished"}


def test_what_is_computed_otherwise_after_a_resume_is_said_and_recorded(tmp_path, monkeypatch, caplog):
    with pytest.raises(Interrupted):
        run_with_signals(tmp_path, monkeypatch, {4: [signal.SIGTERM]})
    # As on a host without a compiler.
    monkeypatch.setattr("stlight.kernels.fused.libraries", lambda: None)
    record = run_with_signals(tmp_path, monkeypatch, {})
    assert record.device["kernels"] == "plain"
    assert record.device["changed"] == ["from epoch 2, step 1: kernels plain after fused"]
    assert "its last digits will differ" in caplog.text


def test_a_checkpoint_of_other_data_is_set_aside(tmp_path, monkeypatch, uninterrupted, caplog):
    def clips_of(facts):
        monkeypatch.setattr(
            "stlight.training.run.open_dataset", lambda *_, **__: (SignalledClips({4: [signal.SIGTERM]}), facts)
        )
        interruption = Interruption()
        with interruption.noticed():
            train_run("taxibj/tiny/seed0", CONFIG, tmp_path, tmp_path, interruption=interruption)

    for number in range(2):
        with pytest.raises(Interrupted):
            clips_of({"sha256": number})
    assert "belongs to another data" in caplog.text


def test_a_second_signal_during_a_save_breaks_nothing(tmp_path, monkeypatch, uninterrupted):
    fsync = os.fsync

    def signalled(descriptor):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", signalled)
    with pytest.raises(Interrupted):
        run_with_signals(tmp_path, monkeypatch, {2: [signal.SIGTERM, signal.SIGUSR1]})
    monkeypatch.setattr(os, "fsync", fsync)
    run_with_signals(tmp_path, monkeypatch, {})
    assert outputs(tmp_path) == uninterrupted


def test_a_run_that_ended_just_after_its_record_is_tidied(tmp_path, monkeypatch, uninterrupted):
    run_with_signals(tmp_path, monkeypatch, {})
    (tmp_path / "checkpoints" / CONFIG.hash).mkdir(parents=True)
    (tmp_path / "progress.json").write_text("{}")
    run_with_signals(tmp_path, monkeypatch, {1: [signal.SIGTERM]})
    assert {path.name for path in tmp_path.iterdir()} == {*OUTPUTS, ".finished"}
    assert read_state(tmp_path, CONFIG.hash)["status"] == "done"


def sessions(folder, monkeypatch, newer_than=0.0):
    """How many times a run is trained when it is asked for."""
    began = []
    original = Training.__init__
    with monkeypatch.context() as patch:
        patch.setattr(Training, "__init__", lambda *a, **k: began.append(1) or original(*a, **k))
        patch.setattr("stlight.training.run.open_dataset", lambda *_, **__: (SignalledClips({}), {}))
        train_run("taxibj/tiny/seed0", CONFIG, folder, folder, newer_than=newer_than)
    return len(began)


def test_outputs_of_a_finished_run_that_were_deleted_are_put_back(tmp_path, monkeypatch, uninterrupted):
    run_with_signals(tmp_path, monkeypatch, {})
    for deleted in (["record.json"], list(OUTPUTS)):
        for name in deleted:
            (tmp_path / name).unlink()
        started = time.time()
        assert sessions(tmp_path, monkeypatch) == 0
        assert outputs(tmp_path) == uninterrupted
        # Newer than what the workflow has made them from.
        assert all((tmp_path / name).stat().st_mtime > started - 1 for name in OUTPUTS)


def test_but_not_if_they_are_damaged_or_of_another_version_or_older_than_asked(tmp_path, monkeypatch, uninterrupted):
    def delete_outputs():
        for name in OUTPUTS:
            (tmp_path / name).unlink(missing_ok=True)

    run_with_signals(tmp_path, monkeypatch, {})
    delete_outputs()
    assert sessions(tmp_path, monkeypatch, newer_than=time.time() + 1) == 1
    delete_outputs()
    kept = tmp_path / ".finished" / "weights.safetensors"
    kept.write_bytes(kept.read_bytes()[:-1] + b"x")
    assert sessions(tmp_path, monkeypatch) == 1
    delete_outputs()
    with monkeypatch.context() as patch:
        patch.setattr("stlight.runs.provenance.source_version", lambda: "another")
        assert sessions(tmp_path, patch) == 1
    delete_outputs()
    assert sessions(tmp_path, monkeypatch) == 1
    assert outputs(tmp_path) == uninterrupted


def test_a_damaged_record_is_set_aside_and_the_run_trained_again(tmp_path, monkeypatch, uninterrupted, caplog):
    run_with_signals(tmp_path, monkeypatch, {})
    path = tmp_path / "record.json"
    path.write_bytes(path.read_bytes()[:-100])
    run_with_signals(tmp_path, monkeypatch, {})
    assert outputs(tmp_path) == uninterrupted
    assert f"{path} is not a valid record" in caplog.text
    assert (tmp_path / "record.json.set-aside").exists()


def test_one_of_another_model_is_set_aside(tmp_path, monkeypatch, uninterrupted, caplog):
    with pytest.raises(Interrupted):
        run_with_signals(tmp_path, monkeypatch, {3: [signal.SIGTERM]})
    newest = max(tmp_path.rglob("*.checkpoint"))
    tensors, facts = unpack(newest.read_bytes())
    del tensors["model.patch_encoder.0.weight"]
    newest.write_bytes(b"".join(pack((tensors, facts))))
    run_with_signals(tmp_path, monkeypatch, {})
    assert "holds another model" in caplog.text
    assert outputs(tmp_path) == uninterrupted
