"""Base class of the recurrent models that predict one frame at a time, and the helpers that their cells share."""

from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.model.baselines import Baseline
from stlight.model.forecaster import TrainingStep
from stlight.registry.dataset_specs import ClipShape


def gate_conv(in_channels: int, out_channels: int, kernel_size: int = 5) -> nn.Conv2d:
    """Build a same-padded convolution without bias, as the gates of these models use."""
    return nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)


class Recurrent(Baseline):
    """A model that predicts the next frame from one frame and a state. Patches of pixels become channels first.

    Training predicts every next frame, including those of the context, with scheduled sampling (Bengio et al., 2015): after
    the context the model reads the true frame with a probability that falls from 1 to 0 over `TrainingStep.sampling_steps`,
    and its own prediction otherwise.
    """

    published_dim: ClassVar[int] = 128

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0, patch_size: int = 4) -> None:
        super().__init__(shape, width=width, depth=depth)
        self.patch_size = patch_size
        self.hidden_dim = self.wide(self.published_dim)
        self.patch_channels = shape.channels * patch_size**2
        self.frame_size = shape.height // patch_size, shape.width // patch_size

    def layer_inputs(self, depth: int) -> list[int]:
        """Return the number of input channels of each layer in a stack of `depth` layers."""
        return [self.patch_channels] + [self.hidden_dim] * (depth - 1)

    def zeros(self, frame: Tensor) -> Tensor:
        """Return a zero state (B, hidden_dim, H', W') for a frame of patches (B, C', H', W')."""
        return frame.new_zeros((len(frame), self.hidden_dim, *frame.shape[2:]))

    def begin(self, frame: Tensor) -> Any:
        """Return the state before the first frame of patches (B, C', H', W')."""
        raise NotImplementedError

    def step(self, frame: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Map a frame of patches (B, C', H', W') and a state to the predicted next frame and the next state."""
        raise NotImplementedError

    def unroll(self, clip: Tensor, given: Tensor) -> tuple[Tensor, list[Any]]:
        """Return the predictions (B, steps, C, H, W) for a clip (B, T, C, H, W), and the state after each step.

        `given` (steps, B), on the CPU, is True where a step reads the clip's frame, False where its own last prediction.
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
        """Return the probabilities of reading the true frame within the context (from its second frame) and after it."""
        return 1.0, max(0.0, 1 - (step.index + 1) / step.sampling_steps)

    def training_loss(self, context: Tensor, target: Tensor, step: TrainingStep) -> Tensor:
        """Return the error of all predicted next frames under scheduled sampling."""
        within, after = self.truth_probabilities(step)
        probabilities = [1.0] + [within] * (context.shape[1] - 1) + [after] * (target.shape[1] - 1)
        drawn = torch.rand((len(probabilities), len(context)), generator=step.generator)
        clip = torch.cat((context, target), 1)
        predicted, states = self.unroll(clip, drawn < torch.tensor(probabilities)[:, None])
        return self.error(predicted.to(clip.dtype), clip[:, 1:], states)

    def error(self, predicted: Tensor, target: Tensor, states: list[Any]) -> Tensor:
        """Return the loss of predicted next frames (B, T + T' - 1, C, H, W)."""
        return F.mse_loss(predicted, target)
