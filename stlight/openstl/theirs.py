"""Derive the facts of a protocol from a work dir of OpenSTL: from its configuration, its log and its saved frames."""

import re

from stlight.openstl import rates
from stlight.openstl.facts import Fact
from stlight.openstl.outcomes import batch_norm, reported
from stlight.openstl.workdir import WorkDir, WorkDirError, published_clips
from stlight.registry.dataset_specs import DATASETS

_CODE = "the code of OpenSTL"
_RECURRENT = ("convlstm", "predrnn", "predrnnpp", "predrnnv2", "mim", "mau", "e3dlstm", "phydnet", "prednet", "crevnet")


def facts_of_work_dir(run: WorkDir) -> dict[str, Fact]:
    """Return the facts of a run of OpenSTL by the names of `FACTS`. Raises `WorkDirError` if a setting is not as OpenSTL's."""
    try:
        return {**_task(run), **_clips(run), **_training(run), **batch_norm(run), **reported(run)}
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError) as error:
        if isinstance(error, WorkDirError):
            raise
        raise WorkDirError(f"{run.path / 'model_param.json'} has a setting of the wrong kind: {error}") from error


def _task(run: WorkDir) -> dict[str, Fact]:
    shape, method = run.shape, str(run.settings.get("method")).lower()
    config, dataset = "model_param.json", run.dataset
    found = {"data set": Fact(dataset, config)}
    if not shape:
        return found | {"frames": Fact(None, f"no in_shape, and {dataset} is not known")}
    size = "x".join(map(str, shape[2:]))
    found["frames"] = Fact(f"{shape.context_frames} -> {shape.horizon_frames} of {size}", config)
    longer = shape.horizon_frames > shape.context_frames
    how = "frame by frame" if method in _RECURRENT else "rolled out" if longer and method != "stlight" else "all frames at once"
    return found | {"prediction": Fact(how, f"{config}: method {method}"), "model": Fact(_model_name(run), config)}


def _model_name(run: WorkDir) -> str:
    """Return method and architecture; a published size of STLight by the layers that tell it from others."""
    method, architecture = str(run.settings.get("method")).lower(), run.settings.get("stlight")
    if method == "stlight" and isinstance(architecture, dict):
        kernel_sizes = "x".join(map(str, architecture.get("kernel_sizes", ())))
        return describe_stlight({**architecture, "kernel_sizes": kernel_sizes})
    names = ("model_type", "hid_S", "hid_T", "N_S", "N_T", "num_hidden")
    stated = [f"{name} {run.settings[name]}" for name in names if run.settings.get(name) is not None]
    return " ".join([method, *stated])


def describe_stlight(fields: dict[str, object]) -> str:
    """Return an STLight in words."""
    names = ("hidden_dim", "depth", "patch_size", "overlap", "kernel_sizes", "dilation", "decoder", "initialization", "skip")
    return " ".join(["stlight", *(f"{name} {fields.get(name)}" for name in (*names, "skip_parts"))])


def _clips(run: WorkDir) -> dict[str, Fact]:
    settings, per_step = run.settings, _clips_per_step(run)
    steps = run.steps_per_epoch
    trained = Fact(str(steps * per_step), "steps of an epoch, and batch_size") if steps and per_step else None
    known = run.dataset in DATASETS
    if not trained and known and per_step:
        trained = Fact(
            str(published_clips(run.dataset) // per_step * per_step), f"{_CODE}; neither log nor checkpoint has the steps"
        )
    low, high = _target_range(run)
    saved = run.num_test_clips()
    tested = Fact(str(saved), "saved/preds.npy") if saved else None
    if not tested and known and not settings.get("drop_last"):
        tested = Fact(str(DATASETS[run.dataset].protocol.get("test_clips", 10_000)), f"{_CODE}; no frames are saved")
    return {
        "training clips per epoch": trained or Fact(None, "the log has no epoch with its number of steps"),
        "augmentation": Fact("yes" if settings.get("use_augment") else "none", "model_param.json: use_augment"),
        "test clips": tested or Fact(None, "no frames are saved"),
        "range of targets": Fact(f"[{low:g}, {high:g}]", "saved/trues.npy") if saved else Fact(None, "no frames are saved"),
    }


def _target_range(run: WorkDir) -> tuple[float, float]:
    """Return the usual range that holds the targets: [0, 1], [-1, 1] or [0, 255]; their own if none does."""
    ends = [(float(trues.min()), float(trues.max())) for _, trues in run.predictions()]
    low, high = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=1.0)
    return next((usual for usual in ((0, 1), (-1, 1), (0, 255)) if usual[0] <= low and high <= usual[1] + 1e-6), (low, high))


