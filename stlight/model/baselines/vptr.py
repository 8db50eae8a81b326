"""VPTR (Ye & Bilodeau, 2022): train an autoencoder of frames, then a transformer that predicts the frames' codes."""

from collections.abc import Iterator
from contextlib import contextmanager
from math import gcd

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.baselines.vptr_autoencoder import Autoencoder
from stlight.model.baselines.vptr_blocks import Block, DecoderBlock, Norm
from stlight.model.forecaster import Phase, TrainingStep
from stlight.registry.dataset_specs import ClipShape

PRETRAINING = 0.4
"""Share of the epochs that train the autoencoder. The authors' are 93 epochs, before 100 (FAR) or 150 (NAR)."""


class Transformer(nn.Module):
    """Base of both transformers: encodings of time, and codes (B, T, D, H', W') with channels last inside."""

    times: Tensor

    def __init__(self, dim: int, num_frames: int) -> None:
        super().__init__()
        self.register_buffer("times", time_encodings(num_frames, dim)[:, None, None], persistent=False)
        self.norm = nn.LayerNorm(dim)

    def draw_weights(self) -> None:
        """Draw all weights but vectors as the authors do, those of normalization over frames included."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, codes: Tensor) -> Tensor:
        """Map codes (B, T, D, H', W') to predicted codes (B, ·, D, H', W'), none negative as those of the autoencoder."""
        return F.relu(self.norm(self.transform(codes.permute(0, 1, 3, 4, 2)))).permute(0, 1, 4, 2, 3)

    def transform(self, x: Tensor) -> Tensor:
        """(B, T, H', W', D) → (B, ·, H', W', D)."""
        raise NotImplementedError


class AutoregressiveTransformer(Transformer):
    """Predict the code after each of the given ones."""

    def __init__(self, dim: int, num_frames: int, size: tuple[int, int], depth: int) -> None:
        super().__init__(dim, num_frames)
        # Statistics of a batch would let frames depend on later ones.
        norm = frame_norm(size)
        self.blocks = nn.ModuleList(Block(dim, window_of(size), norm, causal=True) for _ in range(depth))
        self.draw_weights()

    def transform(self, x: Tensor) -> Tensor:
        """(B, T, H', W', D) → the next frame of each (B, T, H', W', D)."""
        for block in self.blocks:
            x = block(x, self.times[: x.shape[1]])
        return x


class ParallelTransformer(Transformer):
    """Encode the context, then decode learnt queries to the codes of all frames of the horizon."""

    def __init__(self, dim: int, shape: ClipShape, size: tuple[int, int], depth: tuple[int, int]) -> None:
        super().__init__(dim, shape.context_frames + shape.horizon_frames)
        window = window_of(size)
        self.encoder = nn.ModuleList(Block(dim, window, nn.BatchNorm2d) for _ in range(depth[0]))
        self.encoder_norm = nn.LayerNorm(dim)
        self.decoder = nn.ModuleList(DecoderBlock(dim, window, frame_norm(size)) for _ in range(depth[1]))
        self.queries = nn.Parameter(torch.zeros(shape.horizon_frames, *size, dim))
        # For the contrastive loss only.
        self.project = nn.Sequential(nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim))
        self.draw_weights()

    def transform(self, x: Tensor) -> Tensor:
        """(B, T, H', W', D) → (B, T', H', W', D)."""
        past_times, times = self.times.split((x.shape[1], len(self.queries)))
        for block in self.encoder:
            x = block(x, past_times)
        past = self.encoder_norm(x)
        x = torch.zeros_like(self.queries).expand(len(past), -1, -1, -1, -1)
        for block in self.decoder:
            x = block(x, times, self.queries, past, past_times)
        return x


class VPTR(Baseline):
    """Codes of 528 channels from an autoencoder with 9 residual blocks. A subclass has the transformer that predicts codes.

    The first epochs train the autoencoder, all others the transformer; the decoder's gradients then only pass through.
    """

    transformer: Transformer

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.code_dim, self.code_size = self.wide(528, multiple=8), (shape.height // 8, shape.width // 8)
        self.autoencoder = Autoencoder(shape.channels, self.wide(64), self.code_dim, self.deep(9))

    def phases(self, num_epochs: int) -> tuple[Phase, ...]:
        """Return the autoencoder's epochs, then the transformer's."""
        first = max(1, round(PRETRAINING * num_epochs))
        return Phase(first, self.autoencoder), Phase(num_epochs - first, self.transformer)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the autoencoder's error in the first phase, the prediction's in the second."""
        # In the second phase, statistics of BatchNorm stay as they are, too.
        self.autoencoder.train(self.training and step.phase == 0)
        if step.phase == 0:
            clip = torch.cat((context, target), 1)
            return frame_error(self.autoencoder.decode(self.autoencoder.encode(clip)), clip)
        with seeded(step.generator, context.device):
            return self.prediction_error(context, target)

    def prediction_error(self, context: Tensor, target: Tensor) -> Tensor:
        """Return what the second phase minimizes."""
        raise NotImplementedError

    def codes(self, clip: Tensor) -> Tensor:
        """Map frames (B, T, C, H, W) to codes (B, T, D, H / 8, W / 8), through which no gradient flows."""
        with torch.no_grad():
            return self.autoencoder.encode(clip)


class VPTRFAR(VPTR):
    """Fully autoregressive: 12 causal blocks predict the next frame of each, and read their own predictions."""

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        num_frames = shape.context_frames + shape.horizon_frames
        self.transformer = AutoregressiveTransformer(self.code_dim, num_frames, self.code_size, self.deep(12))

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        codes = self.autoencoder.encode(context)
        code = self.transformer(codes)[:, -1:]
        frames = [self.autoencoder.decode(code)]
        while len(frames) < self.shape.horizon_frames:
            # As in the authors' code, the first prediction is read as a code; later ones are decoded and coded again.
            codes = torch.cat((codes, code if len(frames) == 1 else self.autoencoder.encode(frames[-1])), 1)
            code = self.transformer(codes)[:, -1:]
            frames.append(self.autoencoder.decode(code))
        return torch.cat(frames, 1)

    def prediction_error(self, context: Tensor, target: Tensor) -> Tensor:
        """Return the error of every next frame, all predicted from true frames."""
        clip = torch.cat((context, target), 1)
        return frame_error(self.autoencoder.decode(self.transformer(self.codes(clip[:, :-1]))), clip[:, 1:])


class VPTRNAR(VPTR):
    """Non-autoregressive: 4 blocks encode the context, 8 decode a learnt query for each predicted frame."""

    transformer: ParallelTransformer

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.transformer = ParallelTransformer(self.code_dim, shape, self.code_size, (self.deep(4), self.deep(8)))

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        return self.autoencoder.decode(self.transformer(self.autoencoder.encode(context)))

    def prediction_error(self, context: Tensor, target: Tensor) -> Tensor:
        """Return the error of the frames, plus a tenth of the contrastive loss of their codes."""
        predicted = self.transformer(self.codes(context))
        true = self.codes(target)
        ours, theirs = (self.transformer.project(code.permute(0, 1, 3, 4, 2)) for code in (predicted, true))
        return frame_error(self.autoencoder.decode(predicted), target) + 0.1 * contrastive_loss(ours, theirs)


def window_of(size: tuple[int, int]) -> tuple[int, int]:
    """Return the sides of the windows: 4, or the largest smaller ones that divide the sides of a code."""
    return gcd(4, size[0]), gcd(4, size[1])


def frame_norm(size: tuple[int, int]) -> Norm:
    """Return a LayerNorm over all channels and positions of a frame, each of which has its own scale."""
    return lambda channels: nn.LayerNorm((channels, *size))


def time_encodings(num_frames: int, dim: int) -> Tensor:
    """Return the sines and cosines (num_frames, dim) of Vaswani et al. (2017), with frames counted from 1."""
    frequencies = 10_000 ** -(torch.arange(0, dim, 2) / dim)
    angles = torch.arange(1, num_frames + 1)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), -1).flatten(1)


def frame_error(predicted: Tensor, target: Tensor) -> Tensor:
    """Return the mean squared error plus the gradient difference loss (Mathieu et al., 2016) of frames (B, T, C, H, W)."""
    predicted = predicted.to(target.dtype)
    error = F.mse_loss(predicted, target)
    for dim in (-2, -1):
        error = error + F.l1_loss(predicted.diff(dim=dim).abs(), target.diff(dim=dim).abs())
    return error


def contrastive_loss(predicted: Tensor, true: Tensor) -> Tensor:
    """Return the cross-entropy of finding each position of one frame by its code among all positions of the other frame.

    Codes are (B, T, H', W', D). The loss is the mean of both directions (Andonian et al., 2021); no gradient flows through the
    codes of wrong positions.
    """
    a, b = (F.normalize(code.flatten(0, 1).flatten(1, 2), dim=-1) for code in (true, predicted))
    own = torch.eye(a.shape[1], dtype=torch.bool, device=a.device)
    places = torch.arange(a.shape[1], device=a.device).repeat(len(a))
    losses = []
    for queries, keys in ((a, b), (b, a)):
        scores = torch.where(own, queries @ keys.mT, queries @ keys.detach().mT)
        losses.append(F.cross_entropy(scores.flatten(0, 1), places))
    return (losses[0] + losses[1]) / 2


@contextmanager
def seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seed torch's global generators, from which dropout draws, inside the block, and leave them as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
        yield
