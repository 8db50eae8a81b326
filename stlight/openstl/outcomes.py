"""Derive facts of a protocol from what a run of OpenSTL left: logged metrics, checkpoint and saved frames."""

import math
import re
from typing import TYPE_CHECKING

from stlight.openstl.facts import Fact
from stlight.openstl.workdir import WorkDir, WorkDirError, validation_mse
from stlight.registry.dataset_specs import DATASETS

if TYPE_CHECKING:
    from torch import Tensor

BEST = "the best on the validation clips"
LAST = "the last"

_CODE = "the code of OpenSTL"
_BATCH_NORM = re.compile(r"BatchNorm[23]d\([^)]*momentum=([\d.]+|None)")

# Relative. OpenSTL validates by means of batches; they are the mean over clips only if all batches have equally many.
_EXACT, _UNEVEN = 1e-4, 0.02
_SSIM_TOLERANCE = 5e-4


def batch_norm(run: WorkDir) -> dict[str, Fact]:
    """Return how BatchNorm normalized, from the configuration, the logged model and the checkpoint."""
    batch, momenta = run.settings.get("batch_size"), sorted(set(_BATCH_NORM.findall(run.log)))
    if not momenta and str(run.settings.get("method")).lower() == "stlight":
        momentum = Fact("0.1", "the exported model's code")
    else:
        momentum = Fact(", ".join(momenta), "log: model") if momenta else Fact(None, "the log does not describe the model")
    try:
        saved, why = run.checkpoint, "there is no checkpoint"
    except WorkDirError as error:
        saved, why = None, str(error)
    return {
        "clips per BatchNorm": Fact(str(batch) if batch else None, "model_param.json: batch_size of each process"),
        "BatchNorm at test": _statistics(run, saved.weights) if saved else Fact(None, why),
        "BatchNorm momentum": momentum,
    }


def _statistics(run: WorkDir, weights: "dict[str, Tensor]") -> Fact:
    """Tell from a checkpoint whether BatchNorm's running statistics exist, and in how many steps they were updated."""
    tracked = sorted({int(tensor) for name, tensor in weights.items() if name.endswith("num_batches_tracked")})
    steps, last = run.steps_per_epoch, run.epochs[-1].index if run.epochs else 0
    if not tracked:
        return Fact("no running statistics", "checkpoint")
    words = " or ".join(map(str, tracked))
    if not steps:
        return Fact(None, f"checkpoint: updated in {words} steps; the log has none to compare")
    whole = len(tracked) == 1 and tracked[0] % steps == 0 and 0 < tracked[0] <= steps * (last + 1)
    value = "running statistics of every step" if whole else f"running statistics of {words} steps, epochs have {steps}"
    return Fact(value, f"checkpoint: updated in {words} steps")


def reported(run: WorkDir) -> dict[str, Fact]:
    """Return how the reported numbers were selected and computed."""
    return {**_selection(run), "MSE and MAE": _unit(run), "data range of SSIM": _data_range(run)}


def _selection(run: WorkDir) -> dict[str, Fact]:
    """Tell which clips validate and which epoch is reported: the test's MSE is that of an epoch's validation, or of none."""
    tested, epochs = run.test_metrics.get("mse", math.nan), run.epochs
    design = Fact(BEST if run.version == "v0.3.0" else LAST, f"{_CODE} {run.version}")
    values = [validation_mse(run, epoch) for epoch in epochs]
    if not epochs or not all(map(math.isfinite, (tested, *values))):
        return {"validation clips": Fact("the test clips", f"{_CODE}; the log does not show it"), "epoch reported": design}
    best, last, size = min(values), values[-1], int(run.settings.get("val_batch_size") or 16)
    even = (run.num_test_clips() or _published_test_clips(run)) % size == 0
    tolerance = (_EXACT if even else _UNEVEN) * tested
    if not epochs[-1].metrics and run.shape:
        # v1.0.0 logs the error per value only, with seven decimals.
        tolerance += 1e-7 * math.prod(run.shape[2:])
    shown = f"log: test MSE {tested:.6g}, validation best {best:.6g}, last {last:.6g}"
    if min(abs(tested - best), abs(tested - last)) > tolerance:
        return {"validation clips": Fact("other clips", shown), "epoch reported": design}
    which = design if best == last else Fact(BEST if abs(tested - best) < abs(tested - last) else LAST, shown)
    return {"validation clips": Fact("the test clips", shown), "epoch reported": which}


def _published_test_clips(run: WorkDir) -> int:
    known = DATASETS.get(run.dataset)
    return int(known.protocol.get("test_clips", 10_000)) if known else 1


def _unit(run: WorkDir) -> Fact:
    """Compare the logged MSE of an epoch, or of the test, with the squared error per value."""
    tested, losses = run.test_metrics.get("mse", math.nan), [epoch.validation_loss for epoch in run.epochs]
    if not run.shape or not losses:
        return Fact(None, "the log does not have both a loss and an MSE")
    values = math.prod(run.shape[2:])
    usual = {"summed over a frame": values, "averaged over a frame": 1, "averaged over channels": values // run.shape.channels}
    ratios = [
        epoch.metrics["mse"] / epoch.validation_loss for epoch in run.epochs if epoch.validation_loss and "mse" in epoch.metrics
    ]
    # v1.0.0 logs the MSE of its test only, which is that of the last epoch, or of the best.
    ratios = ratios or [tested / loss for loss in (losses[-1], min(losses)) if loss]
    fitting = [(name, ratio) for ratio in ratios for name, factor in usual.items() if abs(ratio / factor - 1) < 0.1]
    if not ratios or not all(map(math.isfinite, ratios)):
        return Fact(None, "the log does not have both a loss and an MSE")
    name, ratio = fitting[0] if fitting else (f"{ratios[0]:.4g} times the loss", ratios[0])
    return Fact(name, f"log: the MSE is {ratio:.4g} times the loss per value")


def _data_range(run: WorkDir) -> Fact:
    """Recompute SSIM on the saved frames with both ranges."""
    logged = run.test_metrics.get("ssim")
    if logged is None or not run.num_test_clips():
        return Fact(None, "no SSIM is logged" if logged is None else "no frames are saved")
    import torch

    from stlight import metrics

    totals = {"ssim": 0.0, "ssim_unit_range": 0.0}
    clips = 0
    for preds, trues in run.predictions():
        scores = metrics.similarities(torch.from_numpy(preds).float(), torch.from_numpy(trues).float())
        totals = {name: totals[name] + scores[name] * len(preds) for name in totals}
        clips += len(preds)
    two, one = (totals[name] / clips for name in ("ssim", "ssim_unit_range"))
    fitting = [name for name, score in (("2", two), ("1", one)) if abs(score - logged) < _SSIM_TOLERANCE]
    evidence = f"log {logged:.4f}; the saved frames have {two:.4f} with range 2, {one:.4f} with range 1"
    return Fact(fitting[0] if len(fitting) == 1 else None if fitting else "neither 2 nor 1", evidence)
