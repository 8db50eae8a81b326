"""PredRNN.V2 (Wang et al., 2021): PredRNN with a decoupling loss and reverse scheduled sampling."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.model.baselines.predrnn import PredRNN, PredRNNState
from stlight.model.baselines.recurrent import gate_conv
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape

DECOUPLING = 0.1
"""Weight of the decoupling loss."""


class PredRNNV2(PredRNN):
    """PredRNN whose two memories are pushed apart, trained from its own predictions early on."""

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.adapter = gate_conv(self.hidden_dim, self.hidden_dim, 1)

    def truth_probabilities(self, step: TrainingStep) -> tuple[float, float]:
        """Return the probabilities of reverse scheduled sampling: within the context they rise, after it they fall."""
        half, decay = step.sampling_steps / 2, step.sampling_steps / 10
        past = step.index - half
        if past < 0:
            return 0.5, 0.5
        if past >= half:
            return 1.0, 0.0
        return 1 - 0.5 * math.exp(-past / decay), 0.5 * (1 - past / half)

    def error(self, predicted: Tensor, target: Tensor, states: list[PredRNNState]) -> Tensor:
        """Return the mean squared error plus the similarity (cosine per channel) of the terms added to the two memories."""
        cosines = [self._cosine(c, m) for state in states for c, m in state.added]
        return F.mse_loss(predicted, target) + DECOUPLING * torch.stack(cosines).mean()

    def _cosine(self, added_c: Tensor, added_m: Tensor) -> Tensor:
        c, m = self.adapter(added_c).flatten(2), self.adapter(added_m).flatten(2)
        return torch.cosine_similarity(c, m, dim=2).abs().mean()

    def counted_by_benchmark(self, context: Tensor) -> object:
        """Run the prediction and the decoupling loss's adapter, which a prediction does not need."""
        clip = torch.cat((context, context.new_zeros((len(context), self.shape.horizon_frames, *context.shape[2:]))), 1)
        given = torch.ones((clip.shape[1] - 1, len(clip)), dtype=torch.bool)
        predicted, states = self.unroll(clip, given)
        return predicted, [[self.adapter(added) for both in state.added for added in both] for state in states]
