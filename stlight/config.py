"""What a run is: frozen, validated configuration in three sections. Imports neither torch nor anything of this package.

The defaults are the supplement's STLight-L on Moving MNIST (Sections E and G, and the OpenSTL benchmark's protocol), so an
experiment states only what differs from it.
"""

import hashlib
import json
import re
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.model_specs import BASELINES, OURS

Decoder = Literal["shuffle_reassemble", "reassemble_shuffle"]
Initialization = Literal["kaiming_uniform", "kaiming_normal", "hybrid"]
Kernels = Literal["auto", "plain", "channels_last", "space_to_batch", "fused", "compiled"]
DECODERS: tuple[str, ...] = ("shuffle_reassemble", "reassemble_shuffle")
INITIALIZATIONS: tuple[str, ...] = ("kaiming_uniform", "kaiming_normal", "hybrid")


CUSTOM_NAME = re.compile("[a-z][a-z0-9_]*")
"""Names that a custom data set may have."""


class ConfigError(ValueError):
    """A configuration that cannot be run; the message is one line that names the field, its value and what would be right."""


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
    """Raise `ConfigError` for an STLight that cannot be built. Used by the model and, before any work starts, by the plan."""
    at_least_one = {"hidden_dim": hidden_dim, "depth": depth, "patch_size": patch_size, "dilation": dilation}
    for name, value in at_least_one.items():
        check_integer(name, value, minimum=1)
    check_integer("overlap", overlap, minimum=0)
    if not isinstance(kernel_sizes, tuple | list) or len(kernel_sizes) != 2:
        raise ConfigError(f"kernel_sizes must be two odd integers (k1, k2), got {kernel_sizes!r}")
    for name, kernel_size in zip(("k1", "k2"), kernel_sizes, strict=True):
        check_integer(f"kernel_sizes ({name})", kernel_size, minimum=1)
        if kernel_size % 2 == 0:
            raise ConfigError(
                f"kernel_sizes ({name}) must be odd, got {kernel_size}: an even kernel has no centre and would shift the frame"
            )
    if decoder not in DECODERS:
        raise ConfigError(f"decoder must be one of {', '.join(DECODERS)}, got {decoder!r}")
    if initialization not in INITIALIZATIONS:
        raise ConfigError(f"initialization must be one of {', '.join(INITIALIZATIONS)}, got {initialization!r}")
    if decoder == "shuffle_reassemble" and hidden_dim % patch_size**2:
        lower = hidden_dim - hidden_dim % patch_size**2
        raise ConfigError(
            f"hidden_dim must be divisible by patch_size² = {patch_size**2} for decoder shuffle_reassemble, got {hidden_dim}"
            f" (try {lower or patch_size**2} or {lower + patch_size**2})"
        )
    if max(0, overlap - 1) * patch_size % 2:
        raise ConfigError(
            f"overlap must be odd or below 2 when patch_size is odd, got overlap {overlap} with patch_size {patch_size}:"
            " the encoder's padding, (overlap - 1) * patch_size / 2, would not be whole"
        )


def check_frame_size(height: int, width: int, divisor: int, called: str = "patch_size") -> None:
    """Raise `ConfigError` unless both sides of a frame are multiples of `divisor`, and not zero."""
    if height % divisor or width % divisor or not height or not width:
        raise ConfigError(f"frame size must be divisible by {called} {divisor}, got {height}x{width}")


