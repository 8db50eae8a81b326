"""Depthwise convolution with the paper's dilation, computed the way that is fast on the device in hand.

On a CPU, PyTorch sends a dilated depthwise convolution down its slow reference path. Cutting the frame into dilation²
interleaved grids turns it into a plain one with the same weights: every tap of the dilated kernel stays on its own grid.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from stlight.kernels.plain import only_plain


class DepthwiseConv2d(nn.Conv2d):
    """Same-padded depthwise convolution, (B, C, H, W) → (B, C, H, W); weights as in `nn.Conv2d(groups=channels)`.

    The padding is given as an integer: fvcore counts convolutions with `padding="same"` as free.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int = 1) -> None:
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(channels, channels, kernel_size, padding=padding, dilation=dilation, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) → (B, C, H, W), the same result whichever way it is computed."""
        if self.dilation[0] == 1 or x.device.type != "cpu" or only_plain():
            return super().forward(x)
        return self._by_interleaved_grids(x)

    def _by_interleaved_grids(self, x_BCHW: Tensor) -> Tensor:
        r = self.dilation[0]
        batch, channels, height, width = x_BCHW.shape
        x_BHWC = F.pad(x_BCHW, (0, -width % r, 0, -height % r)).permute(0, 2, 3, 1)
        rows, columns = x_BHWC.shape[1] // r, x_BHWC.shape[2] // r
        grids = x_BHWC.reshape(batch, rows, r, columns, r, channels).permute(0, 2, 4, 5, 1, 3)
        grids = F.conv2d(
            grids.reshape(batch * r * r, channels, rows, columns),
            self.weight,
            self.bias,
            padding=self.kernel_size[0] // 2,
            groups=channels,
        )
        grids = grids.view(batch, r, r, channels, rows, columns).permute(0, 3, 4, 1, 5, 2)
        return grids.reshape(batch, channels, rows * r, columns * r)[:, :, :height, :width]
