"""Planted differences between two runs are found, each alone, whichever version of OpenSTL or the suite made them."""

import json

import pytest

from stlight.cli import main
from stlight.openstl.diagnose import diagnose, facts_of
from stlight.openstl.facts import FACTS
from stlight.openstl.rates import BY_EPOCH_IN_STEPS
from tests.openstl.workdirs import write_work_dir
from tests.tiny_runs import record_untrained, tiny

# What is planted, the fact that shows it, and its value.
PLANTED = [
    ({"stepped": "by epoch"}, "schedule stepped", BY_EPOCH_IN_STEPS),
    ({"ssim_range": 1}, "data range of SSIM", "1"),
    ({"tested_epoch": "last"}, "epoch reported", "the last"),
    ({"validation": 1.03}, "validation clips", "other clips"),
    ({"test_clips": 32}, "test clips", "32"),
    ({"steps": 312}, "training clips per epoch", "4992"),
    ({"tracked": 0}, "BatchNorm at test", "no running statistics"),
    ({"tracked": 100}, "BatchNorm at test", "running statistics of 100 steps, epochs have 625"),
    ({"momentum": 0.01}, "BatchNorm momentum", "0.01"),
    ({"fp16": True, "dist": True}, "precision", "float16 autocast"),
    ({"unit": 1 / 1024}, "MSE and MAE", "averaged over a frame"),
    ({"weight_decay": 0.01}, "optimizer", "adam, weight decay 0.01"),
    ({"clip_grad": 1.0}, "optimizer", "adam, weight decay 0, gradients clipped at 1 by norm"),
    ({"use_augment": True}, "augmentation", "yes"),
    ({"final_div_factor": 100.0}, "schedule", "onecycle, final div factor 100"),
    ({"lr": 3e-3}, "learning rate", "0.003"),
]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_work_dir(tmp_path_factory.mktemp("work_dirs") / "plain")


def differing(a, b):
    return {line.name for line in diagnose(a, b).of("different")}


@pytest.mark.parametrize(("planted", "fact", "value"), PLANTED, ids=[str(p) for p, *_ in PLANTED])
def test_a_planted_difference_is_found_and_nothing_else(planted, fact, value, plain, tmp_path):
    other = write_work_dir(tmp_path / "other", **planted)
    assert differing(plain, other) == {fact}
    assert facts_of(other)[fact].value == value
    assert diagnose(plain, plain).exit_status == 0
    assert not diagnose(plain, plain).of("unknown")


@pytest.mark.parametrize(
    ("planted", "fact"),
    [
        ({"stepped": "by epoch"}, "schedule stepped"),
        ({"ssim_range": 1}, "data range of SSIM"),
        ({"tested_epoch": "best"}, "epoch reported"),
        ({"validation": 1.03}, "validation clips"),
        ({"tracked": 0}, "BatchNorm at test"),
        ({"unit": 1 / 1024}, "MSE and MAE"),
        ({"test_clips": 32}, "test clips"),
    ],
)
def test_planted_differences_in_lightning_runs(planted, fact, tmp_path):
    usual = {"version": "v1.0.0", "tested_epoch": "last"}
    one, other = (write_work_dir(tmp_path / name, **usual | more) for name, more in (("one", {}), ("other", planted)))
    assert differing(one, other) == {fact}


def test_the_versions_report_different_epochs(plain, tmp_path):
    lightning = write_work_dir(tmp_path / "lightning", version="v1.0.0", tested_epoch="last")
    assert differing(plain, lightning) == {"epoch reported"}


def test_a_shifted_range_of_targets_is_found(plain, tmp_path):
    # It also changes what the errors are, so that only this fact is looked at.
    other = write_work_dir(tmp_path / "other", scale=(-1.0, 1.0))
    assert facts_of(plain)["range of targets"].value == "[0, 1]"
    assert facts_of(other)["range of targets"].value == "[-1, 1]"


