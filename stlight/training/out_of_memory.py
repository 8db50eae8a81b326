"""Explain a lack of memory on a GPU or in the host: what was requested, what was free, and what to change."""

import re
import resource
from contextlib import suppress
from pathlib import Path

import torch

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
    text = str(error)
    if isinstance(error, OutOfMemory):
        return error
    if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(words in text for words in _WORDS):
        return None
    asked = re.search(r"(?:tried to|unable to) allocate (\S+ \w+)", text, re.IGNORECASE)
    free = _free(device)
    return OutOfMemory(
        f"out of memory on {device.type}: {_readable(asked[1]) if asked else 'more'} was asked for,"
        f" {f'{free / 2**30:.2f} GiB' if free is not None else 'less'} was free; {_CHANGE}"
    )


def _readable(amount: str) -> str:
    number, unit = amount.split()
    return f"{int(number) / 2**30:.2f} GiB" if unit.startswith("byte") else f"{number} {unit}"


def _free(device: torch.device) -> int | None:
    """Return the free bytes on the GPU, or in the host within the limits of this process and its cgroup."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    limits = []
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        limits.append(1024 * int(next(line for line in lines if line.startswith("MemAvailable")).split()[1]))
    with suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limits.append(int((group / "memory.max").read_text()) - int((group / "memory.current").read_text()))
    with suppress(OSError, ValueError):
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            limits.append(limit - int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize())
    return max(0, min(limits)) if limits else None
