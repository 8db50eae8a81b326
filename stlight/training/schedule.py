"""The learning-rate schedule of the protocol."""

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR


def one_cycle(optimizer: Optimizer, *, max_lr: float, final_div_factor: float, total_steps: int) -> OneCycleLR:
    """OneCycle, stepped once per batch: max_lr/25 up to max_lr over 30 % of the steps, down to max_lr/25/final_div_factor.

    Adam's β1 cycles against it, 0.95 → 0.85 → 0.95.
    """
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=max_lr, total_steps=total_steps, final_div_factor=final_div_factor
    )
