"""The learning-rate schedules of the protocol, each stepped once per batch."""

import math

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from stlight.config import TrainingConfig


def build_schedule(optimizer: Optimizer, recipe: TrainingConfig, steps_per_epoch: int) -> LRScheduler:
    """The schedule that a recipe names."""
    if recipe.schedule == "onecycle":
        return one_cycle(
            optimizer,
            max_lr=recipe.max_lr,
            final_div_factor=recipe.final_div_factor,
            total_steps=recipe.num_epochs * steps_per_epoch,
        )
    return cosine(optimizer, recipe, steps_per_epoch)


def one_cycle(optimizer: Optimizer, *, max_lr: float, final_div_factor: float, total_steps: int) -> OneCycleLR:
    """OneCycle: max_lr/25 up to max_lr over 30 % of the steps, down to max_lr/25/final_div_factor.

    Adam's β1 cycles against it, 0.95 → 0.85 → 0.95.
    """
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=total_steps, final_div_factor=final_div_factor
    )


def cosine(optimizer: Optimizer, recipe: TrainingConfig, steps_per_epoch: int) -> LambdaLR:
    """A cosine from max_lr to min_lr over the epochs, constant within each; the first warmup_epochs rise from warmup_lr.

    As the benchmark has it: the warm-up takes the place of the cosine's beginning, which is then joined where it is by that
    time, so the rate never quite comes to max_lr.
    """

    def learning_rate(epoch: int) -> float:
        if epoch < recipe.warmup_epochs:
            return recipe.warmup_lr + epoch * (recipe.max_lr - recipe.warmup_lr) / recipe.warmup_epochs
        fall = 0.5 * (1 + math.cos(math.pi * epoch / recipe.num_epochs))
        return recipe.min_lr + fall * (recipe.max_lr - recipe.min_lr)

    # The optimizer's own rate is max_lr, of which this is the share.
    return LambdaLR(optimizer, lambda step: learning_rate(step // steps_per_epoch) / recipe.max_lr)