def check_integer(name: str, value: object, minimum: int) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least `minimum`; True and False are none."""
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ConfigError(f"{name} must be an integer of at least {minimum}, got {value!r}")


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """Architecture (Sections B, D, F and G). All fields but the first three are STLight's."""

    model: str = OURS
    """The model: STLight-L, at the size that the other fields say, or a baseline by its name in Table 2."""
    baseline_width: float = Field(default=1.0, gt=0, le=1)
    """Baselines: share of the published numbers of channels."""
    baseline_depth: float = Field(default=1.0, gt=0, le=1)
    """Baselines: share of the published numbers of layers."""
    hidden_dim: int = 1400
    """d: channels of the patches and of every mixer."""
    depth: int = 16
    """de: number of STLMixers."""
    patch_size: int = 2
    """p: side of a patch in pixels; Section B assumes p ≤ 2."""
    overlap: int = 2
    """O: an encoder kernel spans max(1, O) patches; Section B assumes O ≤ 2."""
    k1: int = 3
    """k_T1: odd kernel size of a mixer's first depthwise convolution."""
    k2: int = 7
    """k_T2: odd kernel size of a mixer's second, dilated depthwise convolution."""
    dilation: int = 3
    """Dilation of the second depthwise convolution."""
    decoder: Decoder = "shuffle_reassemble"
    """Order of the decoding operations (Section F)."""
    initialization: Initialization = "hybrid"
    """Weight initialization scheme (Section D)."""
    skip: bool = True
    """Add the input of block de//3 to the input of block 2·de//3."""
    prediction: Literal["direct", "rollout"] = "direct"
    """All horizon frames at once, or as many as the context at a time, fed back until the horizon is full."""

    @model_validator(mode="after")
    def _model_exists(self) -> Self:
        if self.model not in (OURS, *BASELINES):
            raise ConfigError(f"model must be one of {', '.join((OURS, *BASELINES))}, got {self.model!r}")
        of_baselines = {"baseline_width", "baseline_depth"}
        others = of_baselines if self.model == OURS else ModelConfig.model_fields.keys() - of_baselines - {"model"}
        for name in sorted(others):
            value, default = getattr(self, name), ModelConfig.model_fields[name].default
            if value != default:
                whose = "baselines" if self.model == OURS else OURS
                raise ConfigError(f"{name} is of {whose} only and must be {default!r} for {self.model}, got {value!r}")
        return self

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        check_architecture(
            hidden_dim=self.hidden_dim,
            depth=self.depth,
            patch_size=self.patch_size,
            overlap=self.overlap,
            kernel_sizes=(self.k1, self.k2),
            dilation=self.dilation,
            decoder=self.decoder,
            initialization=self.initialization,
        )
        return self


class DataConfig(_Section):
    """What is shown to the model."""

    dataset: str = "mmnist"
    """The data set's name in the benchmark, or that of a folder of one's own under the data root."""
    own_shape: ClipShape | None = None
    """The clips of a data set of one's own; none for the benchmark's."""
    source: Literal["embedded", "files", "stand_in"] = "embedded"
    """Digits shipped with a package, files under the data root, or clips generated in the same shape."""
    clips_per_epoch: int = Field(default=10_000, ge=1)
    """Training clips in an epoch."""
    validation_clips: int = Field(default=1_000, ge=1)
    """Held-out clips that `best_on_validation` selects on."""
    test_clips: int = Field(default=10_000, ge=1)
    """Clips that the reported metrics are measured on."""

    @model_validator(mode="after")
    def _dataset_exists(self) -> Self:
        if self.own_shape is None and self.dataset not in DATASETS:
            raise ConfigError(
                f"dataset must be one of {', '.join(DATASETS)}, or one of your own stated under data_sets, got {self.dataset!r}"
            )
        if self.own_shape is not None:
            if self.dataset in DATASETS or not CUSTOM_NAME.fullmatch(self.dataset):
                raise ConfigError(
                    "dataset of your own must be called by small letters, digits and _, and not as one of the benchmark's,"
                    f" got {self.dataset!r}"
                )
            for name, value in self.own_shape._asdict().items():
                # SSIM's window is 7×7.
                check_integer(name, value, minimum=7 if name in ("height", "width") else 1)
        fallback = DATASETS[self.dataset].fallback if self.dataset in DATASETS else None
        sources = (*([fallback] if fallback else []), "files")
        if self.source not in sources:
            raise ConfigError(f"source must be one of {', '.join(sources)} for dataset {self.dataset}, got {self.source!r}")
        return self


class TrainingConfig(_Section):
    """How the model learns: Adam, a schedule of its learning rate, mean squared error."""

    schedule: Literal["onecycle", "cosine"] = "onecycle"
    """OneCycle by step, or a cosine by epoch after a warm-up."""
    max_lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the cycle; where the cosine starts from."""
    final_div_factor: float = Field(default=1e4, gt=0)
    """onecycle: the cycle ends at max_lr / 25 / final_div_factor."""
    warmup_epochs: int = Field(default=0, ge=0)
    """cosine: epochs in which the rate rises from warmup_lr in equal steps, before the cosine is joined."""
    warmup_lr: float = Field(default=1e-5, gt=0)
    """cosine: the first epoch's rate, where there is a warm-up."""
    min_lr: float = Field(default=1e-6, ge=0)
    """cosine: what it falls to."""
    num_epochs: int = Field(default=200, ge=1)
    """Passes over clips_per_epoch clips."""
    batch_size: int = Field(default=16, ge=1)
    """Clips per step; the last incomplete batch of an epoch is dropped."""
    sampling_steps: int = Field(default=50_000, ge=1)
    """Recurrent baselines: steps until they are trained on nothing but their own predictions (scheduled sampling)."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast on a CUDA device; a CPU always computes in float32."""
    tf32: bool = True
    """Allow TensorFloat-32 in convolutions and matrix products on a CUDA device; PyTorch's own default for convolutions."""
    kernels: Kernels = "auto"
    """How the mixers are computed, with the same result; auto takes what is fastest on the device, found by timing."""
    cuda_graphs: bool = False
    """Record the training step's kernels on a CUDA device once and replay them."""
    lpips: bool = False
    """Measure LPIPS too, by a package of its own (pip install lpips), which loads a network's weights when first used."""
    deterministic: bool = False
    """Only algorithms on a CUDA device that give the same to the bit every time, at a cost; a CPU's always do."""
    accumulation_steps: int = Field(default=1, ge=1)
    """Equal parts that a batch is computed in, one after the other, adding up their gradients; BatchNorm's statistics are
    those of each part, and scheduled sampling draws for each. Must divide batch_size."""
    out_of_memory: Literal["stop", "split"] = "stop"
    """split: a run that does not fit starts anew with batches in more parts; the record says in how many."""


