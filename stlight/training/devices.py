"""The device a run uses and how it computes there."""

import contextlib
import ctypes
import os
import platform
from typing import Any

import torch
from torch import nn

from stlight.config import RunConfig, TrainingConfig
from stlight.kernels import choose_path, fastest, using
from stlight.model import STLight


def choose_device(wanted: str = "auto") -> torch.device:
    """`auto` takes a CUDA device where there is one. Raises `ValueError` if a CUDA device is asked for and there is none."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {wanted!r}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no CUDA device: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def configure(config: TrainingConfig) -> None:
    """Set what is global to the process: memory, TF32, and no autotuning, whose choices change results from run to run."""
    keep_freed_memory()
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = False
    if config.deterministic:
        # cuBLAS reads it when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # The call loads torch's compiler, so it is made where something is to change.
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic)


def keep_freed_memory() -> None:
    """Have the C library keep what a step frees for the next one, where it can be told to.

    By default it gives large blocks back to the system and takes them anew: ten thousand page faults a step of a wide model.
    """
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)


def choose_kernels(model: nn.Module, config: RunConfig, device: torch.device) -> tuple[str, dict[str, float]]:
    """How the run's mixers will be computed, and a mixer's milliseconds by each way if they were compared to find out.

    Plainly where the model has none.
    A way that is asked for and cannot serve here, for want of a compiler say, becomes "plain".
    """
    found = _stlight_and_clip(model, config, device)
    if not found:
        return "plain", {}
    stlight, clip = found
    shape, batch_size, side = config.clip_shape, config.training.batch_size, stlight.patch_size
    times: dict[str, float] = {}
    kernels: str = config.training.kernels
    model.train()
    with autocast(device, config.training):
        if kernels == "auto":
            x = torch.linspace(
                -1, 1, batch_size * config.model.hidden_dim * shape.height * shape.width // side**2, device=device
            )
            x = x.view(batch_size, -1, shape.height // side, shape.width // side)
            times = fastest(stlight, stlight.mixers[0], clip, x)
            kernels = next(iter(times))
        with using(kernels):
            return choose_path(stlight, clip).name, times


def serving_kernels(model: nn.Module, config: RunConfig, device: torch.device) -> str:
    """The way that computes the run's mixers here: the one in use, or "plain" where that cannot serve."""
    found = _stlight_and_clip(model, config, device)
    if not found:
        return "plain"
    stlight, clip = found
    model.train()
    with autocast(device, config.training):
        return choose_path(stlight, clip).name


def _stlight_and_clip(model: nn.Module, config: RunConfig, device: torch.device) -> tuple[STLight, torch.Tensor] | None:
    stlight = next((module for module in model.modules() if isinstance(module, STLight)), None)
    if stlight is None:
        return None
    shape = config.clip_shape
    clip = (config.training.batch_size, shape.context_frames, shape.channels, shape.height, shape.width)
    return stlight, torch.zeros(clip, device=device)


def autocast(device: torch.device, config: TrainingConfig) -> contextlib.AbstractContextManager[Any]:
    """bfloat16 autocast where it is configured and the device is a GPU; otherwise nothing."""
    if device.type == "cuda" and config.precision == "bfloat16":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def describe_device(device: torch.device) -> dict[str, Any]:
    """The device for the record."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    return {
        "type": "cpu",
        "name": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
    }