@pytest.fixture
def ours(tmp_path):
    fields = {"dataset": "mmnist", "source": "files", "hidden_dim": 8, "num_epochs": 4, "batch_size": 16, "max_lr": 1e-3}
    fields |= {"clips_per_epoch": 10_000, "test_clips": 16, "validation_clips": 16, "downsampling": 2}

    def write(**changed):
        name = f"mmnist/{len(list(tmp_path.glob('runs/*/*')))}/seed0"
        (tmp_path / "runs" / name).mkdir(parents=True)
        record_untrained(tmp_path, name, tiny(**fields | changed))
        return tmp_path / "runs" / name

    return write


def test_a_run_of_ours_differs_from_one_of_theirs_in_what_openstl_does_otherwise(plain, ours):
    found = diagnose(ours(), plain)
    assert {line.name for line in found.of("different")} == {"validation clips", "epoch reported"}
    assert {line.name for line in found.of("unknown")} == {"TensorFloat-32"}


@pytest.mark.parametrize(
    ("changed", "fact"),
    [
        ({"max_lr": 1e-2}, "learning rate"),
        ({"accumulation_steps": 4}, "clips per BatchNorm"),
        ({"clips_per_epoch": 5_000}, "training clips per epoch"),
        ({"source": "embedded"}, "data set"),
        ({"schedule": "cosine"}, "schedule"),
        ({"k2": 5}, "model"),
    ],
)
def test_planted_differences_in_runs_of_ours(changed, fact, ours):
    expected = {fact} | ({"schedule stepped"} if fact == "schedule" else set())
    assert differing(ours(), ours(**changed)) == expected


def test_an_unknown_fact_is_no_difference_and_is_said(plain, tmp_path, capsys):
    other = write_work_dir(tmp_path / "other", ssim_range=1)
    for name in ("preds", "trues"):
        (other / "saved" / f"{name}.npy").unlink()
    (other / "checkpoint.pth").unlink()
    found = diagnose(plain, other)
    # Without the frames, the number of test clips is the published one.
    assert {line.name for line in found.of("different")} == {"test clips"}
    assert {line.name for line in found.of("unknown")} == {"data range of SSIM", "range of targets", "BatchNorm at test"}
    assert main(["diagnose", str(plain), str(other)]) == 1
    printed = capsys.readouterr().out
    assert "data range of SSIM: B: no frames are saved" in printed
    assert "there is no checkpoint" in printed


def test_the_exit_status_and_the_document(plain, tmp_path, capsys):
    other = write_work_dir(tmp_path / "other", stepped="by epoch")
    assert main(["diagnose", str(plain), str(plain)]) == 0
    assert "no known fact of the protocols differs" in capsys.readouterr().out
    assert main(["diagnose", str(plain), str(other), "--json", "-"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert [line["fact"] for line in document["facts"]] == list(FACTS)
    (line,) = (line for line in document["facts"] if line["outcome"] == "different")
    assert line["fact"] == "schedule stepped"
    assert "OpenSTL issues 99" in line["see"]
    assert "by step it would be" in line["b"]["evidence"]


@pytest.mark.parametrize("content", [None, "{", "[]"])
def test_what_is_no_run_is_refused_in_one_line(content, plain, tmp_path, capsys):
    if content is not None:
        (tmp_path / "model_param.json").write_text(content)
    assert main(["diagnose", str(plain), str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("stlight: ")
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("setting", "statuses"),
    [
        ({"lr": [1]}, {2}),
        ({"lr": "fast"}, {2}),
        ({"epoch": "4"}, {1, 2}),
        # Without a number of clips, nothing that depends on it is known.
        ({"batch_size": 0}, {0}),
        ({"in_shape": "x"}, {1, 2}),
        ({"stlight": 3}, {1, 2}),
    ],
)
def test_settings_of_the_wrong_kind_raise_nothing_but_one_line(setting, statuses, plain, tmp_path, capsys):
    other = write_work_dir(tmp_path / "other")
    settings = json.loads((other / "model_param.json").read_text())
    (other / "model_param.json").write_text(json.dumps(settings | setting))
    status = main(["diagnose", str(plain), str(other)])
    message = capsys.readouterr().err
    assert (status == 2) == message.startswith("stlight: ")
    assert message.count("\n") == (status == 2)
    assert status in statuses
