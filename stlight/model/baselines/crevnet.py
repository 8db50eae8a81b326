"""CrevNet (Yu et al., 2020): a reversible autoencoder of three frames at a time, and a reversible recurrent predictor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape

WINDOW = 3
"""Number of consecutive frames that the model reads, and predicts shifted by one."""
HALVINGS = 3
"""Number of times that the autoencoder moves 2 × 2 pixels into channels."""


def fold(x: Tensor) -> Tensor:
    """Move 2 × 2 pixels into channels: (B, C, T, H, W) → (B, 4 · C, T, H / 2, W / 2), the pixel before the channel."""
    return x.unflatten(4, (-1, 2)).unflatten(3, (-1, 2)).permute(0, 4, 6, 1, 2, 3, 5).flatten(1, 3)


def unfold(x: Tensor) -> Tensor:
    """Invert `fold`: (B, 4 · C, T, H, W) → (B, C, T, 2 · H, 2 · W)."""
    return x.unflatten(1, (2, 2, -1)).permute(0, 3, 4, 5, 1, 6, 2).flatten(5, 6).flatten(3, 4)


class Coupling(nn.Module):
    """Additive coupling with a bottleneck of 3D convolutions (i-RevNet, Jacobsen et al., 2018), which can halve the sides."""

    def __init__(self, in_channels: int, out_channels: int, bottleneck: int, *, first: bool, halve: bool) -> None:
        super().__init__()
        self.halve = halve

        def activated(channels: int, to: int, stride: tuple[int, int, int] = (1, 1, 1)) -> list[nn.Module]:
            conv = nn.Conv3d(channels, to, 3, stride, 1, bias=False)
            return [nn.BatchNorm3d(channels), nn.ReLU(), conv]

        layers = activated(in_channels, bottleneck, (1, 2, 2) if halve else (1, 1, 1))
        layers += activated(bottleneck, bottleneck) + activated(bottleneck, out_channels)
        # The first block of all reads pixels as they are.
        self.bottleneck = nn.Sequential(*layers[2 if first else 0 :])

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Map both halves of the channels, each (B, C, T, H', W'), to y and the changed x, folded if this block halves."""
        change = self.bottleneck(y)
        return (fold(y), fold(x) + change) if self.halve else (y, x + change)

    def inverse(self, y: Tensor, changed: Tensor) -> tuple[Tensor, Tensor]:
        """Return the halves that `forward` maps to these."""
        y = unfold(y) if self.halve else y
        x = changed - self.bottleneck(y)
        return unfold(x) if self.halve else x, y


