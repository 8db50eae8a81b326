"""A finished run of OpenSTL becomes a record that `load_run`, `compare` and `diagnose` read; others are refused in one line."""

import json
import os

import numpy as np
import pandas as pd
import pytest
import torch

from stlight import load_run
from stlight.cli import main
from stlight.openstl.importing import import_run
from stlight.openstl.workdir import WorkDir, WorkDirError
from stlight.runs.record import read_record
from tests.openstl.workdirs import model, write_work_dir


@pytest.fixture
def plant(tmp_path):
    return lambda **changed: write_work_dir(tmp_path / "work_dirs" / "mine", side=64, **changed)


def test_the_record_has_the_runs_configuration_and_metrics(plant, tmp_path):
    folder = import_run(plant(), tmp_path / "results")
    record = read_record(folder / "record.json", "mmnist/mine/seed42")
    fields = record.config.fields
    assert (fields["hidden_dim"], fields["k1"], fields["k2"], fields["num_epochs"]) == (8, 3, 7, 4)
    assert (fields["max_lr"], fields["clips_per_epoch"], fields["test_clips"], fields["source"]) == (1e-3, 10_000, 16, "files")
    run = WorkDir(tmp_path / "work_dirs" / "mine")
    assert record.metrics["best_on_test"] == run.test_metrics | {"epoch": 3}
    last = record.metrics["last"]
    assert last["mse"] == pytest.approx(1.2 * run.test_metrics["mse"])
    assert last["ssim"] is None
    assert record.metrics["best_on_validation"]["mse"] is None
    assert record.seconds["total"] == 4 * 3600
    assert "best_on_validation" in record.provenance["unknown"]
    assert record.num_params == sum(p.numel() for p in model().parameters())
    history = pd.read_csv(folder / "history.csv")
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert history["test_mse"][2] == pytest.approx(run.test_metrics["mse"])


def test_the_weights_are_loaded(plant, tmp_path):
    loaded = load_run(import_run(plant(), tmp_path))
    clip = torch.rand(1, 10, 1, 64, 64)
    weights = WorkDir(tmp_path / "work_dirs" / "mine").checkpoint.weights
    expected = model()
    expected.load_state_dict(weights)
    torch.testing.assert_close(loaded(clip), expected.eval()(clip))


def test_two_imports_are_compared_and_diagnosed(plant, tmp_path, capsys):
    source = plant()
    for name in ("a", "b"):
        assert main(["import", "openstl", str(source), "--results", str(tmp_path / name)]) == 0
    folder = capsys.readouterr().out.splitlines()[0]
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    assert "4 the same to the bit" in capsys.readouterr().out
    assert main(["diagnose", folder, str(source)]) == 0


def test_a_lightning_run_has_the_tests_metrics_of_its_last_epoch(plant, tmp_path):
    source = plant(version="v1.0.0", tested_epoch="last")
    folder = import_run(source, tmp_path)
    record = read_record(folder / "record.json")
    assert record.metrics["last"] == WorkDir(source).test_metrics | {"epoch": 4}
    assert record.metrics["best_on_test"]["ssim"] is None
    assert (folder / "weights.safetensors").exists()
    # v1.0.0 logs an epoch's loss one line later, and not that of the last.
    assert pd.read_csv(folder / "history.csv")["train_loss"].isna().tolist() == [False, False, True]


def test_weights_of_another_epoch_than_the_tested_are_left_out(plant, tmp_path):
    source = plant(version="v1.0.0", tested_epoch="last")
    path = source / "checkpoints" / "last.ckpt"
    torch.save(torch.load(path) | {"epoch": 2, "global_step": 3 * 625}, path)
    assert not (import_run(source, tmp_path) / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"method": "SimVP"}, "is a run of SimVP, not of STLight"),
        ({"stepped": "by epoch"}, "schedule stepped is 'by epoch, of a cycle counted in steps', must be 'by step'"),
        ({"weight_decay": 0.1}, "optimizer is 'adam, weight decay 0.1', must be 'adam, weight decay 0'"),
        ({"validation": 1.03}, "validation clips is 'other clips', must be 'the test clips'"),
        ({"seed": -1}, "model_param.json: seed: input should be greater than or equal to 0, got -1"),
        ({"gpus": [0, 1], "version": "v1.0.0", "tested_epoch": "last"}, "trained by 2 processes"),
    ],
)
def test_what_a_record_cannot_say_is_refused(changed, words, plant, tmp_path, capsys):
    assert main(["import", "openstl", str(plant(**changed)), "--results", str(tmp_path / "results")]) == 1
    message = capsys.readouterr().err
    assert words in message
    assert message.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_a_run_that_is_not_finished_is_refused(plant, tmp_path):
    source = plant()
    log = next(source.glob("train_*.log"))
    log.write_text("\n".join(log.read_text().splitlines()[:-5]))
    with pytest.raises(WorkDirError, match="is not finished: epoch 3 of 4 is logged, and no test"):
        import_run(source, tmp_path / "results")


class Harmful:
    """Create a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def test_a_checkpoint_that_holds_code_is_refused_and_not_run(plant, tmp_path):
    source = plant()
    torch.save({"state_dict": Harmful(tmp_path / "harm")}, source / "checkpoint.pth")
    with pytest.raises(WorkDirError, match="is damaged or holds more than weights, and is not read"):
        import_run(source, tmp_path / "results")
    assert not (tmp_path / "harm").exists()


def test_an_array_that_holds_objects_is_refused_and_not_run(plant, tmp_path):
    source = plant()
    np.save(source / "saved" / "preds.npy", np.array([Harmful(tmp_path / "harm")]), allow_pickle=True)
    with pytest.raises(WorkDirError, match="preds.npy is damaged or holds objects, and is not read"):
        import_run(source, tmp_path / "results")
    assert not (tmp_path / "harm").exists()


def test_a_checkpoint_of_another_model_is_refused(plant, tmp_path):
    source = plant()
    settings = json.loads((source / "model_param.json").read_text())
    settings["stlight"]["hidden_dim"] = 16
    (source / "model_param.json").write_text(json.dumps(settings))
    with pytest.raises(WorkDirError, match="its checkpoint is not of the model that model_param.json describes"):
        import_run(source, tmp_path / "results")
