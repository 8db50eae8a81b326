"""Training steps with less overhead: all weights as one parameter, and a whole step as one CUDA graph."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

# Calls before recording: libraries load, and operators choose their kernels.
_WARM_UP = 3


def record_step(
    compute: Callable[[Tensor], Tensor], optimizer: "FlatAdam", model: nn.Module, clip: Tensor
) -> Callable[[Tensor], Tensor]:
    """Record all kernels of `compute` as one CUDA graph, and return a function that replays them.

    `compute` takes clips of the shape of `clip`, drops the gradients of `model`, computes those of a loss, and returns it.
    It must not wait for the device. The function returned takes and gives the same; the optimizer can take its step then.
    Recording leaves weights and statistics of the model as they were, but not its gradients.
    """
    given = clip.clone()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    stream = torch.cuda.Stream(clip.device)
    stream.wait_stream(torch.cuda.current_stream(clip.device))
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UP):
            compute(given)
    torch.cuda.current_stream(clip.device).wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        loss = compute(given)
        optimizer.gather_gradients()
    gradient = optimizer.flat.grad
    model.load_state_dict(before)

    def replay(clip: Tensor) -> Tensor:
        given.copy_(clip, non_blocking=True)
        graph.replay()
        optimizer.flat.grad = gradient
        # The next replay overwrites the loss.
        return loss.clone()

    return replay


class FlatAdam(torch.optim.Adam):
    """Adam on all weights of a model as one parameter, `flat`, for the overhead of one parameter instead of a hundred.

    The model's weights become parts of it. Where the compiled kernels compute a whole model, they give their gradients to
    `flat` itself, so that none is set to zero or copied, and `torch.autograd.grad` by single weights raises `RuntimeError`.
    What single weights get is moved to `flat` before a step. So drop and clip gradients by this optimizer and `flat`, not by
    the model, train these weights with no other optimizer, and make a new one if a weight gets other memory.
    """

    def __init__(self, model: nn.Module, lr: float = 1e-3) -> None:
        """Make the weights of a model parts of one parameter, without gradients."""
        self._weights = list(model.parameters())
        self.flat = nn.Parameter(torch.cat([weight.detach().flatten() for weight in self._weights]))
        parts = self.flat.detach().split([weight.numel() for weight in self._weights])
        for weight, values in zip(self._weights, parts, strict=True):
            weight.data, weight.grad = values.view_as(weight), None
            # A deep copy has no such attribute, because its weights are not parts of this one.
            weight.flat = self.flat  # type: ignore[attr-defined]
        # PyTorch has no fused kernel for the device "meta".
        super().__init__([self.flat], lr=lr, fused=self.flat.device.type != "meta")
        self.register_step_pre_hook(_gather)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, whatever `set_to_none` says."""
        for weight in (self.flat, *self._weights):
            weight.grad = None

    def gather_gradients(self) -> None:
        """Move the gradients of single weights to `flat`. A weight that has none gets zeros, so that its momentum goes on."""
        if all(weight.grad is None for weight in self._weights):
            if self.flat.grad is None:
                self.flat.grad = torch.zeros_like(self.flat)
            return
        gradients = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self._weights]
        whole = torch.cat([gradient.flatten() for gradient in gradients])
        self.flat.grad = whole if self.flat.grad is None else self.flat.grad.add_(whole)
        for weight in self._weights:
            weight.grad = None


def _gather(optimizer: Any, *_: Any) -> None:
    # Not a closure, because an optimizer that refers to itself would keep its memory until garbage is collected.
    optimizer.gather_gradients()
