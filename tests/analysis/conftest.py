import math

import pandas as pd
import pytest

from stlight.records import RunRecord, write_record

METRICS = ("mse", "mae", "ssim", "ssim_unit_range", "psnr")


@pytest.fixture
def record_run(tmp_path):
    """Leaves the record and history of a run that was never trained, with numbers of the test's choosing."""

    def write(experiment, variant, seed=0, status="done", losses=(4.0, 2.0, 1.0), examples=False, **values):
        config = variant.run_config(seed)
        name = variant.run_name(seed)
        metrics = {"epoch": len(losses)} | dict.fromkeys(METRICS, 0.5) | values
        metrics = {key: value if value is not None and math.isfinite(value) else None for key, value in metrics.items()}
        record = RunRecord(
            run=name,
            config=config,
            config_hash=config.hash,
            status=status,
            metrics=dict.fromkeys(("last", "best_on_validation", "best_on_test"), metrics),
            trivial={"repeat_last_frame": {"mse": 288.0}, "all_zeros": {"mse": 175.0}},
            num_params=1000 + seed,
            flops=10,
            seconds={"training": 1.0},
            device={},
            provenance={},
        )
        write_record(tmp_path / "runs" / name / "record.json", record)
        history = pd.DataFrame({"epoch": range(1, len(losses) + 1), "train_loss": losses})
        history["test_mse"] = history["train_loss"] * 100
        history.to_csv(tmp_path / "runs" / name / "history.csv", index=False)

    return write
