"""Training steps with less overhead: all weights as one parameter, and a whole step as one CUDA graph."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

# Calls before recording: libraries load, and operators choose their kernels.
_WARM_UP = 3


def record_step(compute: Callable[[Tensor], Tensor], model: nn.Module, clip: Tensor) -> Callable[[Tensor], Tensor]:
    """Record all kernels of `compute` as one CUDA graph, and return a function that replays them.

    `compute` takes clips of the shape of `clip`, zeroes the gradients of `model`, adds those of a loss, and returns the loss.
    It must not wait for the device. The function returned takes and gives the same. Recording leaves weights and statistics of
    the model as they were, but not its gradients.
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
    model.load_state_dict(before)

    def replay(clip: Tensor) -> Tensor:
        given.copy_(clip, non_blocking=True)
        graph.replay()
        # The next replay overwrites the loss.
        return loss.clone()

    return replay


def flatten_weights(model: nn.Module) -> nn.Parameter:
    """Return all weights of a model as one parameter. The model's own weights and gradients become views of it.

    An optimizer that works element by element gives the same result, for the overhead of one parameter instead of a hundred.
    The compiled kernels give their gradients to this parameter at once: `backward` fills those of the single weights, too, but
    `torch.autograd.grad` by single weights raises `RuntimeError`.
    """
    parameters = list(model.parameters())
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [p.numel() for p in parameters]
    for parameter, values, gradient in zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True):
        parameter.data, parameter.grad = values.view_as(parameter), gradient.view_as(parameter)
        # A deep copy has no such attribute, because its weights are not parts of this one.
        parameter.flat = flat  # type: ignore[attr-defined]
    return flat
