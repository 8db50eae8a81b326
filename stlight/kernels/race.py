"""Time the backends that compete on a device, once for each device, shape, precision and version."""

import contextlib
import copy
import gc
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stlight.kernels.accelerate import BACKENDS
from stlight.kernels.backends import Backend
from stlight.kernels.compile import cache_folder
from stlight.kernels.stages import libraries
from stlight.model.stlight import STLight
from stlight.runtime.processor import processor

# "compiled" does not compete on a CPU, where compiling takes half a minute and made steps slower.
COMPETITORS = {
    "cpu": ("fused", "space_to_batch", "plain"),
    "cuda": ("plain", "channels_last", "space_to_batch", "compiled", "triton", "triton_channels_last"),
}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Race:
    """The outcome of timing the backends."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    """Time of one mixer's training step for each backend, the fastest first."""
    dropped_out: dict[str, str] = field(default_factory=dict)
    """Error of each backend that failed while it was timed."""


def fastest(model: STLight, x_BCHW: Tensor) -> Race:
    """Time one mixer's training step on activations x (B, C, H, W) with each backend that fits the model.

    The user's cache keeps the result. If several processes measure at the same time, the first to finish decides for all, so
    that runs side by side compute alike. A backend that fails, lacks memory or differs from "plain" drops out with a warning;
    delete the cached file to try it again.
    """
    folder, key = cache_folder(), _key(model.mixers[0], x_BCHW)
    path = folder / f"race-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json" if folder else None
    race = _load(path) if path else None
    if race is None:
        race = measure(model, x_BCHW)
        if path and race.milliseconds:
            # Creates the file atomically, unless another process has done so or the file system does not let us.
            with contextlib.suppress(OSError), tempfile.NamedTemporaryFile("w", dir=folder, suffix=".tmp") as file:
                json.dump({"key": key, **asdict(race)}, file, indent=1)
                file.flush()
                os.link(file.name, path)
            race = _load(path) or race
    for name, error in race.dropped_out.items():
        logger.warning("kernels %s dropped out while being timed: %s%s", name, error, f" (cached in {path})" if path else "")
    return race


def measure(model: STLight, x_BCHW: Tensor, names: Sequence[str] = ()) -> Race:
    """Time backends, by default those that compete on the device of x, without looking into the cache."""
    times: dict[str, float] = {}
    dropped_out: dict[str, str] = {}
    expected: list[Tensor] = []
    mixer = model.mixers[0]
    # Plain comes first, because the others are compared with it.
    for name in sorted(names or COMPETITORS[x_BCHW.device.type], key="plain".__ne__):
        backend = BACKENDS[name]
        try:
            if backend.fits(model):
                found = results(backend, mixer, x_BCHW)
                if name == "plain":
                    expected = found
                elif expected:
                    _compare(found, [backend.enter(expected[0]), *expected[1:]], _tolerance(x_BCHW))
                del found
                times[name] = milliseconds(backend, mixer, x_BCHW)
        except Exception as error:
            dropped_out[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        if name in dropped_out:
            # Outside the except clause, because the traceback holds the memory of the step that failed.
            gc.collect()
            if x_BCHW.device.type == "cuda":
                torch.cuda.empty_cache()
    return Race(dict(sorted(times.items(), key=lambda item: item[1])), dropped_out)


def results(backend: Backend, mixer: nn.Module, x_BCHW: Tensor) -> list[Tensor]:
    """Compute a training step of a copy of a mixer, on values of the shape and type of x.

    Returns its output, in the backend's layout, the gradient of x, the gradients of each module, and its buffers. A module's
    gradients are one vector, because that of a bias alone is a sum that cancels, which magnifies rounding.
    """
    mixer = copy.deepcopy(mixer).train()
    # Values without a pattern, because a BatchNorm over nearly equal ones magnifies rounding.
    count = torch.arange(x_BCHW.numel(), device=x_BCHW.device).view_as(x_BCHW)
    x, factors = ((count * prime % 1009 / 504.5 - 1).to(x_BCHW.dtype) for prime in (619, 811))
    out = backend.mixer(mixer)(backend.enter(x.requires_grad_()))
    (out * backend.enter(factors)).sum().backward()
    parameters = [list(module.parameters(recurse=False)) for module in mixer.modules()]
    gradients = [torch.cat([p.grad.flatten() for p in own if p.grad is not None]) for own in parameters if own]
    assert x.grad is not None
    return [tensor.detach().float() for tensor in (out, x.grad, *gradients, *mixer.buffers())]


def _compare(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """Raise `ValueError` if results differ by more than a share of their norm, or are not finite."""
    for mine, theirs in zip(found, expected, strict=True):
        error = ((mine - theirs).norm() / theirs.norm().clamp_min(1e-20)).item()
        if not error <= tolerance:
            raise ValueError(f"wrong result: differs from plain by {error:.2g} of its norm, at most {tolerance:g} is rounding")


def _tolerance(x_BCHW: Tensor) -> float:
    """Return what rounding can explain in the precision of now."""
    device = x_BCHW.device.type
    reduced = torch.is_autocast_enabled(device) or (device == "cuda" and torch.backends.cudnn.allow_tf32)
    return 0.2 if reduced else 0.01


def milliseconds(backend: Backend, mixer: nn.Module, x_BCHW: Tensor) -> float:
    """Return the median of five training steps of a copy of a mixer, after one that loads and compiles."""
    mixer = copy.deepcopy(mixer).train()
    x, layer = backend.enter(x_BCHW).detach().requires_grad_(), backend.mixer(mixer)
    times = []
    for _ in range(6):
        started = time.perf_counter()
        out = layer(x)
        torch.autograd.grad(out, [x, *mixer.parameters()], torch.ones_like(out))
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return median(times[1:]) * 1e3


def _key(mixer: nn.Module, x_BCHW: Tensor) -> list[Any]:
    """Return all that the times depend on."""
    device = x_BCHW.device
    convolutions = [[*m.kernel_size, *m.dilation] for m in mixer.modules() if isinstance(m, nn.Conv2d)]
    autocast = torch.is_autocast_enabled(device.type)
    precision = [str(torch.get_autocast_dtype(device.type) if autocast else x_BCHW.dtype), torch.backends.cudnn.allow_tf32]
    cpu = [processor(), torch.get_num_threads(), *(Path(opened._name).name for opened in libraries() or ())]
    where = [torch.cuda.get_device_name(device)] if device.type == "cuda" else cpu
    return [version("stlight"), torch.__version__, *where, *precision, list(x_BCHW.shape), convolutions]


def _load(path: Path) -> Race | None:
    """Return the cached result, or None if there is none; delete a damaged one."""
    # Imported here, because the benchmark on a bare GPU machine has no pydantic, and no cache.
    from pydantic import TypeAdapter

    try:
        return TypeAdapter(Race).validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        path.unlink(missing_ok=True)
        return None
