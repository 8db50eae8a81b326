"""PredRNN.V2 (Wang et al., 2021): PredRNN whose two memories are kept apart, trained from its own predictions early on."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stlight.model.baselines.predrnn import PredRNN, State
from stlight.model.baselines.recurrent import conv
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape


class PredRNNV2(PredRNN):
    """PredRNN with a decoupling loss and reverse scheduled sampling."""

    name = "PredRNN.V2"
    decoupling = 0.1
    """Weight of the decoupling loss."""

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.adapter = conv(self.hidden_dim, self.hidden_dim, 1)

    def truth_probabilities(self, step: TrainingStep) -> tuple[float, float]:
        """Reverse scheduled sampling: half of the frames at first; from halfway on ever more of the context, less after it."""
        half, decay = step.sampling_steps / 2, step.sampling_steps / 10
        past = step.index - half
        if past < 0:
            return 0.5, 0.5
        if past >= half:
            return 1.0, 0.0
        return 1 - 0.5 * math.exp(-past / decay), 0.5 * (1 - past / half)

    def error(self, predicted: Tensor, target: Tensor, states: list[State]) -> Tensor:
        """The squared error, and how much alike is what the two memories are added to: the cosine in each channel."""
        cosines = [self._cosine(c, m) for state in states for c, m in state.added]
        return F.mse_loss(predicted, target) + self.decoupling * torch.stack(cosines).mean()

    def _cosine(self, added_c: Tensor, added_m: Tensor) -> Tensor:
        c, m = self.adapter(added_c).flatten(2), self.adapter(added_m).flatten(2)
        return torch.cosine_similarity(c, m, dim=2).abs().mean()

    def counted_by_benchmark(self, context: Tensor) -> object:
        """The decoupling loss's adapter too, which a prediction does without."""
        clip = torch.cat((context, context.new_zeros((len(context), self.shape.horizon_frames, *context.shape[2:]))), 1)
        given = torch.ones((clip.shape[1] - 1, len(clip)), dtype=torch.bool)
        predicted, states = self.unroll(clip, given)
        return predicted, [[self.adapter(added) for both in state.added for added in both] for state in states]
