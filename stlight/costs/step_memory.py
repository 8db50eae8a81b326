"""Bytes that a training step takes: what stays from step to step, and what comes on top of it while a step is computed."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def resident_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """What stays from step to step: weights, buffers, gradients and the optimizer's moments, each storage once."""
    weights = [*model.parameters(), *(weight for group in optimizer.param_groups for weight in group["params"])]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    moments = [value for state in optimizer.state.values() for value in state.values() if isinstance(value, Tensor)]
    return _bytes([*weights, *gradients, *moments, *model.buffers()])


def growth(function: Callable[[], object], device: torch.device) -> int:
    """How far a call makes the bytes of live tensors rise above what they were before it, at the peak.

    On a CUDA device by torch's own account, which has the libraries' workspaces in it; on a CPU by following each tensor that
    an operation gives from its making to its end, which leaves out what an operation takes and frees within itself.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with _LiveBytes() as live:
        function()
    return live.peak


class _LiveBytes(TorchDispatchMode):
    """Counts the bytes of every storage that operations make inside, until the last tensor on it is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._followed: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # A view, and what is computed in place, lies where its input does: that is nothing new.
        given = {storage._cdata for storage in _storages(tree_leaves((args, kwargs)))}
        for storage in _storages(tree_leaves(result)):
            if storage._cdata not in given and storage._cdata not in self._followed:
                self._follow(storage)
        return result

    def _follow(self, storage: torch.UntypedStorage) -> None:
        address, size = storage._cdata, storage.nbytes()

        def end(_: object) -> None:
            self._now -= size
            del self._followed[address]

        self._followed[address] = weakref.ref(storage, end)
        self._now += size
        self.peak = max(self.peak, self._now)


def _storages(values: Iterable[Any]) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in values if isinstance(value, Tensor)]


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({storage._cdata: storage.nbytes() for storage in _storages(tensors)}.values())
