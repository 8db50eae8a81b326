"""Recurrent models: frame by frame, first on the context, then on their own predictions."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines.baseline import Baseline
from stlight.model.forecaster import TrainingStep


def conv(in_channels: int, out_channels: int, kernel_size: int) -> nn.Conv2d:
    """Same-padded and without a bias, as these models' gates are."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)


class Recurrent(Baseline):
    """A model that predicts the next frame from one frame and a state, on patches of 4 × 4 pixels as channels.

    It is trained on every next frame, those of the context too. Scheduled sampling (Bengio et al., 2015): after the context it
    is given the true frame with a probability that falls from 1 to 0 over `sampling_steps`, else its own prediction.
    """

    patch_size = 4

    @property
    def patch_channels(self) -> int:
        """Channels of a frame of patches."""
        return self.shape.channels * self.patch_size**2

    def begin(self, frame: Tensor) -> Any:
        """The state before the first frame (B, C', H', W') of patches."""
        raise NotImplementedError

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        """A frame of patches and the state → the next frame as predicted, and the next state."""
        raise NotImplementedError

    def unroll(self, clip: Tensor, given: Tensor) -> tuple[Tensor, list[Any]]:
        """Predict frame after frame, clip (B, T, C, H, W) → (B, steps, C, H, W), and all states.

        given (steps, B), on the CPU: where a step is given the clip's frame; elsewhere it goes on from its own prediction.
        """
        frames = F.pixel_unshuffle(clip, self.patch_size)
        state, states = self.begin(frames[:, 0]), []
        predicted: list[Tensor] = []
        for t, is_given in enumerate(given):
            if is_given.all():
                frame = frames[:, t]
            elif not is_given.any():
                frame = predicted[-1]
            else:
                frame = torch.where(is_given.to(clip.device)[:, None, None, None], frames[:, t], predicted[-1])
            prediction, state = self.step(frame, state)
            predicted.append(prediction)
            states.append(state)
        return F.pixel_shuffle(torch.stack(predicted, 1), self.patch_size), states

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        num_context, horizon = self.shape.context_frames, self.shape.horizon_frames
        given = torch.arange(num_context + horizon - 1, device="cpu").lt(num_context)[:, None].expand(-1, len(context))
        return self.unroll(context, given)[0][:, -horizon:]

    def truth_probabilities(self, step: TrainingStep) -> tuple[float, float]:
        """The probabilities that a step within the context, but for the first, and one after it is given the true frame."""
        return 1.0, max(0.0, 1 - (step.index + 1) / step.sampling_steps)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """The error of all next frames, with scheduled sampling."""
        within, after = self.truth_probabilities(step)
        probabilities = [1.0] + [within] * (context.shape[1] - 1) + [after] * (target.shape[1] - 1)
        drawn = torch.rand((len(probabilities), len(context)), generator=step.generator)
        clip = torch.cat((context, target), 1)
        predicted, states = self.unroll(clip, drawn < torch.tensor(probabilities)[:, None])
        return self.error(predicted.to(clip.dtype), clip[:, 1:], states)

    def error(self, predicted: Tensor, target: Tensor, states: list[Any]) -> Tensor:
        """The loss of next frames (B, T + T' - 1, C, H, W)."""
        return F.mse_loss(predicted, target)
