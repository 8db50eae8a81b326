"""What all baselines have in common."""

from typing import ClassVar

from torch import Tensor

from stlight.config import ConfigError, check_frame_size
from stlight.model.forecaster import Forecaster
from stlight.registry.dataset_specs import ClipShape


class Baseline(Forecaster):
    """A model of another paper, at its published size or reduced in width and depth.

    A subclass builds its layers from `self.shape`, `self.wide` and `self.deep`, and predicts in `predict`.
    """

    name: ClassVar[str]
    """As Table 2 has it."""
    frame_multiple: ClassVar[int] = 4
    """Both sides of a frame must be divisible by it."""

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        """`width` and `depth` are shares of the published size, in (0, 1]. Raises `ConfigError`, naming what is wrong."""
        for argument, share in (("width", width), ("depth", depth)):
            if not 0 < share <= 1:
                raise ConfigError(f"baseline_{argument} must be above 0 and at most 1, got {share!r}")
        check_frame_size(shape.height, shape.width, self.frame_multiple, f"what {self.name} needs,")
        super().__init__()
        self.shape = shape
        self._width, self._depth = width, depth

    def wide(self, published: int, multiple: int = 4) -> int:
        """A number of channels at this model's size: a multiple of what its layers need, and no less than that."""
        return max(1, round(published * self._width / multiple)) * multiple

    def deep(self, published: int, least: int = 1) -> int:
        """A number of layers at this model's size."""
        return max(least, round(published * self._depth))

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Context frames (B, T, C, H, W) → predicted frames (B, T', C, H, W). Raises `ValueError` for another shape."""
        shape = self.shape
        expected = (shape.context_frames, shape.channels, shape.height, shape.width)
        if clip_BTCHW.ndim != 5 or tuple(clip_BTCHW.shape[1:]) != expected:
            raise ValueError(f"clip must be (B, {', '.join(map(str, expected))}), got {tuple(clip_BTCHW.shape)}")
        return self.predict(clip_BTCHW)

    def predict(self, context: Tensor) -> Tensor:
        """(B, T, C, H, W) → (B, T', C, H, W)."""
        raise NotImplementedError

    def counted_by_benchmark(self, context: Tensor) -> object:
        """What the benchmark's count of FLOPs runs: the prediction, where a model does not say otherwise."""
        return self(context)
