"""Which path computes a model: one that is named, one found by timing on this machine, or the first that serves."""

import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path as FilePath
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from stlight.kernels.build import cache_folder, processor
from stlight.kernels.fused import FusedPath, mixer_library
from stlight.kernels.paths import ChannelsLastPath, CompiledPath, Path, SpaceToBatchPath, step_of

PATHS: dict[str, Path] = {p.name: p for p in (Path(), ChannelsLastPath(), SpaceToBatchPath(), FusedPath(), CompiledPath())}

# Those that compete on a device. Compiling takes half a minute and made steps slower on a CPU.
COMPETITORS = {
    "cpu": ("fused", "space_to_batch", "plain"),
    "cuda": ("plain", "channels_last", "space_to_batch", "compiled"),
}

_named: ContextVar[str] = ContextVar("path", default="auto")


@contextmanager
def using(name: str) -> Iterator[None]:
    """Inside, models compute by the path of this name where it serves, else plainly; "auto" leaves the choice open.

    `using("plain")` is for counting operations, and the reference that faster paths are compared with.
    Raises `ValueError` for a name that is not there.
    """
    if name != "auto" and name not in PATHS:
        raise ValueError(f"kernels must be one of auto, {', '.join(PATHS)}, got {name!r}")
    token = _named.set(name)
    try:
        yield
    finally:
        _named.reset(token)


def choose_path(model: nn.Module, clip: Tensor) -> Path:
    """The named path, or without a name the fused one; where it does not serve this model on this input, the plain one."""
    name = _named.get()
    path = PATHS["fused" if name == "auto" else name]
    return path if path.serves(model, clip) else PATHS["plain"]


def fastest(model: nn.Module, mixer: nn.Module, clip: Tensor, x_BCHW: Tensor) -> dict[str, float]:
    """Milliseconds of a training step of one mixer on x (B, C, H, W) by each path that competes, the fastest first.

    Measured once for a device, shape, precision and version, and remembered in the user's cache. Of processes that measure at
    the same time the first to finish decides for all, so that runs side by side compute alike.
    """
    folder, key = cache_folder(), _key(mixer, x_BCHW)
    if not folder:
        return _measure(model, mixer, clip, x_BCHW)
    path = folder / f"paths-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if times := _remembered(path):
        return times
    times = _measure(model, mixer, clip, x_BCHW)
    _remember(path, {"key": key, "milliseconds": times})
    return _remembered(path) or times


def _measure(model: nn.Module, mixer: nn.Module, clip: Tensor, x_BCHW: Tensor) -> dict[str, float]:
    times: dict[str, float] = {}
    for name in COMPETITORS.get(x_BCHW.device.type, ("plain",)):
        if not PATHS[name].serves(model, clip):
            continue
        step = step_of(PATHS[name], mixer, x_BCHW)
        _milliseconds(step)
        times[name] = _milliseconds(step)
        # One that is far behind once it is warm needs no more proof.
        if times[name] < 3 * min(times.values()):
            times[name] = median(_milliseconds(step) for _ in range(5))
    return dict(sorted(times.items(), key=lambda item: item[1]))


def _milliseconds(step: Callable[[], None]) -> float:
    started = time.perf_counter()
    step()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return (time.perf_counter() - started) * 1e3


def _key(mixer: nn.Module, x_BCHW: Tensor) -> list[Any]:
    """All that the times depend on."""
    device = x_BCHW.device
    convolutions = [[*m.kernel_size, *m.dilation] for m in mixer.modules() if isinstance(m, nn.Conv2d)]
    autocast = torch.is_autocast_enabled(device.type)
    precision = [str(torch.get_autocast_dtype(device.type) if autocast else x_BCHW.dtype), torch.backends.cudnn.allow_tf32]
    where: list[Any]
    if device.type == "cuda":
        where = [torch.cuda.get_device_name(device)]
    else:
        kernels = mixer_library(x_BCHW.dtype)
        where = [processor(), torch.get_num_threads(), FilePath(kernels._name).name if kernels else None]
    return [version("stlight"), torch.__version__, *where, *precision, list(x_BCHW.shape), convolutions]


def _remembered(path: FilePath) -> dict[str, float]:
    """What was measured before; nothing if it was not, or its file is damaged, which then goes."""
    try:
        times = {str(name): float(ms) for name, ms in json.loads(path.read_text())["milliseconds"].items()}
        if times and all(name in PATHS and 0 < ms < math.inf for name, ms in times.items()):
            return times
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        pass
    with contextlib.suppress(OSError):
        path.unlink()
    return {}


def _remember(path: FilePath, measured: dict[str, Any]) -> None:
    """Write in one step, unless another process has, or the file system does not let us: then it is measured again."""
    with contextlib.suppress(OSError), tempfile.NamedTemporaryFile("w", dir=path.parent, suffix=".tmp") as file:
        json.dump(measured, file, indent=1)
        file.flush()
        os.link(file.name, path)
