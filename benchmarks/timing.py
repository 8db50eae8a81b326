"""Times of two sides taken in turn, and what this machine can do at best."""

import time
from collections.abc import Callable
from statistics import median

import torch

from stlight.config import ModelConfig
from stlight.model import build_model
from stlight.model.complexity import count_flops
from stlight.registry.dataset_specs import ClipShape


def seconds(function: Callable[[], object], device: str = "cpu") -> float:
    """One call, to the end of what it started on the device."""
    started = time.perf_counter()
    function()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def in_turn(
    reference: Callable[[], object], ours: Callable[[], object], *, budget: float, device: str = "cpu"
) -> tuple[float, float]:
    """Median seconds of each, both warm, taken in turn so that what else the machine does falls on both alike.

    Ours is called as often as fits into the time of the reference, up to five times, for it is short. `budget`: seconds in all.
    """
    for side in (reference, ours, ours):
        seconds(side, device)
    references, times, started = [], [], time.perf_counter()
    while len(references) < 3 or time.perf_counter() - started < budget:
        references.append(seconds(reference, device))
        times += [seconds(ours, device) for _ in range(5)]
    return median(references), median(times)


def product_rate(device: str = "cpu") -> float:
    """Multiply-adds a second of a large matrix product in float32: the best of ten."""
    side = 1536 if device == "cpu" else 8192
    a, b, out = (torch.rand(side, side, device=device) for _ in range(3))
    return side**3 / min(seconds(lambda: torch.mm(a, b, out=out), device) for _ in range(10))


def copy_bandwidth(device: str = "cpu") -> float:
    """Bytes a second, read and written together, of a copy far larger than the caches: the best of ten."""
    source = torch.rand(2**25 if device == "cpu" else 2**28, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / min(seconds(lambda: target.copy_(source), device) for _ in range(10))


def step_limit(model: ModelConfig, shape: ClipShape, batch_size: int, rate: float, bandwidth: float) -> float:
    """Seconds that no training step in float32 can be under, by this machine's rates: the larger of two.

    Multiply-adds: the forward pass three times (its own, the weights' gradients, the inputs' gradients, which the encoder does
    not need), at the rate of a matrix product. Bytes: an activation passes eleven times through each mixer, if all that is
    independent for each channel is one pass (forward: read h, write y; product: read y, write h; backward: read the gradient
    and h, write a gradient; products: read two, read one and write one). Adam reads and writes eight numbers for each weight.
    """
    net = build_model(model, shape)
    patches = batch_size * shape.height * shape.width // model.patch_size**2
    encoder = net.patch_encoder[0].weight.numel() * patches  # type: ignore[index, union-attr]
    products = 3 * batch_size * count_flops(net, shape) - encoder
    weights = sum(p.numel() for p in net.parameters())
    moved = 4 * (11 * model.depth * model.hidden_dim * patches + 8 * weights)
    return max(products / rate, moved / bandwidth)
