"""One run from its configuration to its record, and what is told of it meanwhile."""

import math
import os
import re

import pandas as pd
import pytest
import torch

from stlight.kernels import race
from stlight.kernels.backends import SpaceToBatchBackend
from stlight.kernels.race import COMPETITORS
from stlight.metrics import FRAME_METRICS
from stlight.runs.record import Heartbeat, RecordError, read_history, read_output, read_record, read_state
from stlight.runtime import run_lock
from stlight.training import loop, train_run
from stlight.training.devices import choose_device
from tests.tiny_runs import tiny, without_times
from tests.training.clips import ExplodingClips


def test_a_run_learns(tmp_path):
    config = tiny(num_epochs=25)
    record = train_run("taxibj/learns/seed0", config, tmp_path, tmp_path)
    loss = pd.read_csv(tmp_path / "history.csv")["train_loss"]
    assert loss.iloc[-1] < 0.1 * loss.iloc[0]
    assert record.metrics["last"]["mse"] < record.trivial["all_zeros"]["mse"]


def test_a_run_leaves_a_whole_record(recorded):
    record, folder = recorded
    assert record.status == "done"
    assert read_record(folder / "record.json") == record
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3]
    # Nine clips in batches of two: the ninth is dropped. The last step of the cycle is its end.
    assert history["learning_rate"].iloc[-1] == pytest.approx(0.01 / 25 / 1e4, rel=1e-6)
    assert record.metrics["last"]["mse"] == history["test_mse"].iloc[-1]
    assert record.metrics["best_on_test"]["mse"] == history["test_mse"].min()
    chosen = history.loc[history["validation_mse"].idxmin()]
    assert record.metrics["best_on_validation"] == pytest.approx(
        {name: chosen[f"test_{name}"] for name in set(FRAME_METRICS) - {"lpips"}} | {"epoch": chosen["epoch"]}
    )
    assert set(record.trivial) == {"repeat_last_frame", "all_zeros", "mean_of_context"}
    assert record.provenance["data"] == {"dataset": "taxibj", "source": "stand_in"}
    assert not (folder / "progress.json").exists()


