"""The three weight initialization schemes of Section D."""

from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from stlight.model.stlight import STLight


def initialize(model: "STLight", scheme: str) -> None:
    """Initialize in place, drawing from torch's global generator.

    `kaiming_uniform` keeps PyTorch's default everywhere; `kaiming_normal` applies Listing 1 to every convolution;
    `hybrid` applies it to all but the patch reassemble layer.
    """
    if scheme == "kaiming_uniform":
        return
    model.patch_encoder.apply(_listing_1)
    model.mixers.apply(_listing_1)
    if scheme == "kaiming_normal":
        model.patch_reassemble.apply(_listing_1)


def _listing_1(module: nn.Module) -> None:
    # By its printed indentation the listing would look for a bias on every module, and fail on a GELU.
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
