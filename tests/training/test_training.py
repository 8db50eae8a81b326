import json
import os
import re
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from stlight.kernels.choice import COMPETITORS

import stlight
from stlight.config import ConfigError, RunConfig, TrainingConfig
from stlight.data import TaxiBJStandIn
from stlight.data.clips import Clips
from stlight.kernels import using
from stlight.model import build_model
from stlight.runs.record import Heartbeat, RecordError, read_history, read_record, read_state
from stlight.runtime import run_lock
from stlight.training import loop, train, train_run
from stlight.training.devices import choose_device
from stlight.training.loop import Training, flatten_weights
from stlight.training.schedule import build_schedule, one_cycle
from tests.tiny_runs import tiny, without_times


def begin(config):
    return Training(build_model(config.model, config.clip_shape), config)


def test_one_cycle_has_the_protocol_s_values():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = one_cycle(optimizer, max_lr=1e-3, final_div_factor=1e4, total_steps=200 * 625)
    # After n steps of the schedule, up to floating-point error; the learning rate does not depend on the path there.
    golden = {5000: 8.150036e-05, 5625: 9.231961e-05, 6250: 1.0431116e-04, 37500: 1e-3, 124_999: 4e-09}
    seen = {}
    for step in range(1, 125_000):
        optimizer.step()
        schedule.step()
        if step in golden:
            seen[step] = schedule.get_last_lr()[0]
    assert seen == pytest.approx(golden, rel=1e-4)


def test_the_cosine_has_the_protocol_s_values():
    """Those of the scheduler that the benchmark takes from the package timm (1.0.31), stepped with the epoch's number."""
    recipe = TrainingConfig(schedule="cosine", max_lr=5e-4, num_epochs=50, warmup_epochs=5)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=5e-4)
    schedule = build_schedule(optimizer, recipe, steps_per_epoch=3)
    rates = []
    for _ in range(150):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    by_epoch = [rates[3 * epoch] for epoch in range(50)]
    assert rates == [rate for rate in by_epoch for _ in range(3)]
    golden = {0: 1e-05, 1: 0.000108, 4: 0.000402, 5: 0.00048778860081564085, 6: 0.0004824792332291187, 25: 0.0002505}
    golden[49] = 1.492331257146246e-06
    assert {epoch: by_epoch[epoch] for epoch in golden} == pytest.approx(golden, rel=1e-12)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.999)


def test_a_run_on_a_cosine_goes_on_to_the_bit(tmp_path):
    config = tiny(schedule="cosine", warmup_epochs=1, num_epochs=4)
    whole = begin(config)
    dataset = TaxiBJStandIn()
    train(whole, dataset)
    saved = []
    part = begin(config)

    def stop(epoch_ended):
        if len(part.history) == 2 and part.step == 1:
            tensors, facts = part.state()
            saved.append((tensors, json.loads(json.dumps(facts))))

    train(part, dataset, at_safe_point=stop)
    resumed = begin(config)
    resumed.go_on_from(saved[0])
    train(resumed, dataset)
    assert [row["test_mse"] for row in resumed.history] == [row["test_mse"] for row in whole.history]
    assert [row["learning_rate"] for row in whole.history] == pytest.approx(
        [1e-5, *(1e-6 + 0.5 * (1 + np.cos(np.pi * epoch / 4)) * (0.01 - 1e-6) for epoch in (1, 2, 3))]
    )


def test_momentum_cycles_against_the_learning_rate():
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1e-3)
    schedule = one_cycle(optimizer, max_lr=1e-3, final_div_factor=1e4, total_steps=100)
    betas = []
    for _ in range(100):
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        schedule.step() if len(betas) < 100 else None
    assert (betas[0], min(betas), betas[-1]) == pytest.approx((0.95, 0.85, 0.95))


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    return train_run("taxibj/tiny/seed0", tiny(), folder, folder), folder


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
        {name: chosen[f"test_{name}"] for name in ("mse", "mae", "ssim", "ssim_unit_range", "psnr")}
        | {"epoch": chosen["epoch"]}
    )
    assert set(record.trivial) == {"repeat_last_frame", "all_zeros"}
    assert record.provenance["data"] == {"dataset": "taxibj", "source": "stand_in"}
    assert not (folder / "progress.json").exists()


def test_weights_give_the_recorded_predictions(recorded):
    record, folder = recorded
    with safe_open(folder / "weights.safetensors", "pt") as stored:
        config = RunConfig.model_validate(json.loads(stored.metadata()["config"]))
        weights = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118 - not a dict
    assert config == record.config
    model = build_model(config.model, config.clip_shape, seed=99)
    model.load_state_dict(weights)
    with np.load(folder / "examples.npz") as examples:
        clip = TaxiBJStandIn().clips("test", torch.arange(3))
        prediction = model.eval()(clip[:, :4]).detach().clamp(0, 1).numpy()
        np.testing.assert_allclose(examples["prediction"] / 255, prediction, atol=0.5 / 255 + 1e-4)
        np.testing.assert_allclose(examples["truth"] / 255, clip[:, 4:].numpy(), atol=0.5 / 255 + 1e-4)


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


