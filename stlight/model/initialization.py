"""The three weight initialization schemes of Section D."""

from torch import nn


def initialize(patch_encoder: nn.Module, mixers: nn.Module, patch_reassemble: nn.Module, scheme: str) -> None:
    """Initialize the three parts of STLight in place. Draws from torch's global generator.

    `kaiming_uniform` keeps PyTorch's default everywhere, `kaiming_normal` applies Listing 1 to every convolution, and `hybrid`
    applies it to all but the patch reassemble layer.
    """
    if scheme == "kaiming_uniform":
        return
    patch_encoder.apply(_listing_1)
    mixers.apply(_listing_1)
    if scheme == "kaiming_normal":
        patch_reassemble.apply(_listing_1)


def _listing_1(module: nn.Module) -> None:
    # The listing's printed indentation would access the bias of every module, which fails because GELU has none.
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