class PredictiveModule(nn.Module):
    """ST-LSTM layer with 3D convolutions whose output replaces one half of the code, as far as an attention map says."""

    def __init__(self, dim: int, memory_dim: int) -> None:
        super().__init__()
        self.of_cell = nn.Conv3d(3 * dim, 3 * dim, 3, padding=1)
        self.of_memory = nn.Conv3d(2 * dim + memory_dim, 3 * memory_dim, 3, padding=1)
        self.of_output = nn.Conv3d(3 * dim + memory_dim, dim, 3, padding=1)
        self.fuse = nn.Conv3d(dim + memory_dim, dim, 1)
        self.attention = nn.Conv3d(dim, dim, 1)

    def forward(self, x: Tensor, y: Tensor, h: Tensor, c: Tensor, m: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Map both halves of the code, h, c and the shared memory m to the next second half, h, c and m."""
        i, f, g = self.of_cell(torch.cat((x, h, c), 1)).chunk(3, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        i, f, g = self.of_memory(torch.cat((x, m, c), 1)).chunk(3, 1)
        m = torch.sigmoid(f) * m + torch.sigmoid(i) * torch.tanh(g)
        output = torch.sigmoid(self.of_output(torch.cat((x, h, c, m), 1)))
        h = output * torch.tanh(self.fuse(torch.cat((c, m), 1)))
        attention = torch.sigmoid(self.attention(h))
        return (1 - attention) * y + attention * h, h, c, m


Halves = tuple[Tensor, Tensor]
"""A code: two halves of its channels, each (B, 32 · C, WINDOW, H / 8, W / 8)."""
State = tuple[list[tuple[Tensor, Tensor]], Tensor]
"""h and c of each layer, and the shared memory."""


class CrevNet(Baseline):
    """Couplings at a half (4), a quarter (5) and an eighth (3) of the sides; eight predictive modules.

    The couplings keep all values, so the number of channels of a code follows from the frame's. `width` scales only the
    bottlenecks and the shared memory.
    """

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.window = min(WINDOW, shape.context_frames)
        self.couplings = nn.ModuleList()
        channels = half = 2 * shape.channels
        for stage, blocks in enumerate((4, 5, 3)):
            for block in range(self.deep(blocks)):
                half, before = 4**stage * channels, half
                bottleneck = self.wide(half // 2, multiple=1)
                first, halve = not self.couplings, stage > 0 and block == 0
                self.couplings.append(Coupling(before, half, bottleneck, first=first, halve=halve))
        self.dim, self.memory_dim = half, self.wide(half)
        self.predictor = nn.ModuleList(PredictiveModule(half, self.memory_dim) for _ in range(self.deep(8)))

    def encode(self, frames: Tensor) -> Halves:
        """Map consecutive frames (B, window, C, H, W) to their code."""
        x, y = fold(frames.transpose(1, 2)).chunk(2, 1)
        for coupling in self.couplings:
            x, y = coupling(x, y)
        return x, y

    def decode(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the frames (B, window, C, H, W) whose code this is."""
        for coupling in reversed(self.couplings):
            assert isinstance(coupling, Coupling)
            x, y = coupling.inverse(x, y)
        return unfold(torch.cat((x, y), 1)).transpose(1, 2)

    def begin(self, frames: Tensor) -> State:
        """Return zeros."""
        size = self.window, *(side // 2**HALVINGS for side in frames.shape[3:])
        zero = frames.new_zeros((len(frames), self.dim, *size))
        return [(zero, zero) for _ in self.predictor], frames.new_zeros((len(frames), self.memory_dim, *size))

    def step(self, frames: Tensor, state: State) -> tuple[Tensor, State]:
        """Map consecutive frames (B, window, C, H, W) and the state to the predicted frames one later and the next state."""
        (x, y), (layers, m), after = self.encode(frames), state, []
        for module, (h, c) in zip(self.predictor, layers, strict=True):
            y, h, c, m = module(x, y, h, c, m)
            x, y = y, x
            after.append((h, c))
        return self.decode(x, y), (after, m)

    def unroll(self, clip: Tensor) -> Tensor:
        """Predict (B, T + T' - window, window, C, H, W): each window of frames after the first.

        The model reads the frames of the clip (B, given, C, H, W), and its own predictions after its end.
        """
        frames, predicted = clip[:, : self.window], []
        state = self.begin(frames)
        for t in range(1, self.shape.context_frames + self.shape.horizon_frames - self.window + 1):
            prediction, state = self.step(frames, state)
            predicted.append(prediction)
            given = clip[:, t : t + self.window]
            frames = torch.cat((given, prediction[:, given.shape[1] :]), 1)
        return torch.stack(predicted, 1)

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W): the last frame of each window that ends after the context."""
        return self.unroll(context)[:, -self.shape.horizon_frames :, -1]

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the mean squared errors of all windows predicted from true frames, summed over time."""
        clip = torch.cat((context, target), 1)
        predicted = self.unroll(clip).to(clip.dtype)
        # (B, T + T' - window + 1, C, H, W, window) → one window for each prediction.
        windows = clip.unfold(1, self.window, 1)[:, 1:].movedim(-1, 2)
        return F.mse_loss(predicted, windows) * predicted.shape[1]
