"""Derive facts of a protocol from what a run of OpenSTL left: logged metrics, checkpoint and saved frames."""

import math
import re
from itertools import chain
from typing import TYPE_CHECKING

from stlight.openstl.facts import Fact
from stlight.openstl.workdir import WorkDir, WorkDirError, validation_mse
from stlight.registry.dataset_specs import DATASETS

if TYPE_CHECKING:
    from torch import Tensor

SELECTED_ON_TEST = "the best on the test clips"
SELECTED_ON_VALIDATION = "the best on the validation clips"
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
        weights, why = run.weights(), "there is no checkpoint"
    except WorkDirError as error:
        weights, why = None, str(error)
    return {
        "clips per BatchNorm": Fact(str(batch) if batch else None, "model_param.json: batch_size of each process"),
        "BatchNorm at test": _statistics(run, weights) if weights else Fact(None, why),
        "BatchNorm momentum": momentum,
    }


def _statistics(run: WorkDir, weights: "dict[str, Tensor]") -> Fact:
    """Tell from a checkpoint whether BatchNorm's running statistics exist, and in how many steps they were updated."""
    tracked = {int(tensor) for name, tensor in weights.items() if name.endswith("num_batches_tracked")}
    if not tracked:
        has_any = any(name.endswith("running_mean") for name in weights)
        return Fact("running statistics, unknown steps" if has_any else "no running statistics", "checkpoint")
    steps = next((epoch.steps for epoch in run.epochs if epoch.steps), None)
    found = max(tracked)
    if steps and len(tracked) == 1 and found % steps == 0 and 0 < found <= steps * (run.epochs[-1].index + 1):
        return Fact("running statistics of every step", f"checkpoint: {found} steps")
    if not steps and len(tracked) == 1:
        return Fact("running statistics of every step", f"checkpoint: {found} steps; {run.version} logs no steps to compare")
    words = " or ".join(str(number) for number in sorted(tracked))
    return Fact(f"running statistics of {words} steps, epochs have {steps}", "checkpoint")


def reported(run: WorkDir) -> dict[str, Fact]:
    """Return how the reported numbers were selected and computed."""
    return {**_selection(run), "MSE and MAE": _unit(run), "data range of SSIM": _data_range(run)}


def _selection(run: WorkDir) -> dict[str, Fact]:
    """Tell which clips validate and which epoch is reported: the test's MSE is that of an epoch's validation, or of none."""
    tested, epochs = run.test_metrics.get("mse", math.nan), run.epochs
    design = SELECTED_ON_VALIDATION if run.version == "v0.3.0" else LAST
    values = [validation_mse(run, epoch) for epoch in epochs]
    if not math.isfinite(tested) or not epochs or not all(map(math.isfinite, values)):
        return {
            "validation clips": Fact("the test clips", f"{_CODE}; the log does not show it"),
            "epoch reported": Fact(SELECTED_ON_TEST if design != LAST else LAST, f"{_CODE}; the log does not show it"),
        }
    best, size = min(values), int(run.settings.get("val_batch_size") or 16)
    even = (run.num_test_clips() or _published_test_clips(run)) % size == 0
    tolerance = (_EXACT if even else _UNEVEN) * tested
    if not epochs[-1].metrics and run.shape:
        # v1.0.0 logs the error per value only, with seven decimals.
        tolerance += 1e-7 * math.prod(run.shape[2:])
    from_best, from_last = abs(tested - best), abs(tested - values[-1])
    shown = f"log: test MSE {tested:.6g}, validation best {best:.6g}, last {values[-1]:.6g}"
    if min(from_best, from_last) > tolerance:
        return {"validation clips": Fact("other clips", shown), "epoch reported": Fact(design, f"{_CODE} {run.version}")}
    which = SELECTED_ON_TEST if from_best < from_last else LAST
    if best == values[-1]:
        which, shown = SELECTED_ON_TEST if design != LAST else LAST, f"{_CODE} {run.version}; the last epoch was the best"
    return {"validation clips": Fact("the test clips", shown), "epoch reported": Fact(which, shown)}


def _published_test_clips(run: WorkDir) -> int:
    known = DATASETS.get(run.dataset)
    return int(known.protocol.get("test_clips", 10_000)) if known else 1


def _unit(run: WorkDir) -> Fact:
    """Compare the logged MSE with the mean squared error per value."""
    tested, values = run.test_metrics.get("mse", math.nan), math.prod(run.shape[2:]) if run.shape else 0
    per_value = [epoch.validation_loss for epoch in run.epochs]
    measured = [(epoch.metrics["mse"], epoch.validation_loss) for epoch in run.epochs if "mse" in epoch.metrics]
    pairs = measured or ([(tested, min(per_value, key=lambda loss: abs(tested / max(values, 1) - loss)))] if per_value else [])
    if not values or not pairs or not all(map(math.isfinite, chain(*pairs))) or not pairs[-1][1]:
        return Fact(None, "the log does not have both a loss and an MSE")
    ratio = pairs[-1][0] / pairs[-1][1]
    usual = {"summed over a frame": values, "averaged over a frame": 1, "summed over pixels, averaged over channels": 0}
    usual["summed over pixels, averaged over channels"] = values // run.shape.channels if run.shape else 0
    names = [name for name, factor in usual.items() if factor and abs(ratio / factor - 1) < 0.1]
    return Fact(names[0] if names else f"{ratio:.4g} times the loss", f"log: the MSE is {ratio:.4g} times the loss per value")


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