class RunConfig(_Section):
    """One run: a variant's full configuration and a seed."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(default=0, ge=0)
    """Seeds the initial weights and the stream of training clips; held-out clips do not depend on it."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        shape = self.clip_shape
        if self.model.model == OURS:
            check_frame_size(shape.height, shape.width, self.model.patch_size)
        else:
            needed = BASELINES[self.model.model].frame_multiple
            check_frame_size(shape.height, shape.width, needed, f"the frame multiple of {self.model.model},")
            if self.training.cuda_graphs or self.training.kernels not in ("auto", "plain"):
                raise ConfigError(f"kernels and cuda_graphs are of {OURS} only, must be auto and false for {self.model.model}")
        if self.training.batch_size > self.data.clips_per_epoch:
            raise ConfigError(
                f"batch_size must be at most clips_per_epoch {self.data.clips_per_epoch}, got {self.training.batch_size}:"
                " the last incomplete batch is dropped, so no step would be left"
            )
        if self.training.lpips and shape.channels not in (1, 3):
            raise ConfigError(f"lpips is for frames of 1 or 3 channels, {self.data.dataset} has {shape.channels}")
        if self.training.warmup_epochs >= self.training.num_epochs:
            raise ConfigError(
                f"warmup_epochs must be fewer than num_epochs {self.training.num_epochs}, got {self.training.warmup_epochs}"
            )
        if self.training.batch_size % self.training.accumulation_steps:
            raise ConfigError(
                f"accumulation_steps must divide batch_size {self.training.batch_size}, got {self.training.accumulation_steps}"
            )
        return self

    @property
    def clip_shape(self) -> ClipShape:
        """Frames and frame size of the data set."""
        return self.data.own_shape or DATASETS[self.data.dataset].shape

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.data.clips_per_epoch // self.training.batch_size

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: equal exactly when the configurations mean the same."""
        # What to do for want of memory is no part of it: a run that fits is the same, and one that is split says so.
        meaning = self.model_dump(exclude={"training": {"out_of_memory"}})
        canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_fields(cls, fields: dict[str, Any], seed: int = 0) -> Self:
        """Build from flat field names, each of which lies in exactly one section. Raises `ConfigError`, in one line."""
        sections: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "training": {}}
        for name, value in fields.items():
            if name not in SECTION_OF_FIELD:
                raise ConfigError(f"unknown field {name!r}; the fields are {', '.join(SECTION_OF_FIELD)}")
            # Else true would pass as 1, and the text "1400" as a number.
            if any(isinstance(value, kind) != isinstance(DEFAULTS[name], kind) for kind in (bool, str)):
                raise ConfigError(f"{name} must be like {DEFAULTS[name]!r}, got {value!r}")
            sections[SECTION_OF_FIELD[name]][name] = value
        try:
            return cls.model_validate({**sections, "seed": seed})
        except ValidationError as error:
            raise ConfigError(describe(error)) from error


SECTION_OF_FIELD: dict[str, str] = {
    name: section
    for section, model in (("model", ModelConfig), ("data", DataConfig), ("training", TrainingConfig))
    for name in model.model_fields
}

DEFAULTS: dict[str, Any] = {
    name: value for section in RunConfig().model_dump(exclude={"seed"}).values() for name, value in section.items()
}


def describe(error: ValidationError) -> str:
    """A validation error in one line: the field, what is wrong, and the value."""
    first = error.errors(include_url=False)[0]
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, ConfigError):
        return str(cause)
    place = str(first["loc"][-1]) if first["loc"] else "configuration"
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {first['msg'][0].lower()}{first['msg'][1:]}, got {first['input']!r}{more}"
