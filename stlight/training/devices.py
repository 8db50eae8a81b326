"""Choose the device of a run and how it computes there, and explain a lack of memory."""

import contextlib
import ctypes
import math
import os
import platform
from typing import Any

import torch
from torch import nn

from stlight.config import RunConfig, TrainingConfig
from stlight.kernels import Race, accelerate, fastest
from stlight.model.stlight import find_stlight

_CHANGE = (
    "run fewer at a time, give it more memory (resources mem_mb, slots_per_gpu), or compute batches in parts"
    " (accumulation_steps, or out_of_memory: split, in the scale's compute section)"
)

# Parts of the messages with which allocator and libraries on a CPU raise a plain RuntimeError.
_WORDS = ("can't allocate memory", "could not create a primitive", "bad_alloc", "Cannot allocate memory")


class OutOfMemory(MemoryError):  # noqa: N818 - says what happened
    """A run does not fit into memory. The message, one line, says what to change."""


def out_of_memory(error: BaseException, device: torch.device) -> OutOfMemory | None:
    """Return an error as `OutOfMemory` if it is a lack of memory, otherwise None."""
    if isinstance(error, OutOfMemory):
        return error
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(words in str(error) for words in _WORDS):
        return None
    said = next(iter(str(error).splitlines()), "no more memory")
    return OutOfMemory(f"out of memory on {device.type}: {said}; {_CHANGE}")


def choose_device(wanted: str = "auto") -> torch.device:
    """Return the device; `auto` takes a CUDA device if there is one. Raises `ValueError` if `cuda` finds none."""
    if wanted not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {wanted!r}")
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for, but torch sees no CUDA device: use auto or cpu")
    return torch.device("cuda" if wanted != "cpu" and torch.cuda.is_available() else "cpu")


def configure(config: TrainingConfig) -> None:
    """Set what is global to the process: memory, TF32, and no autotuning, because its choices change results between runs."""
    # By default glibc returns large blocks to the system, which costs a wide model ten thousand page faults in each step.
    trim_threshold, mmap_threshold = -1, -3
    with contextlib.suppress(OSError, AttributeError, TypeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(trim_threshold, 2**31 - 1)
        mallopt(mmap_threshold, 2**30)
    torch.backends.cuda.matmul.allow_tf32 = config.tf32
    torch.backends.cudnn.allow_tf32 = config.tf32
    torch.backends.cudnn.benchmark = False
    if config.deterministic:
        # cuBLAS reads this variable when it is first used.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    # Only if it changes something, because this call loads torch's compiler.
    if config.deterministic != torch.are_deterministic_algorithms_enabled():
        torch.use_deterministic_algorithms(config.deterministic)


def accelerate_for_run(model: nn.Module, config: RunConfig, device: torch.device) -> Race:
    """Accelerate a model with the kernels that its run names; `auto` takes the fastest on this device.

    Returns the race of the backends, which is empty unless they were timed. A backend that cannot serve becomes "plain".
    """
    kernels: str = config.training.kernels
    race, stlight = Race(), find_stlight(model)
    if stlight and kernels == "auto":
        shape, side = config.clip_shape, stlight.patch_size
        size = (config.training.batch_size, config.model.hidden_dim, shape.height // side, shape.width // side)
        with autocast(device, config.training):
            race = fastest(stlight, torch.linspace(-1, 1, math.prod(size), device=device).view(size))
        kernels = next(iter(race.milliseconds), "plain")
    accelerate(model, kernels)
    return race


def autocast(device: torch.device, config: TrainingConfig) -> contextlib.AbstractContextManager[Any]:
    """Return bfloat16 autocast if it is configured and the device is a GPU, otherwise a context that does nothing."""
    if device.type == "cuda" and config.precision == "bfloat16":
        return torch.autocast("cuda", torch.bfloat16)
    return contextlib.nullcontext()


def describe_device(device: torch.device) -> dict[str, Any]:
    """Describe the device for the record."""
    if device.type == "cuda":
        return {"type": "cuda", "name": torch.cuda.get_device_name(device), "cuda": torch.version.cuda}
    name = platform.processor() or platform.machine()
    return {"type": "cpu", "name": name, "threads": torch.get_num_threads()}
