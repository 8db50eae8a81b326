"""The architectures that can be built: choices and constraints of STLight's fields."""

from typing import Literal, get_args

Decoder = Literal["shuffle_reassemble", "reassemble_shuffle"]
Initialization = Literal["kaiming_uniform", "kaiming_normal", "hybrid"]


class ConfigError(ValueError):
    """A configuration that cannot be run. The message is one line with the field, its value and what would be right."""


def check_architecture(
    *,
    hidden_dim: int,
    depth: int,
    patch_size: int,
    overlap: int,
    kernel_sizes: tuple[int, int],
    dilation: int,
    decoder: str,
    initialization: str,
) -> None:
    """Raise `ConfigError` for an STLight that cannot be built. Fields without constraints are not passed."""
    for name, value in {"hidden_dim": hidden_dim, "depth": depth, "patch_size": patch_size, "dilation": dilation}.items():
        check_integer(name, value, minimum=1)
    check_integer("overlap", overlap, minimum=0)
    if not isinstance(kernel_sizes, tuple | list) or len(kernel_sizes) != 2:
        raise ConfigError(f"kernel_sizes must be two odd integers (k1, k2), got {kernel_sizes!r}")
    for name, kernel_size in zip(("k1", "k2"), kernel_sizes, strict=True):
        check_integer(f"kernel_sizes ({name})", kernel_size, minimum=1)
        if kernel_size % 2 == 0:
            raise ConfigError(f"kernel_sizes ({name}) must be odd, got {kernel_size}: an even kernel would shift the frame")
    for name, choice, type_ in (("decoder", decoder, Decoder), ("initialization", initialization, Initialization)):
        if choice not in (known := get_args(type_)):
            raise ConfigError(f"{name} must be one of {', '.join(known)}, got {choice!r}")
    if decoder == "shuffle_reassemble" and hidden_dim % (area := patch_size**2):
        lower = hidden_dim - hidden_dim % area
        got = f"got {hidden_dim} (try {lower or area} or {lower + area})"
        raise ConfigError(f"hidden_dim must be divisible by patch_size² = {area} for decoder {decoder}, {got}")
    if max(0, overlap - 1) * patch_size % 2:
        raise ConfigError(f"overlap must be odd or below 2 for odd patch_size {patch_size}, got {overlap}")


def check_frame_size(height: int, width: int, divisor: int, called: str = "patch_size") -> None:
    """Raise `ConfigError` unless both sides of a frame are positive multiples of `divisor`."""
    if height % divisor or width % divisor or not height or not width:
        raise ConfigError(f"frame size must be divisible by {called} {divisor}, got {height}x{width}")


def check_integer(name: str, value: object, minimum: int) -> None:
    """Raise `ConfigError` unless `value` is an integer (not a bool) of at least `minimum`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be an integer of at least {minimum}, got {value!r}")