@pytest.mark.parametrize("dataset", ["taxibj", "mmnist"])
def test_the_same_run_twice_gives_the_same_record(dataset, data_root, tmp_path):
    config = tiny(dataset=dataset, source="stand_in" if dataset == "taxibj" else "embedded", num_epochs=2)
    first, second = (train_run("again/tiny/seed0", config, tmp_path / name, data_root) for name in ("a", "b"))
    assert without_times(first) == without_times(second)
    for name in ("weights.safetensors", "examples.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    columns = [c for c in pd.read_csv(tmp_path / "a" / "history.csv") if not c.endswith("seconds")]
    pd.testing.assert_frame_equal(*(pd.read_csv(tmp_path / name / "history.csv")[columns] for name in ("a", "b")))


def test_seeds_differ(tmp_path):
    records = [train_run(f"x/tiny/seed{s}", tiny().model_copy(update={"seed": s}), tmp_path / str(s), tmp_path) for s in (0, 1)]
    assert records[0].metrics["last"]["mse"] != records[1].metrics["last"]["mse"]
    # The test clips do not depend on the seed.
    assert records[0].trivial == records[1].trivial


def test_a_diverged_run_is_a_result(tmp_path, monkeypatch):
    monkeypatch.setattr("stlight.training.run.open_dataset", lambda *_, **__: (ExplodingClips(float("nan")), {}))
    record = train_run("taxibj/diverges/seed0", tiny(), tmp_path, tmp_path)
    assert record.status == "diverged"
    assert read_record(tmp_path / "record.json").metrics["last"]["mse"] is None
    assert record.metrics["best_on_validation"]["epoch"] == 1
    assert read_state(tmp_path, tiny().hash)["status"] == "diverged"
    # A record of another configuration does not count.
    assert read_state(tmp_path, "another")["status"] == "waiting"


@pytest.mark.parametrize(("factor", "status"), [(9.9, "done"), (10.1, "diverged"), (1e22, "diverged")])
def test_a_run_whose_last_test_error_exploded_has_diverged(factor, status, tmp_path, monkeypatch):
    # Finite, and never larger than a thousand times the first loss: BatchNorm's running statistics can do that alone.
    worst = train_run("taxibj/calm/seed0", tiny(num_epochs=1), tmp_path / "calm", tmp_path).trivial

    def score(predict, dataset, split, *rest, **options):
        scores = evaluate(predict, dataset, split, *rest, **options)
        model_is_evaluated = getattr(predict, "__qualname__", "").startswith("predictor")
        return scores | {"mse": factor * max(s["mse"] for s in worst.values())} if model_is_evaluated else scores

    evaluate = loop.evaluate
    monkeypatch.setattr(loop, "evaluate", score)
    record = train_run("taxibj/explodes/seed0", tiny(), tmp_path / "run", tmp_path)
    assert (record.status, record.trivial) == (status, worst)
    assert read_state(tmp_path / "run", tiny().hash)["status"] == status
    # The training goes on, because it may recover, and the numbers are kept.
    assert len(pd.read_csv(tmp_path / "run" / "history.csv")) == 3
    assert math.isfinite(record.metrics["last"]["mse"])


def test_losses_are_kept_by_step_and_thinned_to_means_of_equally_many(tmp_path, monkeypatch):
    train_run("taxibj/all/seed0", tiny(), tmp_path / "all", tmp_path)
    monkeypatch.setattr(loop, "LOSS_ROWS", 4)
    record = train_run("taxibj/thin/seed0", tiny(), tmp_path / "thin", tmp_path)
    every, thinned = (pd.read_csv(tmp_path / name / "losses.csv") for name in ("all", "thin"))
    # Three epochs of four steps each.
    assert list(every["step"]) == list(range(1, 13))
    history = pd.read_csv(tmp_path / "all" / "history.csv")
    assert every["train_loss"].groupby((every["step"] - 1) // 4).mean().tolist() == pytest.approx(
        history["train_loss"].tolist()
    )
    # Rows of three steps cross the epochs.
    assert list(thinned["step"]) == [3, 6, 9, 12]
    means = every["train_loss"].groupby((every["step"] - 1) // 3).mean()
    assert thinned["train_loss"].tolist() == pytest.approx(means.tolist())
    assert read_output(tmp_path / "thin", record, "losses.csv").startswith(b"step,train_loss")
    # A run of one step more has rows of four, and no incomplete one.
    monkeypatch.setattr(loop, "LOSS_ROWS", 11)
    train_run("taxibj/rest/seed0", tiny(), tmp_path / "rest", tmp_path)
    assert list(pd.read_csv(tmp_path / "rest" / "losses.csv")["step"]) == [2, 4, 6, 8, 10, 12]


def test_damaged_losses_are_refused(recorded, tmp_path):
    record, folder = recorded
    content = (folder / "losses.csv").read_bytes()
    for damaged in (content.replace(b"1,", b"2,", 1), content[:-20], b""):
        (tmp_path / "losses.csv").write_bytes(damaged)
        with pytest.raises(RecordError, match=r"losses.csv is damaged"):
            read_output(tmp_path, record, "losses.csv")
    (tmp_path / "losses.csv").unlink()
    with pytest.raises(RecordError, match=r"losses.csv cannot be read"):
        read_output(tmp_path, record, "losses.csv")


def test_a_recorded_run_is_not_trained_again_unless_its_configuration_changed(recorded):
    record, folder = recorded
    assert train_run(record.run, tiny(), folder, folder).provenance == record.provenance
    changed = train_run(record.run, tiny(num_epochs=1), folder, folder)
    assert changed.config_hash != record.config_hash
    assert read_record(folder / "record.json") == changed
    train_run(record.run, tiny(), folder, folder)


def test_damaged_and_foreign_records_are_refused(recorded, tmp_path):
    _, folder = recorded
    text = (folder / "record.json").read_text()
    for damaged, words in [
        (text[: len(text) // 2], "not a valid record"),
        ("", "not a valid record"),
        ("[]", "not a valid record"),
        (text.replace('"done"', '"perfect"'), "status"),
        (re.sub(r'("mse": \d+\.)', r"\g<1>9", text, count=1), "does not have the checksum it states"),
        (text.replace('"k1": 3', '"k1": 5'), "does not have the checksum it states"),
        (text.replace('"checksum"', '"sum"'), "sum"),
        ("[" * 200_000, "not a valid record"),
    ]:
        path = tmp_path / "record.json"
        path.write_text(damaged)
        with pytest.raises(RecordError, match=words) as caught:
            read_record(path)
        assert str(path) in str(caught.value)


def test_a_failed_run_says_why_in_its_state(tmp_path):
    with pytest.raises(ValueError, match="is missing"):
        train_run("mmnist/x/seed0", tiny(dataset="mmnist", source="embedded"), tmp_path / "run", tmp_path)
    state = read_state(tmp_path / "run", tiny(dataset="mmnist", source="embedded").hash)
    assert state["status"] == "failed"
    assert "python -m stlight prepare" in state["error"]


def test_states_of_runs_under_way(tmp_path):
    assert read_state(tmp_path, "any") == {"status": "waiting"}
    with run_lock.hold(tmp_path):
        assert read_state(tmp_path, "any")["status"] == "starting"
        heartbeat = Heartbeat(tmp_path, config_hash="any", num_epochs=5)
        heartbeat.beat(epoch=2, seconds=1.0)
        assert read_state(tmp_path, "any") | {"status": "running", "epoch": 2} == read_state(tmp_path, "any")
    assert read_state(tmp_path, "any")["status"] == "interrupted"
    assert read_state(tmp_path, "another")["status"] == "waiting"
    # Noted by the process before: the one that has it now has not begun.
    (tmp_path / "progress.json").write_text(
        (tmp_path / "progress.json").read_text().replace(f'"pid": {os.getpid()}', '"pid": 1')
    )
    with run_lock.hold(tmp_path):
        assert read_state(tmp_path, "any")["pid"] == os.getpid()
        assert read_state(tmp_path, "any")["status"] == "starting"
    for damaged in ("", "{}", "[]", "[" * 200_000, '{"epoch": 1}'):
        (tmp_path / "progress.json").write_text(damaged)
        assert read_state(tmp_path, "any") == {"status": "waiting"}


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(ValueError, match="auto, cpu or cuda, got 'tpu'"):
        choose_device("tpu")
    if not torch.cuda.is_available():
        assert choose_device().type == "cpu"
        with pytest.raises(ValueError, match="torch sees no CUDA device"):
            choose_device("cuda")


def test_the_kernels_of_a_run_are_recorded_and_can_be_pinned(recorded, tmp_path):
    device = recorded[0].device
    assert device["kernels"] == min(device["mixer_milliseconds"], key=device["mixer_milliseconds"].get)
    pinned = train_run("taxibj/pinned/seed0", tiny(kernels="plain"), tmp_path, tmp_path).device
    assert (pinned["kernels"], pinned["mixer_milliseconds"]) == ("plain", {})


@pytest.mark.parametrize("all_fail", [True, False])
def test_kernels_that_fail_while_being_timed_are_recorded_and_stop_nothing(all_fail, tmp_path, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("broken")

    monkeypatch.setattr(race, "cache_folder", lambda: None)
    target, name = (race, "milliseconds") if all_fail else (SpaceToBatchBackend, "mixer")
    monkeypatch.setattr(target, name, fail)
    device = train_run("taxibj/drops/seed0", tiny(num_epochs=1), tmp_path, tmp_path).device
    assert device["dropped_out"]["space_to_batch"] == "RuntimeError: broken"
    assert "kernels space_to_batch dropped out" in caplog.text
    assert device["kernels"] == ("plain" if all_fail else next(iter(device["mixer_milliseconds"])))


def test_kernels_that_cannot_serve_are_recorded_as_plain(tmp_path, monkeypatch):
    monkeypatch.setattr("stlight.kernels.fused.libraries", lambda: None)
    assert train_run("taxibj/none/seed0", tiny(kernels="fused"), tmp_path, tmp_path).device["kernels"] == "plain"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fields", [{}, {"cuda_graphs": True}, *({"kernels": k} for k in COMPETITORS["cuda"])])
def test_a_run_on_a_gpu(tmp_path, precision, fields):
    record = train_run("taxibj/gpu/seed0", tiny(precision=precision, **fields), tmp_path, tmp_path)
    assert record.device["type"] == "cuda"
    assert record.device["kernels"] == fields.get("kernels", record.device["kernels"])
    assert record.status == "done"


def test_a_damaged_history_is_refused(recorded, tmp_path):
    record, folder = recorded
    text = (folder / "history.csv").read_text()
    (tmp_path / "history.csv").write_text(text)
    assert len(read_history(tmp_path, record)) == 3
    for damaged in (text.replace("3,", "4,"), text[:-200], ""):
        (tmp_path / "history.csv").write_text(damaged)
        with pytest.raises(RecordError, match=r"history.csv is damaged"):
            read_history(tmp_path, record)


def test_deterministic_algorithms_are_asked_for(tmp_path):
    try:
        record = train_run("taxibj/x/seed0", tiny(deterministic=True, num_epochs=1), tmp_path, tmp_path)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert record.status == "done"
