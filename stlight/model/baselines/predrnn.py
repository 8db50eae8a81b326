"""PredRNN (Wang et al., 2017): layers of ST-LSTMs, through which a shared memory zigzags."""

from dataclasses import dataclass

from torch import Tensor, nn

from stlight.model.baselines.cells import SpatioTemporalLSTMCell, layer_inputs, zeros
from stlight.model.baselines.recurrent import Recurrent, conv
from stlight.registry.dataset_specs import ClipShape


@dataclass(frozen=True)
class State:
    """Hidden states and memories of the layers, the shared memory, and what the last step added to either memory."""

    h: list[Tensor]
    c: list[Tensor]
    m: Tensor
    added: list[tuple[Tensor, Tensor]]


class PredRNN(Recurrent):
    """Four layers of 128 channels, filters of 5 × 5."""

    name = "PredRNN"

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.hidden_dim = self.wide(128)
        inputs = layer_inputs(self.patch_channels, self.hidden_dim, self.deep(4))
        self.cells = nn.ModuleList(SpatioTemporalLSTMCell(channels, self.hidden_dim) for channels in inputs)
        self.readout = conv(self.hidden_dim, self.patch_channels, 1)

    def begin(self, frame: Tensor) -> State:
        """Zeros."""
        zero = zeros(frame, self.hidden_dim)
        return State([zero] * len(self.cells), [zero] * len(self.cells), zero, [])

    def step(self, frame: Tensor, state: State) -> tuple[Tensor, State]:
        """Through all layers, the shared memory upwards."""
        x, m = frame, state.m
        after = State([], [], m, [])
        for cell, h, c in zip(self.cells, state.h, state.c, strict=True):
            x, c, m, *added = cell(x, h, c, m)
            after.h.append(x)
            after.c.append(c)
            after.added.append((added[0], added[1]))
        return self.readout(x), State(after.h, after.c, m, after.added)
