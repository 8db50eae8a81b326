"""The least time of a training step of STLight on a device whose rates are known."""

from typing import NamedTuple

# Activations that a mixer must read or write in a step at least, if each of its halves is one pass: forward x → y, y → h,
# h → z (6); backward (gz, h) → gh (3), gh → gy and the product's weight gradient from gh and y (4), (gy, x) → gx (3).
_PASSES = 16
_FRAMES = 10
_KERNELS = (3, 7)


class Rates(NamedTuple):
    """What a device does a second: bytes copied (read and written), multiply-adds of matrix products, and of other work."""

    copy: float
    product: float
    plain: float


class Shape(NamedTuple):
    """A training step on Moving MNIST with the defaults of the other fields; frames have `side` pixels a side."""

    clips: int
    hidden_dim: int
    depth: int
    patch_size: int
    side: int

    @property
    def patches(self) -> int:
        """Patches of a batch."""
        return self.clips * (self.side // self.patch_size) ** 2

    @property
    def product_multiply_adds(self) -> int:
        """Multiply-adds of all that is a matrix product, forward: encoder, pointwise convolutions, decoder."""
        ends = self.hidden_dim * _FRAMES * self.patch_size**2 + self.hidden_dim * _FRAMES
        return self.patches * (ends + self.depth * self.hidden_dim**2)

    @property
    def depthwise_multiply_adds(self) -> int:
        """Multiply-adds of the depthwise convolutions, forward."""
        return self.patches * self.depth * self.hidden_dim * sum(size**2 for size in _KERNELS)

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of a step; the backward pass has twice those of the forward pass."""
        return 3 * (self.product_multiply_adds + self.depthwise_multiply_adds)


def least_seconds(shape: Shape, rates: Rates, bytes_per_value: int) -> dict[str, float]:
    """Return the seconds that memory, matrix products and depthwise convolutions take at least, and the roofline of them.

    Memory traffic can overlap arithmetic; products and convolutions share the same processors.
    """
    memory = shape.depth * _PASSES * shape.patches * shape.hidden_dim * bytes_per_value / rates.copy
    product = 3 * shape.product_multiply_adds / rates.product
    depthwise = 3 * shape.depthwise_multiply_adds / rates.plain
    parts = {"memory": memory, "products": product, "depthwise": depthwise, "roofline": max(memory, product + depthwise)}
    return {f"least_{name}_seconds": value for name, value in parts.items()}
