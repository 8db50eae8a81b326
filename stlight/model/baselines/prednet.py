"""PredNet (Lotter et al., 2017): each layer predicts what the one below will see, and passes on only its error."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.baseline import Baseline
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape


def conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Same-padded 3 × 3; its bias begins at zero."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def hard_sigmoid(x: Tensor) -> Tensor:
    """Keras's: x / 5 + 1/2, cut off at 0 and 1."""
    return (0.2 * x + 0.5).clamp(0, 1)


class Layer(nn.Module):
    """A representation R (a ConvLSTM), its prediction of the layer below, and what its error makes the layer above see."""

    def __init__(self, dim: int, above: int) -> None:
        super().__init__()
        self.dim = dim
        # Of R and of the error of the step before, and of the representation above.
        inputs = 3 * dim + above
        self.gates = conv(inputs, 4 * dim)
        self.prediction = conv(dim, dim)
        self.upwards = conv(2 * dim, above) if above else None

    def represent(self, seen: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """What the layer sees (B, ·, H', W') and its cell → R and the cell."""
        i, f, g, o = self.gates(seen).chunk(4, 1)
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * torch.tanh(g)
        return hard_sigmoid(o) * torch.tanh(c), c


@dataclass(frozen=True)
class State:
    """Of each layer, the lowest first: representation, cell, and error."""

    r: list[Tensor]
    c: list[Tensor]
    error: list[Tensor]


class PredNet(Baseline):
    """Layers of 1, 32, 64, 128 and 256 channels, each at half the sides of the one below."""

    name = "PredNet"
    frame_multiple = 16

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        dims = [shape.channels, *(self.wide(32) * 2**i for i in range(self.deep(4)))]
        self.layers = nn.ModuleList(Layer(*pair) for pair in zip(dims, [*dims[1:], 0], strict=True))

    @property
    def stack(self) -> list[Layer]:
        """The layers, the lowest first."""
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def begin(self, frame: Tensor) -> State:
        """Zeros, for frames like this one (B, C, H, W)."""
        height, width = frame.shape[2:]
        sizes = [(layer.dim, height // 2**i, width // 2**i) for i, layer in enumerate(self.stack)]
        zeros = [frame.new_zeros((len(frame), *size)) for size in sizes]
        return State(zeros, zeros, [torch.cat((zero, zero), 1) for zero in zeros])

    def foresee(self, state: State) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """From the top down: the representations, the cells, and the frame (B, C, H, W) that they predict."""
        r: list[Tensor] = []
        c: list[Tensor] = []
        above: list[Tensor] = []
        for layer, *of_layer in reversed(list(zip(self.stack, state.r, state.c, state.error, strict=True))):
            representation, cell = layer.represent(torch.cat((of_layer[0], of_layer[2], *above), 1), of_layer[1])
            above = [F.interpolate(representation, scale_factor=2)]
            r.insert(0, representation)
            c.insert(0, cell)
        return r, c, F.relu(self.stack[0].prediction(r[0])).clamp(max=1)

    def notice(self, frame: Tensor, foreseen: Tensor, r: list[Tensor]) -> list[Tensor]:
        """From the bottom up, what was there and was not foreseen: errors (B, 2C, H, W)."""
        seen, predicted = frame, foreseen
        errors: list[Tensor] = []
        for layer, representation in zip(self.stack, r, strict=True):
            if errors:
                predicted = F.relu(layer.prediction(representation))
            errors.append(torch.cat((F.relu(predicted - seen), F.relu(seen - predicted)), 1))
            if layer.upwards is not None:
                seen = F.max_pool2d(F.relu(layer.upwards(errors[-1])), 2)
        return errors

    def unroll(self, clip: Tensor, steps: int) -> tuple[list[Tensor], list[list[Tensor]]]:
        """Predictions of all frames from the first on, and all layers' errors.

        Where the clip (B, T, C, H, W) ends, the prediction made a step ago is taken for what is there.
        """
        state, foreseen, errors = self.begin(clip[:, 0]), [], []
        for t in range(steps):
            r, c, frame = self.foresee(state)
            foreseen.append(frame)
            error = self.notice(clip[:, t] if t < clip.shape[1] else foreseen[t - 1], frame, r)
            errors.append(error)
            state = State(r, c, error)
        return foreseen, errors

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        foreseen, _ = self.unroll(context, self.shape.context_frames + self.shape.horizon_frames)
        return torch.stack(foreseen[self.shape.context_frames :], 1)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """The mean of the lowest layer's errors (half the absolute error) of all frames but the first, each foreseen by one."""
        clip = torch.cat((context, target), 1)
        _, errors = self.unroll(clip, clip.shape[1])
        return torch.stack([error[0] for error in errors[1:]]).mean()

    def counted_by_benchmark(self, context: Tensor) -> object:
        """The context only, and all that is noticed in it."""
        return self.unroll(context, context.shape[1])
