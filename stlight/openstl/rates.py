"""Tell from logged learning rates how a schedule was stepped."""

import math
from collections.abc import Callable, Sequence

_ROUNDING = 6e-8
"""OpenSTL logs learning rates with seven decimals."""

BY_STEP = "by step"
BY_EPOCH = "by epoch"
BY_EPOCH_IN_STEPS = "by epoch, of a cycle counted in steps"
BY_EPOCH_LATE = "by epoch, one epoch late"


def one_cycle(step: float, total_steps: int, max_lr: float, final_div_factor: float) -> float:
    """Return the learning rate of PyTorch's OneCycleLR, with its other arguments at their defaults, after `step` steps.

    OpenSTL logs one step after the cycle's end. There PyTorch follows the cosine upwards again.
    """
    first, last = max_lr / 25, max_lr / 25 / final_div_factor
    top, end = 0.3 * total_steps - 1, total_steps - 1
    if step <= top:
        return _cosine(first, max_lr, step / top)
    return _cosine(max_lr, last, (step - top) / (end - top))


def warm_cosine(epoch: float, num_epochs: int, max_lr: float, min_lr: float, warmup_epochs: int, warmup_lr: float) -> float:
    """Return the learning rate of timm's CosineLRScheduler in an epoch, counted from 0."""
    if epoch < warmup_epochs:
        return warmup_lr + epoch * (max_lr - warmup_lr) / warmup_epochs
    return _cosine(max_lr, min_lr, epoch / num_epochs)


def how_stepped(logged: Sequence[tuple[int, float]], hypotheses: dict[str, Callable[[int], float]]) -> str | None:
    """Return the only hypothesis whose rates are the logged ones, (epoch from 0, rate); None if several are.

    "otherwise" if none is.
    """
    fitting = [name for name, rate in hypotheses.items() if all(_same(rate(epoch), found) for epoch, found in logged)]
    if not fitting:
        return "otherwise"
    return fitting[0] if len(fitting) == 1 else None


def one_cycle_hypotheses(
    steps_per_epoch: int, num_epochs: int, max_lr: float, final_div_factor: float
) -> dict[str, Callable[[int], float]]:
    """Return the rate after an epoch, from 0, by how OneCycle is stepped."""
    total = steps_per_epoch * num_epochs
    return {
        BY_STEP: lambda epoch: one_cycle((epoch + 1) * steps_per_epoch, total, max_lr, final_div_factor),
        BY_EPOCH_IN_STEPS: lambda epoch: one_cycle(epoch, total, max_lr, final_div_factor),
        BY_EPOCH: lambda epoch: one_cycle(epoch + 1, num_epochs, max_lr, final_div_factor),
    }


def cosine_hypotheses(rate: Callable[[float], float], next_epoch: bool) -> dict[str, Callable[[int], float]]:
    """Return the logged rate by how the cosine is stepped, given the rate in an epoch, from 0.

    `next_epoch` is True if the log has the rate of the epoch after it, as in v1.0.0.
    """
    return {
        BY_EPOCH: lambda epoch: rate(epoch + next_epoch),
        BY_EPOCH_LATE: lambda epoch: rate(max(0, epoch + next_epoch - 1)),
    }


def _cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def _same(expected: float, found: float) -> bool:
    return abs(expected - found) <= _ROUNDING + 1e-4 * abs(expected)
