"""Derive the facts of a protocol from the record of one of the suite's runs, which states most of them."""

from pathlib import Path

from stlight.openstl.facts import Fact
from stlight.openstl.outcomes import LAST
from stlight.openstl.theirs import describe_cosine, describe_one_cycle, describe_stlight
from stlight.registry.model_specs import BASELINE_FIELDS, OURS
from stlight.runs.record import RunRecord, read_record

RECORD, CODE = "record.json", "the code of the suite"


def facts_of_run(folder: Path) -> dict[str, Fact]:
    """Return the facts of a run by the names of `FACTS`. Raises `RecordError` if its record is damaged."""
    record = read_record(folder / "record.json")
    stated = record.provenance.get("protocol")
    if isinstance(stated, dict):
        # An imported run keeps the facts of the work dir that it is from.
        return {name: Fact(fact[0], f"import: {fact[1]}") for name, fact in stated.items()}
    return _task(record) | _training(record) | _reported()


def _task(record: RunRecord) -> dict[str, Fact]:
    config = record.config
    model, data, shape = config.model, config.data, config.clip_shape
    size = "x".join(map(str, shape[2:]))
    source = "" if data.source == "files" else f", {data.source.replace('_', '-')} clips"
    fields = model.model_dump(exclude={"model", "prediction", *BASELINE_FIELDS}) | {"kernel_sizes": f"{model.k1}x{model.k2}"}
    name = describe_stlight(fields) if model.model == OURS else model.model
    longer = shape.horizon_frames > shape.context_frames
    how = "rolled out" if model.prediction == "rollout" and longer else "all frames at once"
    clips = config.steps_per_epoch * config.training.batch_size
    return {
        "data set": Fact(f"{data.dataset}{source}", RECORD),
        "frames": Fact(f"{shape.context_frames} -> {shape.horizon_frames} of {size}", RECORD),
        "prediction": Fact(how, RECORD) if model.model == OURS else Fact(None, "a baseline predicts as its code says"),
        "model": Fact(name, RECORD),
        "training clips per epoch": Fact(str(clips), f"{RECORD}: whole batches"),
        "augmentation": Fact("none", CODE),
        "validation clips": Fact("other clips", f"{RECORD}: {data.validation_clips} held-out clips"),
        "test clips": Fact(str(data.test_clips), RECORD),
        "range of targets": Fact("[0, 1]", CODE),
    }


def _training(record: RunRecord) -> dict[str, Fact]:
    training = record.config.training
    epochs = int(record.metrics["last"].get("epoch") or 0) if record.status == "diverged" else training.num_epochs
    cuda = record.device.get("type") == "cuda"
    parts = int(record.device.get("accumulation_steps") or training.accumulation_steps)
    one_cycle = training.schedule == "onecycle"
    cosine = (training.warmup_epochs, training.warmup_lr, training.min_lr)
    words = describe_one_cycle(training.final_div_factor) if one_cycle else describe_cosine(*cosine)
    half = cuda and training.precision == "bfloat16"
    return {
        "epochs": Fact(f"{epochs}" if epochs == training.num_epochs else f"{epochs} of {training.num_epochs}", RECORD),
        "clips per step": Fact(str(training.batch_size), RECORD),
        "clips per BatchNorm": Fact(str(training.batch_size // parts), f"{RECORD}: batches in {parts} parts"),
        "BatchNorm at test": Fact("running statistics of every step", CODE),
        "BatchNorm momentum": Fact("0.1", CODE),
        "optimizer": Fact("adam, weight decay 0", CODE),
        "learning rate": Fact(f"{training.max_lr:g}", RECORD),
        "schedule": Fact(words, RECORD),
        "schedule stepped": Fact("by step" if one_cycle else "by epoch", CODE),
        "precision": Fact("bfloat16 autocast" if half else "float32", RECORD),
        "TensorFloat-32": Fact(
            None if not record.device else "convolutions and matrix products" if cuda and training.tf32 else "none",
            f"{RECORD}: tf32, device" if record.device else "the record names no device",
        ),
    }


def _reported() -> dict[str, Fact]:
    return {
        "epoch reported": Fact(LAST, f"{CODE}: the record holds the best ones, too"),
        "MSE and MAE": Fact("summed over a frame", CODE),
        "data range of SSIM": Fact("2", f"{CODE}: the record holds ssim_unit_range, too"),
    }
