"""Learning-rate schedules of the protocol, each stepped once per batch."""

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from stlight.config import TrainingConfig


def build_schedule(optimizer: Optimizer, recipe: TrainingConfig, steps_per_epoch: int) -> LRScheduler:
    """Build the schedule that a recipe names."""
    return SCHEDULES[recipe.schedule](optimizer, recipe, steps_per_epoch)


def one_cycle(optimizer: Optimizer, recipe: TrainingConfig, steps_per_epoch: int) -> OneCycleLR:
    """Rise from max_lr/25 to max_lr over 30 % of the steps, then fall to max_lr/25/final_div_factor.

    Adam's β1 cycles against it, 0.95 → 0.85 → 0.95.
    """
    total_steps = recipe.num_epochs * steps_per_epoch
    return OneCycleLR(optimizer, max_lr=recipe.max_lr, total_steps=total_steps, final_div_factor=recipe.final_div_factor)


def cosine(optimizer: Optimizer, recipe: TrainingConfig, steps_per_epoch: int) -> LambdaLR:
    """Rise from warmup_lr in warmup_epochs, then follow a cosine from max_lr to min_lr; the rate is constant in each epoch.

    As in the benchmark, the warm-up replaces the beginning of the cosine, so that the rate stays below max_lr.
    """

    def learning_rate(epoch: int) -> float:
        if epoch < recipe.warmup_epochs:
            return recipe.warmup_lr + epoch * (recipe.max_lr - recipe.warmup_lr) / recipe.warmup_epochs
        fall = 0.5 * (1 + math.cos(math.pi * epoch / recipe.num_epochs))
        return recipe.min_lr + fall * (recipe.max_lr - recipe.min_lr)

    # LambdaLR multiplies the optimizer's own rate, max_lr.
    return LambdaLR(optimizer, lambda step: learning_rate(step // steps_per_epoch) / recipe.max_lr)


SCHEDULES = {"onecycle": one_cycle, "cosine": cosine}
