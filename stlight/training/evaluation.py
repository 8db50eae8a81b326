"""Score predictions on held-out clips."""

from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from stlight.data.clips import Clips, Split
from stlight.metrics import all_metrics

# Number of clips scored at once. Metrics are means over clips, so this changes no result beyond rounding.
_CLIPS_AT_ONCE = 16

Predictor = Callable[[Tensor], Tensor]


@torch.no_grad()
def evaluate(
    predict: Predictor, dataset: Clips, split: Split, num_clips: int, context_frames: int, *, with_lpips: bool = False
) -> dict[str, float]:
    """Return all metrics of `predict`, (B, T, C, H, W) → (B, T', C, H, W), over the first `num_clips` clips of a split."""
    totals: defaultdict[str, float] = defaultdict(float)
    for clip in dataset.batches(split, torch.arange(num_clips).split(_CLIPS_AT_ONCE)):
        context, target = clip[:, :context_frames], clip[:, context_frames:]
        prediction = predict(context).float()
        scores = all_metrics(prediction, target, with_lpips=with_lpips)
        for name, value in scores.items():
            totals[name] += value * len(clip)
    return {name: total / num_clips for name, total in totals.items()}


def trivial_predictors(horizon_frames: int) -> dict[str, Predictor]:
    """Return predictors that every model should beat: the last frame repeated, and all zeros."""

    def repeat_last_frame(context: Tensor) -> Tensor:
        return context[:, -1:].expand(-1, horizon_frames, -1, -1, -1)

    def all_zeros(context: Tensor) -> Tensor:
        return torch.zeros_like(repeat_last_frame(context))

    return {"repeat_last_frame": repeat_last_frame, "all_zeros": all_zeros}
