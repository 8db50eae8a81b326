import numpy as np
import pytest

from stlight.cli import main
from stlight.registry.dataset_specs import DATASETS
from tests.data.real_files import COUNTS


@pytest.fixture
def options(published, tmp_path):
    return ["--workflow", str(published), "--data-root", str(tmp_path / "data")]


def test_missing_files_are_listed_with_the_runs_that_wait(options, capsys):
    assert main(["doctor", *options, "--scale", "paper"]) == 1
    text = capsys.readouterr().out
    assert "dataset.npz is missing: python -m stlight fetch taxibj\n  stops 11 runs at scale paper: main_table3" in text
    assert "stops 148 runs at scale paper: " in text
    to_prepare = sum(spec.prepared_megabytes for spec in DATASETS.values())
    assert f"disk: about 60 MB to fetch and {to_prepare} MB to prepare" in text
    assert main(["doctor", *options, "--scale", "demo"]) == 0


def test_existing_files_are_verified_counted_and_compared_with_the_scale(options, workflow, tmp_path, capsys):
    assert main(["fetch", "all", *options]) == 0
    for dataset in COUNTS:
        assert main(["prepare", dataset, "files", *options]) == 0
    options += ["--scale", "paper"]
    assert main(["doctor", *options]) == 1
    assert "taxibj has 6 test clips, scale paper asks for 500" in capsys.readouterr().out
    scale = workflow / "scales" / "paper.yaml"
    scale.write_text(f"{scale.read_text()}custom: {{clips_per_epoch: 16, validation_clips: 1, test_clips: 6}}\n")
    assert main(["doctor", *options]) == 0
    text = capsys.readouterr().out
    assert "30 for training, 6 test clips" in text
    assert "18 for training, 6 test clips" in text
    to_prepare = sum(spec.prepared_megabytes for name, spec in DATASETS.items() if name not in COUNTS)
    assert f"disk: about 0 MB to fetch and {to_prepare} MB to prepare" in text
    assert text.count(" yes") == len(COUNTS)

    (tmp_path / "data" / "moving_mnist" / "mnist_test_seq.npy").write_bytes(b"")
    np.savez(tmp_path / "data" / "taxibj" / "dataset.npz", X_train=np.zeros(3))
    assert main(["doctor", *options]) == 1
    text = capsys.readouterr().out
    assert "mnist_test_seq.npy is not the published one: SHA-256" in text
    assert "dataset.npz is not the published one: SHA-256" in text
