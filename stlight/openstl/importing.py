"""Write the record of an STLight that OpenSTL trained, so that `load_run`, `compare` and `diagnose` read it."""

import csv
import io
import json
import math
import re
from pathlib import Path
from typing import Any

import pandas as pd

from stlight.analysis.escaping import csv as as_csv
from stlight.config import RunConfig
from stlight.openstl.facts import Fact
from stlight.openstl.outcomes import LAST
from stlight.openstl.theirs import facts_of_work_dir
from stlight.openstl.workdir import Epoch, WorkDir, WorkDirError, validation_mse
from stlight.registry.architecture import ConfigError
from stlight.runs.record import Metrics, RunRecord, finite, history_digest, read_record, write_record
from stlight.runtime.atomic_files import write_atomically
from stlight.runtime.trust import sha256

TABLE = "tables/openstl.csv"
"""The table of imported runs, which `compare` reads."""

# What a configuration of the suite cannot say: a run in which it is otherwise has no record.
_AS_THE_SUITE = {
    "augmentation": "none",
    "optimizer": "adam, weight decay 0",
    "precision": "float32",
    "MSE and MAE": "summed over a frame",
    "validation clips": "the test clips",
}
_SETTINGS = {"epoch": "num_epochs", "lr": "max_lr", "batch_size": "batch_size", "sched": "schedule"}
_OF_SCHEDULE = {
    "onecycle": {"final_div_factor": "final_div_factor"},
    "cosine": {"warmup_epoch": "warmup_epochs", "warmup_lr": "warmup_lr", "min_lr": "min_lr"},
}


def import_run(path: Path, results: Path) -> Path:
    """Write the record, history, losses and weights of a work dir under `results`, and return the run's folder.

    Raises `WorkDirError` if the run is not finished, is not of STLight, or did what a record of the suite cannot say.
    """
    run = WorkDir(path)
    facts = facts_of_work_dir(run)
    config = _config(run, facts)
    if not run.test_metrics or not run.epochs or run.epochs[-1].index + 1 != config.training.num_epochs:
        last = run.epochs[-1].index + 1 if run.epochs else 0
        tested = "" if run.test_metrics else ", and no test"
        raise WorkDirError(f"{path} is not finished: epoch {last} of {config.training.num_epochs} is logged{tested}")
    variant = re.sub(r"[^A-Za-z0-9_.=+-]", "_", path.resolve().name)
    name = f"{config.data.dataset}/{variant}/seed{config.seed}"
    folder = results / "runs" / name
    write_record(folder / "record.json", _record(run, facts, config, name, _write_outputs(run, config, folder)))
    write_atomically(results / TABLE, _table(results))
    return folder


def _config(run: WorkDir, facts: dict[str, Fact]) -> RunConfig:
    settings, schedule = run.settings, str(run.settings.get("sched")).lower()
    architecture = settings.get("stlight")
    if str(settings.get("method")).lower() != "stlight" or not isinstance(architecture, dict):
        raise WorkDirError(
            f"{run.path} is a run of {settings.get('method')}, not of STLight: `stlight diagnose` reads it as it is"
        )
    wanted = _AS_THE_SUITE | {"schedule stepped": "by step" if schedule == "onecycle" else "by epoch"}
    for name, value in wanted.items():
        if facts[name].value not in (value, None):
            how = f"{name} is {facts[name].value!r}, must be {value!r}"
            raise WorkDirError(f"{run.path} cannot be a record of the suite: {how}; `stlight diagnose` reads it as it is")
    if run.processes > 1:
        raise WorkDirError(f"{run.path} was trained by {run.processes} processes, a record of the suite is of one")
    tested, trained = facts["test clips"].value, facts["training clips per epoch"].value
    if not tested or not trained or schedule not in _OF_SCHEDULE:
        raise WorkDirError(f"{run.path}: number of clips or schedule {schedule!r} is unknown: save the test's frames")
    fields = {ours: settings[theirs] for theirs, ours in (_SETTINGS | _OF_SCHEDULE[schedule]).items() if theirs in settings}
    fields |= {"schedule": schedule, "dataset": run.dataset, "source": "files"}
    # OpenSTL validates on the test clips. This also keeps the hash apart from those of the suite's own runs.
    fields |= {"clips_per_epoch": int(trained), "test_clips": int(tested), "validation_clips": int(tested)}
    try:
        fields |= {name: value for name, value in architecture.items() if name != "kernel_sizes"}
        fields |= dict(zip(("k1", "k2"), architecture.get("kernel_sizes", ()), strict=True))
        return RunConfig.from_fields(fields, int(settings.get("seed", 0)))
    except (ConfigError, TypeError, ValueError) as error:
        raise WorkDirError(f"{run.path / 'model_param.json'}: {error}") from error


