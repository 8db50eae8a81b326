"""PhyDNet (Le Guen and Thome, 2020): a cell of learnt partial differential equations beside ConvLSTMs, on shared codes."""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape

ORDER = 7
"""Side of the filters; filter (i, j) should compute the derivative of order i and j, both below this."""


def block(in_channels: int, out_channels: int, stride: int, *, up: bool = False) -> nn.Sequential:
    """Build a convolution that divides the sides by `stride`, or multiplies them if `up`; GroupNorm; a leaky ReLU."""
    conv = (
        nn.ConvTranspose2d(in_channels, out_channels, 3, stride, 1, output_padding=stride - 1)
        if up
        else nn.Conv2d(in_channels, out_channels, 3, stride, 1)
    )
    return nn.Sequential(conv, nn.GroupNorm(math.gcd(16, out_channels), out_channels), nn.LeakyReLU(0.2))


class PhyCell(nn.Module):
    """Predict with a learnt differential equation, then correct with the frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.derivatives = nn.Conv2d(channels, ORDER**2, ORDER, padding=ORDER // 2)
        self.norm = nn.GroupNorm(7, ORDER**2)
        self.combine = nn.Conv2d(ORDER**2, channels, 1)
        self.gate = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Map the input and the state, both (B, C, H', W'), to the next state."""
        gain = torch.sigmoid(self.gate(torch.cat((x, h), 1)))
        predicted = h + self.combine(self.norm(self.derivatives(h)))
        return predicted + gain * (x - predicted)


class ResidualLSTMCell(nn.Module):
    """ConvLSTM layer for what the equations do not explain."""

    def __init__(self, in_channels: int, hidden_dim: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(in_channels + hidden_dim, 4 * hidden_dim, 3, padding=1)

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """Map the input and the states h, c, all (B, ·, H', W'), to the next h and c."""
        i, f, o, g = self.gates(torch.cat((x, h), 1)).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


PhyDNetState = tuple[Tensor, list[tuple[Tensor, Tensor]]]
"""State of the physical cell, and h and c of each ConvLSTM."""


class PhyDNet(Baseline):
    """Codes of 64 channels at a fraction of the frame's sides; ConvLSTMs of 128, 128 and 64 channels."""

    def __init__(
        self,
        shape: ClipShape,
        *,
        width: float = 1.0,
        depth: float = 1.0,
        patch_size: int = 4,
        sampling_epochs: float = 80,
    ) -> None:
        """Build for codes that are smaller by `patch_size`, 2 or 4. `sampling_epochs` of the data set have 50,000 steps."""
        super().__init__(shape, width=width, depth=depth)
        self.sampling_epochs = sampling_epochs
        stride = patch_size // 2
        self.channels = d = self.wide(64)
        half, layers = d // 2, self.deep(3)
        self.physical = PhyCell(d)
        self.residual_dims = dims = [2 * d] * (layers - 1) + [d]
        self.residual = nn.ModuleList(ResidualLSTMCell(*pair) for pair in pairwise([d, *dims]))
        self.encoder = nn.Sequential(block(shape.channels, half, 2), block(half, half, 1), block(half, d, stride))
        self.encoder_physical, self.encoder_residual = (nn.Sequential(block(d, d, 1), block(d, d, 1)) for _ in range(2))
        self.decoder_physical, self.decoder_residual = (
            nn.Sequential(*(block(d, d, 1, up=True) for _ in range(2))) for _ in range(2)
        )
        readout = nn.ConvTranspose2d(half, shape.channels, 3, stride, 1, output_padding=stride - 1)
        self.decoder = nn.Sequential(block(d, half, 2, up=True), block(half, half, 1, up=True), readout)

    def begin(self, code: Tensor) -> PhyDNetState:
        """Return zeros for a code (B, C, H', W')."""
        states = [code.new_zeros((len(code), dim, *code.shape[2:])) for dim in self.residual_dims]
        return torch.zeros_like(code), [(zero, zero) for zero in states]

    def advance(self, physical: Tensor, residual: Tensor, state: PhyDNetState) -> tuple[Tensor, Tensor, PhyDNetState]:
        """Map the codes (B, C, H', W') of a frame and the state to those of the next frame."""
        physical = self.physical(physical, state[0])
        x, layers = residual, []
        for cell, (h, c) in zip(self.residual, state[1], strict=True):
            x, c = cell(x, h, c)
            layers.append((x, c))
        return physical, x, (physical, layers)

    def decode(self, physical: Tensor, residual: Tensor) -> Tensor:
        """Map codes (B, C, H', W') to a frame (B, C, H, W)."""
        return torch.sigmoid(self.decoder(self.decoder_physical(physical) + self.decoder_residual(residual)))

    def step(self, frame: Tensor, state: PhyDNetState | None) -> tuple[Tensor, PhyDNetState]:
        """Map a frame (B, C, H, W) and the state (None at first) to the predicted next frame and the next state."""
        code = self.encoder(frame)
        state = self.begin(code) if state is None else state
        physical, residual, state = self.advance(self.encoder_physical(code), self.encoder_residual(code), state)
        return self.decode(physical, residual), state

    def unroll(self, clip: Tensor, given: int) -> Tensor:
        """Predict every next frame: the first `given` from frames of the clip (B, T, C, H, W), the others from predictions."""
        state: PhyDNetState | None = None
        predicted: list[Tensor] = []
        for t in range(self.shape.context_frames + self.shape.horizon_frames - 1):
            prediction, state = self.step(clip[:, t] if t < given else predicted[-1], state)
            predicted.append(prediction)
        return torch.stack(predicted, 1)

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        return self.unroll(context, self.shape.context_frames)[:, -self.shape.horizon_frames :]

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the mean squared errors of all next frames, summed over time, plus the moment loss of the filters.

        Each step draws whether the model reads all true frames or only those of the context. The probability of all true
        frames falls by 0.003 per benchmark epoch.
        """
        # `sampling_steps` stands for the 50,000 steps of the benchmark's scheduled sampling.
        epoch = math.floor(self.sampling_epochs * step.index / step.sampling_steps)
        forced = float(torch.rand((), generator=step.generator)) < 1 - 0.003 * epoch
        clip = torch.cat((context, target), 1)
        predicted = self.unroll(clip, clip.shape[1] - 1 if forced else context.shape[1]).to(clip.dtype)
        errors = ((predicted - clip[:, 1:]) ** 2).mean((0, 2, 3, 4))
        return errors.sum() + self.moment_loss()

    def moment_loss(self) -> Tensor:
        """Return the distance of the filters' moments from those of derivatives: one moment of 1, all others 0."""
        weight = self.physical.derivatives.weight
        filters = weight.double()
        matrix = moment_matrix().to(filters.device)
        moments = matrix @ filters @ matrix.T
        wanted = torch.eye(ORDER**2, dtype=torch.float64, device=filters.device).view(-1, 1, ORDER, ORDER)
        return ((moments - wanted) ** 2).mean((0, 2, 3)).sum().to(weight.dtype)


def moment_matrix() -> Tensor:
    """Return M (7, 7), float64, with M[i, j] = (j - 3)^i / i!: the moments of a filter k are M k Mᵀ."""
    positions = torch.arange(ORDER, dtype=torch.float64) - ORDER // 2
    return torch.stack([positions**i / math.factorial(i) for i in range(ORDER)])
