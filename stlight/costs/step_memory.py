"""Memory of a training step in bytes: what stays allocated between steps, and what a step adds at its peak."""

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def resident_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of weights, buffers, gradients and optimizer state, counting each storage once."""
    weights = [*model.parameters(), *(weight for group in optimizer.param_groups for weight in group["params"])]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    storages = _storages([*weights, *gradients, *state, *model.buffers()])
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def saved_bytes(step: Callable[[], object]) -> int:
    """Return the bytes that a step keeps for its backward pass, counting each storage once. Works on "meta" tensors."""
    storages: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        # Storages on "meta" have no data pointer to tell them apart.
        storages[storage._cdata] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        step()
    return sum(storages.values())


def peak_growth(function: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes of live tensors a call adds at its peak.

    CUDA: torch's allocator statistics, which include the workspaces of libraries. CPU: follows each result of an operation
    until it is freed, which misses what an operation allocates and frees internally.
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
    """Count the bytes of every storage that operations allocate inside the block, until its last tensor is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        self._followed: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Views and in-place operations return a storage of their input, which is already allocated.
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
