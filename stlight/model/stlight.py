"""STLight (Sections B, F and G): patches of all frames at once, convolutional mixers, patches back to frames."""

from torch import Tensor, nn

from stlight.config import check_architecture, check_frame_size, check_integer
from stlight.kernels import choose_path
from stlight.model.forecaster import Forecaster
from stlight.model.initialization import initialize


class Residual(nn.Module):
    """x + block(x)."""

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.block = block

    def forward(self, x: Tensor) -> Tensor:
        """Any shape that the block keeps."""
        return self.block(x) + x


def depthwise_conv(dim: int, kernel_size: int, dilation: int = 1) -> nn.Conv2d:
    """Same-padded. The padding is given as an integer: fvcore counts convolutions with `padding="same"` as free."""
    padding = dilation * (kernel_size - 1) // 2
    return nn.Conv2d(dim, dim, kernel_size, padding=padding, dilation=dilation, groups=dim)


def stl_mixer(dim: int, k1: int, k2: int, dilation: int) -> nn.Sequential:
    """Two depthwise convolutions, the second dilated, in a residual; then a pointwise one across channels and time."""
    return nn.Sequential(
        Residual(
            nn.Sequential(
                depthwise_conv(dim, k1),
                depthwise_conv(dim, k2, dilation),
                nn.GELU(),
                nn.BatchNorm2d(dim),
            )
        ),
        nn.Sequential(nn.Conv2d(dim, dim, 1), nn.GELU(), nn.BatchNorm2d(dim)),
    )


def patch_encoder(in_channels: int, dim: int, patch_size: int, overlap: int) -> nn.Sequential:
    """Spatio-temporal patches: one strided convolution over all context frames; overlap > 1 lets patches overlap."""
    kernel_size = patch_size * max(1, overlap)
    padding = max(0, overlap - 1) * patch_size // 2
    return nn.Sequential(nn.Conv2d(in_channels, dim, kernel_size, patch_size, padding), nn.BatchNorm2d(dim), nn.GELU())


class STLight(Forecaster):
    """The supplement's model; the defaults are STLight-L.

    `decoder` orders the patch shuffle and the pointwise reassemble layer (Section F), `initialization` names a scheme of
    Section D, and `skip` adds the input of block depth//3 to the input of block 2·depth//3 (Section G).

    Raises `ValueError` naming the argument, its value and what would be right.
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
        overlap: int = 2,
        kernel_sizes: tuple[int, int] = (3, 7),
        dilation: int = 3,
        decoder: str = "shuffle_reassemble",
        initialization: str = "hybrid",
        skip: bool = True,
    ) -> None:
        for name, value in {"context_frames": context_frames, "horizon_frames": horizon_frames, "channels": channels}.items():
            check_integer(name, value, minimum=1)
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
        self.patch_size, self.decoder = patch_size, decoder
        self.skip: tuple[int, int] | None = (depth // 3, 2 * depth // 3) if skip else None

        self.patch_encoder = patch_encoder(context_frames * channels, hidden_dim, patch_size, overlap)
        self.mixers = nn.ModuleList(stl_mixer(hidden_dim, *kernel_sizes, dilation) for _ in range(depth))
        self.patch_shuffle = nn.PixelShuffle(patch_size)
        if decoder == "shuffle_reassemble":
            self.patch_reassemble = nn.Conv2d(hidden_dim // patch_size**2, horizon_frames * channels, 1)
        else:
            self.patch_reassemble = nn.Conv2d(hidden_dim, horizon_frames * channels * patch_size**2, 1)
        initialize(self.patch_encoder, self.mixers, self.patch_reassemble, initialization)

    def forward(self, clip_BTCHW: Tensor) -> Tensor:
        """Context frames (B, T, C, H, W) → predicted frames (B, T', C, H, W); H and W divisible by `patch_size`."""
        expected = (self.context_frames, self.channels)
        if clip_BTCHW.ndim != 5 or tuple(clip_BTCHW.shape[1:3]) != expected:
            raise ValueError(f"clip must be (B, {expected[0]}, {expected[1]}, H, W), got {tuple(clip_BTCHW.shape)}")
        height, width = clip_BTCHW.shape[-2:]
        check_frame_size(height, width, self.patch_size)

        # How it is computed: each module's own forward, or something faster with the same result.
        path = choose_path(self, clip_BTCHW)
        x = path.encode(self.patch_encoder, clip_BTCHW.flatten(1, 2))
        for i, mixer in enumerate(self.mixers):
            if self.skip and i == self.skip[0]:
                skipped = x
            if self.skip and i == self.skip[1]:
                x = x + skipped
            x = path.mix(mixer, x)
        if self.decoder == "shuffle_reassemble":
            x = path.decode((self.patch_shuffle, self.patch_reassemble), x)
        else:
            x = path.decode((self.patch_reassemble, self.patch_shuffle), x)
        return x.unflatten(1, (self.horizon_frames, self.channels))
