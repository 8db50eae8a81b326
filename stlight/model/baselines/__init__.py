"""The models that Tables 1 and 2 compare with STLight-L, after their papers and the published configurations."""

from torch import Tensor

from stlight.model.forecaster import Forecaster
from stlight.registry.dataset_specs import ClipShape


class Baseline(Forecaster):
    """A model of another paper, at its published size or scaled down in width and depth.

    A subclass builds its layers with `self.wide` and `self.deep` and implements `predict`.
    """

    def __init__(self, shape: ClipShape, *, width: float = 1.0, depth: float = 1.0) -> None:
        """Build for clips of `shape`; `width` and `depth` are fractions of the published size, in (0, 1]."""
        super().__init__()
        self.shape = shape
        self._width, self._depth = width, depth

    def wide(self, published: int, multiple: int = 4) -> int:
        """Scale a published number of channels, rounded to a multiple of `multiple` and at least `multiple`."""
        return max(1, round(published * self._width / multiple)) * multiple

    def deep(self, published: int, least: int = 1) -> int:
        """Scale a published number of layers; at least `least`."""
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
        """Run what the benchmark's FLOP counter runs: the prediction, unless a subclass overrides it."""
        return self.predict(context)
