"""Loading the model of a trained run."""

import shutil

import numpy as np
import pytest
import torch

import stlight
from stlight.config import RunConfig
from stlight.data import TaxiBJStandIn
from stlight.kernels import accelerate, backend_of
from stlight.model import build_model
from stlight.training import train_run
from tests.tiny_runs import tiny


def test_load_run_gives_the_trained_model(recorded, tmp_path):
    _, folder = recorded
    clip = TaxiBJStandIn().clips("test", torch.arange(3))
    for path in (folder, str(folder), folder / "weights.safetensors"):
        model = stlight.load_run(path)
        assert not model.training
        with np.load(folder / "examples.npz") as examples, torch.no_grad():
            prediction = model(clip[:, :4]).clamp(0, 1).numpy()
            np.testing.assert_allclose(examples["prediction"] / 255, prediction, atol=0.5 / 255 + 1e-4)
            np.testing.assert_allclose(examples["truth"] / 255, clip[:, 4:].numpy(), atol=0.5 / 255 + 1e-4)


def test_load_run_accelerates_the_model_and_predicts_what_it_predicted_plainly(recorded):
    clip = TaxiBJStandIn().clips("test", torch.arange(3))[:, :4]
    model = stlight.load_run(recorded[1])
    plain = accelerate(stlight.load_run(recorded[1]), "plain")
    assert backend_of(model) == backend_of(accelerate(build_model(tiny().model, tiny().clip_shape)))
    torch.testing.assert_close(model(clip), plain(clip))


def test_load_run_gives_baselines_and_rollouts(tmp_path):
    clip = TaxiBJStandIn().clips("test", torch.arange(3))
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


@pytest.mark.parametrize("content", ["[]", '{"files": 3}', "null", "7"])
def test_load_run_refuses_a_record_that_is_none(recorded, tmp_path, content):
    shutil.copy(recorded[1] / "weights.safetensors", tmp_path)
    (tmp_path / "record.json").write_text(content)
    with pytest.raises(ValueError, match="weights.safetensors is damaged, or not the weights of a run"):
        stlight.load_run(tmp_path)