def _record(run: WorkDir, facts: dict[str, Fact], config: RunConfig, name: str, written: dict[str, str]) -> RunRecord:
    import torch

    from stlight.model import build_model
    from stlight.model.complexity import count_flops, count_parameters

    with torch.device("meta"):
        model = build_model(config.model, config.clip_shape, dataset=config.data.dataset)
    mse = [(validation_mse(run, epoch), epoch) for epoch in run.epochs]
    best = min(mse, key=lambda pair: pair[0] if math.isfinite(pair[0]) else math.inf)
    unknown: Metrics = dict.fromkeys(("epoch", *run.test_metrics))
    of_last, of_best = (unknown | _at(epoch, value) for value, epoch in (mse[-1], best))
    tested = run.test_metrics | {"epoch": (mse[-1] if facts["epoch reported"].value == LAST else best)[1].index + 1}
    if facts["epoch reported"].value == LAST:
        of_last = unknown | finite(tested)
    else:
        of_best = unknown | finite(tested)
    environment = {key: _logged(run, key) for key in ("PyTorch", "Python", "openstl")}
    libraries = {"torch": environment["PyTorch"], "openstl": environment["openstl"]}
    origin = {"code": f"OpenSTL {run.version}", "source": f"openstl {run.version}", "libraries": libraries}
    origin |= {"python": environment["Python"], "data": {}, "imported_from": run.path.resolve().name}
    origin |= {"protocol": {fact: [found.value, found.evidence] for fact, found in facts.items()}}
    origin |= {"unknown": ["trivial", "best_on_validation", "metrics that the log lacks", "seconds of evaluation"]}
    return RunRecord(
        run=name,
        config=config,
        config_hash=config.hash,
        status="done" if math.isfinite(run.test_metrics["mse"]) else "diverged",
        metrics={"last": of_last, "best_on_validation": unknown, "best_on_test": of_best},
        trivial={},
        num_params=count_parameters(model)["total"],
        prediction_flops=count_flops(model, config.clip_shape),
        # By the log's time stamps, which do not tell training from evaluation.
        seconds={"training": run.seconds, "total": run.seconds},
        device={"type": "cuda" if _logged(run, "CUDA available") == "True" else "cpu"},
        provenance=origin,
        files=written,
    )


def _at(epoch: Epoch, mse: float) -> Metrics:
    return {"epoch": epoch.index + 1} | finite(epoch.metrics | {"mse": mse})


def _logged(run: WorkDir, key: str) -> str:
    """Return a line of the log's description of the environment; "?" if it lacks it."""
    found = re.search(rf"^{key}: (.*)$", run.log, re.MULTILINE)
    return found[1].strip() if found else "?"


def _write_outputs(run: WorkDir, config: RunConfig, folder: Path) -> dict[str, str]:
    """Write history, losses and weights; return their checksums."""
    rows, losses = [], []
    for epoch, after in zip(run.epochs, [*run.epochs[1:], None], strict=True):
        # v1.0.0 logs the loss of an epoch one line later.
        source = epoch if run.version == "v0.3.0" else after
        loss = source.train_loss if source else math.nan
        scores = {"mse": validation_mse(run, epoch), "mae": epoch.metrics.get("mae", math.nan)}
        row = {"epoch": epoch.index + 1, "learning_rate": epoch.learning_rate, "train_loss": loss}
        rows.append(row | {f"{split}_{name}": value for split in ("validation", "test") for name, value in scores.items()})
        losses.append({"step": (epoch.index + 1) * config.steps_per_epoch, "train_loss": loss})
    history = _csv_text(rows)
    files = {"history.csv": history.encode(), "losses.csv": _csv_text(losses).encode()}
    saved = run.checkpoint
    # The last epoch of v1.0.0 is tested, but saved only if it is the best.
    if saved and saved.epoch in (None, run.epochs[-1].index):
        files["weights.safetensors"] = _weights_file(run, saved.weights, config)
    for name, content in files.items():
        write_atomically(folder / name, content)
    digests = {name: sha256(content) for name, content in files.items()}
    return digests | {"history.csv": history_digest(list(csv.DictReader(history.splitlines())))}


def _weights_file(run: WorkDir, weights: dict[str, Any], config: RunConfig) -> bytes:
    """Return the weights as a file of the suite. Raises `WorkDirError` if they are not of the configured model."""
    import safetensors.torch
    import torch

    from stlight.model import build_model

    with torch.device("meta"):
        expected = build_model(config.model, config.clip_shape, dataset=config.data.dataset).state_dict()
    if {name: tensor.shape for name, tensor in weights.items()} != {name: tensor.shape for name, tensor in expected.items()}:
        raise WorkDirError(f"{run.path}: its checkpoint is not of the model that model_param.json describes")
    contiguous = {name: tensor.contiguous() for name, tensor in weights.items()}
    return safetensors.torch.save(contiguous, metadata={"config": json.dumps(config.model_dump())})


def _csv_text(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _table(results: Path) -> str:
    """Return the table of all imported runs: one row per variant and metric, of the epoch that OpenSTL reports."""
    records = [read_record(path) for path in sorted(results.glob("runs/*/*/seed*/record.json"))]
    imported = [record for record in records if "imported_from" in record.provenance]
    rows = []
    for record in imported:
        dataset, variant, _ = record.run.split("/")
        reported = record.provenance["protocol"]["epoch reported"][0]
        selection = "last" if reported == LAST else "best_on_test"
        for metric in ("mse", "mae", "ssim", "psnr"):
            value = record.metrics[selection].get(metric)  # type: ignore[index]
            if value is not None:
                place = {"dataset": dataset, "variant": variant, "data": "benchmark files", "metric": metric}
                rows.append(place | {"measured": value, "selection": selection, "runs": record.run})
    table = pd.DataFrame(rows, columns=["dataset", "variant", "data", "metric", "measured", "selection", "runs"])
    keys = ["dataset", "variant", "data", "metric", "selection"]
    merged = table.groupby(keys, sort=False, as_index=False).agg({"measured": "mean", "runs": ";".join})
    return as_csv(merged[list(table.columns)])