def _clips_per_step(run: WorkDir) -> int | None:
    batch = run.settings.get("batch_size")
    return batch * run.processes if isinstance(batch, int) else None


def _training(run: WorkDir) -> dict[str, Fact]:
    settings, per_step = run.settings, _clips_per_step(run)
    config = "model_param.json"
    wanted, logged = settings.get("epoch"), run.epochs[-1].index + 1 if run.epochs else 0
    ended = f"{wanted}" if logged == wanted else f"{logged} of {wanted}"
    optimizer = f"{settings.get('opt')}, weight decay {float(settings.get('weight_decay') or 0):g}"
    if settings.get("clip_grad"):
        optimizer += f", gradients clipped at {settings['clip_grad']:g} by {settings.get('clip_mode')}"
    half = bool(settings.get("fp16"))
    # v0.3.0 sets autocast up only where it sets up several processes, and v1.0.0 passes no precision to Lightning.
    precision = "float16 autocast" if half and run.version == "v0.3.0" and settings.get("dist") else "float32"
    ignored = f"; {run.version} ignores fp16 here" if half and precision == "float32" else ""
    cuda = re.search(r"CUDA available: (True|False)", run.log)
    tf32 = None if not cuda else "convolutions" if cuda[1] == "True" else "none"
    return {
        "epochs": Fact(ended, f"{config} and log"),
        "clips per step": Fact(str(per_step) if per_step else None, f"{config}: batch_size on {run.processes} processes"),
        "optimizer": Fact(optimizer, config),
        "learning rate": Fact(f"{float(settings['lr']):g}" if settings.get("lr") else None, config),
        "schedule": Fact(_schedule(run), config),
        "schedule stepped": _stepped(run),
        "precision": Fact(precision, f"{config}: fp16 {half}{ignored}"),
        "TensorFloat-32": Fact(tf32, "PyTorch's default on the logged device" if tf32 else "the log names no device"),
    }


def _schedule(run: WorkDir) -> str:
    settings, name = run.settings, str(run.settings.get("sched")).lower()
    if name == "onecycle":
        return describe_one_cycle(float(settings.get("final_div_factor", 1e4)))
    if name == "cosine":
        numbers = (settings.get(key) or 0 for key in ("warmup_epoch", "warmup_lr", "min_lr"))
        return describe_cosine(*map(float, numbers))
    return name


def describe_one_cycle(final_div_factor: float) -> str:
    """Return a OneCycle schedule in words."""
    return f"onecycle, final div factor {final_div_factor:g}"


def describe_cosine(warmup_epochs: float, warmup_lr: float, min_lr: float) -> str:
    """Return a cosine schedule in words; the first rate of a warm-up counts only if there is one."""
    start = f"{warmup_epochs:g} warm-up epochs from {warmup_lr:g}" if warmup_epochs else "no warm-up"
    return f"cosine, {start}, to {min_lr:g}"


def _stepped(run: WorkDir) -> Fact:
    settings, name, epochs = run.settings, str(run.settings.get("sched")).lower(), run.epochs
    per_step = _clips_per_step(run)
    steps = run.steps_per_epoch
    if not steps and per_step and run.dataset in DATASETS:
        steps = published_clips(run.dataset) // per_step
    if name not in ("onecycle", "cosine") or not (epochs and steps and settings.get("lr") and settings.get("epoch")):
        return Fact(None, f"no schedule {name} can be compared with the log")
    max_lr, num_epochs = float(settings["lr"]), int(settings["epoch"])
    if name == "onecycle":
        fall = float(settings.get("final_div_factor", 1e4))
        hypotheses, meant = rates.one_cycle_hypotheses(steps, num_epochs, max_lr, fall), rates.BY_STEP
    else:
        warmup, warmup_lr, low = (float(settings.get(key) or 0) for key in ("warmup_epoch", "warmup_lr", "min_lr"))
        hypotheses = rates.cosine_hypotheses(
            lambda epoch: rates.warm_cosine(epoch, num_epochs, max_lr, low, int(warmup), warmup_lr), run.version == "v1.0.0"
        )
        meant = rates.BY_EPOCH
    found = rates.how_stepped([(epoch.index, epoch.learning_rate) for epoch in epochs], hypotheses)
    worst = max(epochs, key=lambda epoch: abs(hypotheses[meant](epoch.index) - epoch.learning_rate))
    expected = f"{meant} it would be {hypotheses[meant](worst.index):.7f}"
    evidence = f"log: {worst.learning_rate:.7f} after epoch {worst.index + 1}, {expected}"
    return Fact(found, "log: every rate fits" if found == meant else evidence)
