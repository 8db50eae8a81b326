"""A training step and a prediction on clips of noise: their time, and their memory in bytes."""

import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from stlight.config import RunConfig
from stlight.kernels import accelerate, backend_of
from stlight.kernels.whole_step import FlatAdam
from stlight.model import TrainingStep, build_model
from stlight.training.devices import accelerate_for_run, configure
from stlight.training.loop import predictor, take_step


class Workload:
    """The model and optimizer of a run, and `clips` clips of noise, on `device`, which may be "meta"."""

    def __init__(self, config: RunConfig, device: torch.device, clips: int, race: bool = True) -> None:
        """Build the model. `race` times the kernels if the run names none."""
        self.config, self.recipe, self.device, shape = config, config.training, device, config.clip_shape
        configure(self.recipe)
        with device:
            self.model = build_model(config.model, shape, dataset=config.data.dataset)
            size = (clips, shape.context_frames + shape.horizon_frames, shape.channels, shape.height, shape.width)
            self.clip = torch.rand(size)
        if race:
            accelerate_for_run(self.model, config, device)
        else:
            accelerate(self.model, self.recipe.kernels)
        self.kernels = backend_of(self.model)
        # A learning rate of 0 keeps the initial weights, so that every step does the same work.
        self.optimizer = FlatAdam(self.model, lr=0.0)
        self.num_context = shape.context_frames
        self.index, self.last_phase = self.model.typical_step(), len(self.model.phases(self.recipe.num_epochs)) - 1

    def step(self) -> None:
        """Compute a training step on all clips, of the last phase, which costs most."""
        parts, step = self.recipe.accumulation_steps, self._training_step()
        take_step(self.model.train(), self.optimizer, self.clip, self.num_context, self.recipe, parts, step)

    @torch.no_grad()
    def predict(self) -> None:
        """Predict all clips."""
        predictor(self.model, self.device, self.recipe)(self.clip[:, : self.num_context])

    def seconds(self, function: Callable[[], object]) -> float:
        """Return the seconds of a call, including the work that it starts on the device."""
        return seconds_of(function, self.device)

    def step_flops(self) -> int:
        """Return the multiply-adds of a training step in convolutions and matrix products.

        The backward pass costs twice the forward pass, but nothing where the model disables gradients.
        """
        context, target = self.clip[:, : self.num_context], self.clip[:, self.num_context :]
        with _StepFlops() as counter:
            self.model.train().training_loss(context, target, self._training_step())
        return counter.total // 2

    def peak_memory(self) -> int:
        """Return the bytes of weights, gradients, optimizer state and the tensors of a training step at their peak."""
        # Allocates the optimizer's state, which a step of a run already has.
        self.optimizer.step()
        self.optimizer.zero_grad()
        return resident_bytes(self.model, self.optimizer) + peak_growth(self.step, self.device)

    def _training_step(self) -> TrainingStep:
        return TrainingStep.at(self.index, self.recipe.sampling_steps, 0, self.last_phase)


def seconds_of(function: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of a call, including the work that it starts on the device."""
    started = time.perf_counter()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def resident_bytes(model: nn.Module, optimizer: torch.optim.Optimizer) -> int:
    """Return the bytes of weights, buffers, gradients and optimizer state, counting each storage once."""
    weights = [*model.parameters(), *(weight for group in optimizer.param_groups for weight in group["params"])]
    state = [value for values in optimizer.state.values() for value in values.values()]
    storages = _storages([*weights, *(weight.grad for weight in weights), *state, *model.buffers()])
    return sum({storage._cdata: storage.nbytes() for storage in storages}.values())


def peak_growth(function: Callable[[], object], device: torch.device) -> int:
    """Return how many bytes of live tensors a call adds at its peak.

    On CUDA, asks torch's allocator, which includes the workspaces of libraries. Elsewhere, follows each result of an operation
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


class _StepFlops(TorchDispatchMode):
    """Count the floating-point operations of a forward pass inside the block and of its backward pass, which is not computed.

    PyTorch's own counter takes a backward pass of a grouped convolution for one without groups.
    """

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if count := flop_registry.get(func._overloadpacket):
            self.total += count(*args, **(kwargs or {}), out_val=result) * (3 if torch.is_grad_enabled() else 1)
        return result


class _LiveBytes(TorchDispatchMode):
    """Count the bytes of every storage that operations allocate inside the block, until its last tensor is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._now = 0
        # Storages on "meta" have no data pointer to tell them apart.
        self._followed: dict[int, weakref.ref[torch.UntypedStorage]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        # Views and in-place operations return a storage of their input, which is already allocated.
        given = {storage._cdata for storage in _storages(tree_leaves((args, kwargs)))}
        for storage in _storages(tree_leaves(result)):
            if storage._cdata not in given and storage._cdata not in self._followed:
                self._followed[storage._cdata] = weakref.ref(storage, partial(self._end, storage._cdata, storage.nbytes()))
                self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        return result

    def _end(self, address: int, size: int, _: object) -> None:
        self._now -= size
        del self._followed[address]


def _storages(values: Iterable[Any]) -> list[torch.UntypedStorage]:
    return [value.untyped_storage() for value in values if isinstance(value, Tensor)]
