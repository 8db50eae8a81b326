"""PredNet (Lotter et al., 2017): each layer predicts the input of the layer below and passes only its error upward."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape


def zero_bias_conv(in_channels: int, out_channels: int) -> nn.Conv2d:
    """Build a same-padded 3 × 3 convolution whose bias starts at zero."""
    layer = nn.Conv2d(in_channels, out_channels, 3, padding=1)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return x / 5 + 1/2, clipped to [0, 1], as Keras does."""
    return (0.2 * x + 0.5).clamp(0, 1)


class PredNetLayer(nn.Module):
    """A representation R (a ConvLSTM), a prediction of its own input, and an error that the layer above reads."""

    def __init__(self, dim: int, above: int) -> None:
        super().__init__()
        self.dim = dim
        # The gates read R and the error (2 · dim) of the last step, and the representation above.
        self.gates = zero_bias_conv(3 * dim + above, 4 * dim)
        self.prediction = zero_bias_conv(dim, dim)
        self.upwards = zero_bias_conv(2 * dim, above) if above else None

    def represent(self, seen: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Map what the gates read (B, ·, H', W') and the cell c to the next R and c."""
        i, f, g, o = self.gates(seen).chunk(4, 1)
        c = hard_sigmoid(f) * c + hard_sigmoid(i) * torch.tanh(g)
        return hard_sigmoid(o) * torch.tanh(c), c


LayerState = tuple[Tensor, Tensor, Tensor]
"""Representation R, cell and error of one layer."""


class PredNet(Baseline):
    """Layers of 1, 32, 64, 128 and 256 channels, each at half the sides of the one below."""

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        dims = [shape.channels, *(self.wide(32) * 2**i for i in range(self.deep(4)))]
        self.layers = nn.ModuleList(PredNetLayer(*pair) for pair in zip(dims, [*dims[1:], 0], strict=True))

    @property
    def stack(self) -> list[PredNetLayer]:
        """Layers, lowest first, with their type."""
        return [layer for layer in self.layers if isinstance(layer, PredNetLayer)]

    def unroll(self, clip: Tensor, steps: int) -> tuple[list[Tensor], list[list[LayerState]]]:
        """Return the predictions of `steps` frames from the first on, and the layers' states after each step.

        After the end of the clip (B, T, C, H, W), the last prediction replaces the true frame.
        """
        state: list[LayerState] = []
        for i, layer in enumerate(self.stack):
            zero = clip.new_zeros((len(clip), layer.dim, clip.shape[3] // 2**i, clip.shape[4] // 2**i))
            state.append((zero, zero, torch.cat((zero, zero), 1)))
        frames: list[Tensor] = []
        states: list[list[LayerState]] = []
        for t in range(steps):
            # From the top down, every layer's next R and cell.
            updated: list[tuple[Tensor, Tensor]] = []
            above: list[Tensor] = []
            for layer, (r, c, error) in zip(reversed(self.stack), reversed(state), strict=True):
                enlarged = [F.interpolate(x, scale_factor=2) for x in above]
                r, c = layer.represent(torch.cat((r, error, *enlarged), 1), c)
                above = [r]
                updated.insert(0, (r, c))
            predicted = F.relu(self.stack[0].prediction(updated[0][0])).clamp(max=1)
            seen = clip[:, t] if t < clip.shape[1] else frames[-1]
            frames.append(predicted)
            # From the bottom up, every layer's error.
            state = []
            for layer, (r, c) in zip(self.stack, updated, strict=True):
                predicted = F.relu(layer.prediction(r)) if state else predicted
                error = torch.cat((F.relu(predicted - seen), F.relu(seen - predicted)), 1)
                state.append((r, c, error))
                if layer.upwards is not None:
                    seen = F.max_pool2d(F.relu(layer.upwards(error)), 2)
            states.append(state)
        return frames, states

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        predicted, _ = self.unroll(context, self.shape.context_frames + self.shape.horizon_frames)
        return torch.stack(predicted[self.shape.context_frames :], 1)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the mean error of the lowest layer (half the absolute error) over all frames but the first."""
        clip = torch.cat((context, target), 1)
        _, states = self.unroll(clip, clip.shape[1])
        return torch.stack([state[0][2] for state in states[1:]]).mean()

    def counted_by_benchmark(self, context: Tensor) -> object:
        """Run the context only, with the errors of all layers."""
        return self.unroll(context, context.shape[1])
