"""STLight (Sections B, F and G): encode patches of all frames at once, mix them by convolutions, decode them to frames."""

from torch import Tensor, nn

from stlight.model.forecaster import Forecaster
from stlight.registry.architecture import check_architecture, check_frame_size, check_integer


class Residual(nn.Module):
    """Compute block(x) + x."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Take any shape that the block keeps."""
        return self.block(x) + x


def depthwise_conv(dim: int, kernel_size: int, dilation: int = 1) -> nn.Conv2d:
    """Return a depthwise convolution that keeps H and W.

    The padding is an integer because fvcore counts convolutions with `padding="same"` as free.
    """
    padding = dilation * (kernel_size - 1) // 2
    return nn.Conv2d(dim, dim, kernel_size, padding=padding, dilation=dilation, groups=dim)


def stl_mixer(dim: int, k1: int, k2: int, dilation: int) -> nn.Sequential:
    """Return one STLMixer: two depthwise convolutions, the second dilated, with a residual; then a pointwise convolution."""
    spatial = nn.Sequential(depthwise_conv(dim, k1), depthwise_conv(dim, k2, dilation), nn.GELU(), nn.BatchNorm2d(dim))
    return nn.Sequential(Residual(spatial), nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim)))


def patch_encoder(in_channels: int, dim: int, patch_size: int, overlap: int) -> nn.Sequential:
    """Return a strided convolution that makes patches of all context frames at once; with overlap > 1 patches overlap."""
    kernel_size = patch_size * max(1, overlap)
    padding = max(0, overlap - 1) * patch_size // 2
    return nn.Sequential(nn.Conv2d(in_channels, dim, kernel_size, patch_size, padding), nn.BatchNorm2d(dim), nn.GELU())


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
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class STLight(Forecaster):
    """The supplement's model; the defaults are STLight-L.

    `decoder` is the order of patch shuffle and patch reassemble (Section F). `initialization` is a scheme of Section D. `skip`
    adds the input of mixer depth//n to the input of mixer (n − 1)·depth//n; n is `skip_parts`, 3 in Section G.

    Raises `ValueError` with the argument, its value and what would be right.
    """

    def __init__(
        self,
        *,
        context_frames: int = 10,
        horizon_frames: int = 10,
        channels: int = 1,
        hidden_dim: int = 1400,
        depth: int = 16,
        patch_size: int = 2,
        overlap: int = 0,
        kernel_sizes: tuple[int, int] = (3, 7),
        dilation: int = 3,
        decoder: str = "shuffle_reassemble",
        initialization: str = "hybrid",
        skip: bool = True,
        skip_parts: int = 3,
    ) -> None:
        for name, value in {"context_frames": context_frames, "horizon_frames": horizon_frames, "channels": channels}.items():
            check_integer(name, value, minimum=1)
        check_integer("skip_parts", skip_parts, minimum=3)
        if not isinstance(skip, bool):
            raise ValueError(f"skip must be True or False, got {skip!r}")
        check_architecture(
            hidden_dim=hidden_dim,
            depth=depth,
            patch_size=patch_size,
            overlap=overlap,
            kernel_sizes=kernel_sizes,
            dilation=dilation,
            decoder=decoder,
            initialization=initialization,
        )
        super().__init__()
        self.context_frames, self.horizon_frames, self.channels = context_frames, horizon_frames, channels
        self.patch_size, self.decoder, self.skip, self.skip_parts = patch_size, decoder, skip, skip_parts

        self.patch_encoder = patch_encoder(context_frames * channels, hidden_dim, patch_size, overlap)
        self.mixers = nn.ModuleList(stl_mixer(hidden_dim, *kernel_sizes, dilation) for _ in range(depth))
        self.patch_shuffle = nn.PixelShuffle(patch_size)
        if decoder == "shuffle_reassemble":
            self.patch_reassemble = nn.Conv2d(hidden_dim // patch_size**2, horizon_frames * channels, 1)
        else:
            self.patch_reassemble = nn.Conv2d(hidden_dim, horizon_frames * channels * patch_size**2, 1)
        initialize(self.patch_encoder, self.mixers, self.patch_reassemble, initialization)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Predict frames (B, T', C, H, W) from context frames (B, T, C, H, W); `patch_size` must divide H and W."""
        shape = tuple(clip_BTCHW.shape)
        if len(shape) != 5 or shape[1:3] != (self.context_frames, self.channels):
            raise ValueError(f"clip must be (B, {self.context_frames}, {self.channels}, H, W), got {shape}")
        check_frame_size(*shape[-2:], self.patch_size)
        return self.predict_frames(clip_BTCHW.flatten(1, 2)).unflatten(1, (self.horizon_frames, self.channels))

    def predict_frames(self, frames_BCHW: Tensor) -> Tensor:
        """Predict frames (B, T'·C, H, W) from context frames (B, T·C, H, W), without checks."""
        x = self.patch_encoder(frames_BCHW)
        depth, parts = len(self.mixers), self.skip_parts
        for i, mixer in enumerate(self.mixers):
            if self.skip and i == depth // parts:
                skipped = x
            if self.skip and i == (parts - 1) * depth // parts:
                x = x + skipped
            x = mixer(x)
        if self.decoder == "shuffle_reassemble":
            return self.patch_reassemble(self.patch_shuffle(x))
        return self.patch_shuffle(self.patch_reassemble(x))


def find_stlight(model: nn.Module) -> STLight | None:
    """Return the STLight in a model (itself, or the one that a `Rollout` wraps), or None in a baseline."""
    return next((module for module in model.modules() if isinstance(module, STLight)), None)