class ExplodingClips(Clips):
    """Clips that turn to `value` after the first epoch."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def clips(self, split, index_N, epoch=0):
        clips = TaxiBJStandIn().clips(split, index_N, epoch)
        return clips + self.value if split == "train" and epoch > 1 else clips


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e4])
def test_divergence_ends_training_with_its_history(value):
    config = tiny()
    result = train(begin(config), ExplodingClips(value))
    assert result.diverged
    assert [row["epoch"] for row in result.history] == [1, 2]


def test_weights_ruined_by_the_last_step_are_seen():
    # The training loss of the only step was still fine.
    config = tiny(num_epochs=1, clips_per_epoch=2, max_lr=1e38)
    result = train(begin(config), TaxiBJStandIn())
    assert np.isfinite(result.history[0]["train_loss"])
    assert result.diverged


def test_a_diverged_run_is_a_result(tmp_path, monkeypatch):
    monkeypatch.setattr("stlight.training.run.open_dataset", lambda *_, **__: (ExplodingClips(float("nan")), {}))
    record = train_run("taxibj/diverges/seed0", tiny(), tmp_path, tmp_path)
    assert record.status == "diverged"
    assert read_record(tmp_path / "record.json").metrics["last"]["mse"] is None
    assert record.metrics["best_on_validation"]["epoch"] == 1
    assert read_state(tmp_path, tiny().hash)["status"] == "diverged"
    # A record of another configuration does not count.
    assert read_state(tmp_path, "another")["status"] == "waiting"


def test_best_takes_the_first_of_equals_and_passes_over_nan():
    rows = [{"epoch": 1, "m": float("nan")}, {"epoch": 2, "m": 3.0}, {"epoch": 3, "m": 3.0}]
    training = begin(tiny())
    training.history = rows
    assert training.best("m")["epoch"] == 2


def test_training_stops_learning_where_the_schedule_says(tmp_path):
    seen = []
    config = tiny(num_epochs=4)
    train(begin(config), TaxiBJStandIn(), on_epoch=lambda row: seen.append(row["learning_rate"]))
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, total_steps=16, final_div_factor=1e4)
    expected = []
    for _ in range(16):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step() if len(expected) < 16 else None
    assert seen == pytest.approx(expected[3::4])


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


def curve(kernels):
    config = tiny(num_epochs=6, kernels=kernels)
    with using(kernels):
        return [row["train_loss"] for row in train(begin(config), TaxiBJStandIn()).history]


@pytest.mark.parametrize("kernels", ["fused", "space_to_batch", "channels_last"])
def test_the_kernels_change_a_training_curve_by_no_more_than_rounding(kernels):
    assert curve(kernels) == pytest.approx(curve("plain"), rel=1e-4)


def test_the_kernels_of_a_run_are_recorded_and_can_be_pinned(recorded, tmp_path):
    device = recorded[0].device
    assert device["kernels"] == min(device["mixer_milliseconds"], key=device["mixer_milliseconds"].get)
    pinned = train_run("taxibj/pinned/seed0", tiny(kernels="plain"), tmp_path, tmp_path).device
    assert (pinned["kernels"], pinned["mixer_milliseconds"]) == ("plain", {})


def test_kernels_that_cannot_serve_are_recorded_as_plain(tmp_path, monkeypatch):
    monkeypatch.setattr("stlight.kernels.fused.mixer_library", lambda dtype: None)
    assert train_run("taxibj/none/seed0", tiny(kernels="fused"), tmp_path, tmp_path).device["kernels"] == "plain"


def test_weights_as_one_parameter_take_the_steps_that_each_would():
    torch.manual_seed(0)
    one, many = (build_model(tiny().model, tiny().clip_shape) for _ in range(2))
    flat, clip = flatten_weights(one), torch.rand(2, 4, 2, 32, 32)
    optimizers = torch.optim.Adam([flat], lr=0.01, fused=True), torch.optim.Adam(many.parameters(), lr=0.01)
    for _ in range(3):
        for model, optimizer in zip((one, many), optimizers, strict=True):
            optimizer.zero_grad(set_to_none=False)
            model(clip).square().mean().backward()
            optimizer.step()
    # Adam's steps near zero gradients are a matter of rounding: the encoder's bias has no other gradient.
    for (name, mine), theirs in zip(one.named_parameters(), many.parameters(), strict=True):
        if name != "patch_encoder.0.bias":
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-6)


def test_clips_drawn_several_batches_at_a_time_are_the_same(monkeypatch):
    config = tiny(clips_per_epoch=11)
    many = list(loop._batches(TaxiBJStandIn(), config, 3))
    monkeypatch.setattr(loop, "_BYTES_AT_ONCE", 1)
    single = list(loop._batches(TaxiBJStandIn(), config, 3))
    assert [len(clip) for clip in many] == [2] * 5
    assert all(torch.equal(a, b) for a, b in zip(many, single, strict=True))


GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@GPU
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("fields", [{}, {"cuda_graphs": True}, *({"kernels": k} for k in COMPETITORS["cuda"])])
def test_a_run_on_a_gpu(tmp_path, precision, fields):
    record = train_run("taxibj/gpu/seed0", tiny(precision=precision, **fields), tmp_path, tmp_path)
    assert record.device["type"] == "cuda"
    assert record.device["kernels"] == fields.get("kernels", record.device["kernels"])
    assert record.status == "done"


@GPU
def test_a_training_step_on_a_gpu_does_not_wait_for_it():
    config = tiny()
    model = build_model(config.model, config.clip_shape).cuda()
    dataset = TaxiBJStandIn(device="cuda")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        for clip in loop._batches(dataset, config, 1):
            model(clip[:, :4]).square().mean().backward()
        torch.cuda.set_sync_debug_mode("default")
    assert not [w for w in caught if "synchroniz" in str(w.message)]


def test_load_run_gives_the_trained_model(recorded, tmp_path):
    _, folder = recorded
    clip = TaxiBJStandIn().clips("test", torch.arange(3))
    for path in (folder, str(folder), folder / "weights.safetensors"):
        model = stlight.load_run(path)
        assert not model.training
        with np.load(folder / "examples.npz") as examples, torch.no_grad():
            prediction = model(clip[:, :4]).clamp(0, 1).numpy()
            np.testing.assert_allclose(examples["prediction"] / 255, prediction, atol=0.5 / 255 + 1e-4)
    baseline = RunConfig.from_fields(
        {"model": "PredRNN.V2", "baseline_width": 1 / 32, "dataset": "taxibj", "source": "stand_in", "num_epochs": 1}
        | {"batch_size": 1, "clips_per_epoch": 1, "validation_clips": 1, "test_clips": 3}
    )
    record = train_run("taxibj/baseline/seed0", baseline, tmp_path / "baseline", tmp_path)
    assert record.device["kernels"] == "plain"
    model = stlight.load_run(tmp_path / "baseline")
    assert record.num_params == sum(p.numel() for p in model.parameters())
    with np.load(tmp_path / "baseline" / "examples.npz") as examples, torch.no_grad():
        prediction = model(clip[:, :4]).clamp(0, 1).numpy()
        np.testing.assert_allclose(examples["prediction"] / 255, prediction, atol=0.5 / 255 + 1e-4)
    rolled_out = tiny(num_epochs=1, prediction="rollout", dataset="kth", clips_per_epoch=2, validation_clips=1, test_clips=1)
    train_run("kth/rollout/seed0", rolled_out, tmp_path / "run", tmp_path)
    assert stlight.load_run(tmp_path / "run")(torch.rand(1, 10, 1, 128, 128)).shape == (1, 20, 1, 128, 128)


def test_load_run_refuses_what_is_no_run(recorded, tmp_path):
    _, folder = recorded
    with pytest.raises(FileNotFoundError, match="is missing: load_run takes the folder of a finished run"):
        stlight.load_run(tmp_path)
    content = (folder / "weights.safetensors").read_bytes()
    for damaged in (content[:-50], b"", content.replace(b"hidden_dim", b"hidden_rim"), b"\x80\x04."):
        (tmp_path / "weights.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="is damaged, or not the weights of a run"):
            stlight.load_run(tmp_path)
    # A flipped bit is seen beside the record.
    flipped = bytearray(content)
    flipped[-3] ^= 1
    (tmp_path / "weights.safetensors").write_bytes(flipped)
    (tmp_path / "record.json").write_bytes((folder / "record.json").read_bytes())
    with pytest.raises(ValueError, match="it does not have the checksum that the record beside it states"):
        stlight.load_run(tmp_path)


def test_a_damaged_history_is_refused(recorded, tmp_path):
    record, folder = recorded
    text = (folder / "history.csv").read_text()
    (tmp_path / "history.csv").write_text(text)
    assert len(read_history(tmp_path, record)) == 3
    for damaged in (text.replace("3,", "4,"), text[:-200], ""):
        (tmp_path / "history.csv").write_text(damaged)
        with pytest.raises(RecordError, match=r"history.csv is damaged"):
            read_history(tmp_path, record)


def test_what_to_do_for_want_of_memory_does_not_change_what_a_run_is():
    assert tiny(out_of_memory="split").hash == tiny().hash != tiny(accumulation_steps=2).hash


def test_deterministic_algorithms_are_asked_for(tmp_path):
    try:
        record = train_run("taxibj/x/seed0", tiny(deterministic=True, num_epochs=1), tmp_path, tmp_path)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
    assert record.status == "done"


def test_parts_must_divide_a_batch():
    with pytest.raises(ConfigError, match="accumulation_steps must divide batch_size 4, got 3"):
        tiny(batch_size=4, accumulation_steps=3)
