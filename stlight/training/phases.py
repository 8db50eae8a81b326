"""Phases of a training run: which part of the model is trained when, each with an optimizer and a schedule of its own."""

from collections.abc import Sequence
from itertools import accumulate

from torch.optim.lr_scheduler import LRScheduler

from stlight.config import RunConfig
from stlight.kernels.whole_step import FlatAdam
from stlight.model import Forecaster
from stlight.model.forecaster import Phase
from stlight.training.schedule import build_schedule


def index_of_phase(phases: Sequence[Phase], epoch: int) -> int:
    """Return the index of the phase that an epoch (from 1) belongs to; after the end, the last."""
    return sum(epoch > end for end in accumulate(phase.num_epochs for phase in phases[:-1]))


def start_phase(model: Forecaster, phases: Sequence[Phase], index: int, config: RunConfig) -> tuple[FlatAdam, LRScheduler]:
    """Freeze all weights that a phase does not train, and return an Adam and a schedule for those that it does."""
    num_epochs, part = phases[index]
    if len(phases) > 1:
        for weight in model.requires_grad_(False).parameters():
            # The previous phase's FlatAdam may have made the weight a part of `flat`, which then has the gradient.
            weight.grad = getattr(weight, "flat", weight).grad = None
        part.requires_grad_()
    # Each phase warms up, and has an epoch left after it.
    warmup = min(config.training.warmup_epochs, num_epochs - 1)
    recipe = config.training.model_copy(update={"num_epochs": num_epochs, "warmup_epochs": warmup})
    # Adam must not know frozen weights, because their momentum would move them, although their gradients are zero.
    optimizer = FlatAdam(part, lr=recipe.max_lr)
    return optimizer, build_schedule(optimizer, recipe, config.steps_per_epoch)
