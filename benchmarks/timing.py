"""Time two sides in turn, and measure the limits of this machine."""

import time
from collections.abc import Callable
from statistics import median

import torch

from stlight.config import ModelConfig
from stlight.model import build_model
from stlight.model.complexity import count_flops
from stlight.registry.dataset_specs import ClipShape


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """Return the seconds of one call, including the work that it started on the device."""
    started = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(
    reference: Callable[[], object], ours: Callable[[], object], *, budget: float, device: str = "cpu"
) -> tuple[float, float]:
    """Return the median seconds of each side, warm, and in turn so that other work on the machine affects both alike.

    Ours is called five times in each turn, because it is short. `budget` is the total time in seconds.
    """
    for side in (reference, ours, ours):
        seconds(side, device)
    references, times, started = [], [], time.perf_counter()
    while len(references) < 3 or time.perf_counter() - started < budget:
        references.append(seconds(reference, device))
        times += [seconds(ours, device) for _ in range(5)]
    return median(references), median(times)


def product_rate(device: str = "cpu") -> float:
    """Return multiply-adds per second of a large matrix product in float32: the best of ten."""
    side = 1536 if device == "cpu" else 8192
    a, b, out = (torch.rand(side, side, device=device) for _ in range(3))
    return side**3 / min(seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(10))


def copy_bandwidth(device: str = "cpu") -> float:
    """Return bytes per second, reads plus writes, of a copy much larger than the caches: the best of ten."""
    source = torch.rand(2**25 if device == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device) for _ in range(10))


def step_limit(model: ModelConfig, shape: ClipShape, batch_size: int, rate: float, bandwidth: float) -> float:
    """Return a lower bound for the seconds of a training step in float32 at this machine's rates: the larger of two.

    Multiply-adds, at the rate of a matrix product: the forward pass three times (itself, the gradients of the weights, and
    those of the inputs, which the encoder does not need). Bytes: each mixer moves an activation eleven times if all work that
    is independent for each channel is one pass (forward: read h, write y; product: read y, write h; backward: read the gradient
    and h, write a gradient; products: read two, read one and write one). Adam reads and writes eight numbers for each weight.
    """
    net = build_model(model, shape)
    patches = batch_size * shape.height * shape.width // model.patch_size**2
    encoder = net.patch_encoder[0].weight.numel() * patches  # type: ignore[index, union-attr]
    products = 3 * batch_size * count_flops(net, shape) - encoder
    weights = sum(p.numel() for p in net.parameters())
    moved = 4 * (11 * model.depth * model.hidden_dim * patches + 8 * weights)
    return max(products / rate, moved / bandwidth)
