"""The configuration of a run: three frozen, validated sections, by default STLight-L on Moving MNIST. Imports no torch."""

import hashlib
import json
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from stlight.registry.architecture import (
    ConfigError,
    Decoder,
    Initialization,
    check_architecture,
    check_frame_size,
    check_integer,
)
from stlight.registry.dataset_specs import CUSTOM_NAME, DATASETS, ClipShape
from stlight.registry.model_specs import BASELINE_FIELDS, BASELINES, OURS, published

Kernels = Literal["auto", "plain", "channels_last", "space_to_batch", "fused", "compiled", "triton", "triton_channels_last"]

_LEAST_SIDE = 7
"""Pixels: the side of SSIM's window."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """Architecture (Sections B, D, F and G). All fields but the first four apply to STLight only."""

    model: str = OURS
    """STLight-L, at the size that the other fields say, or a baseline by its name in Table 2."""
    baseline_width: float = Field(default=1.0, gt=0, le=1)
    """Baselines: share of the published numbers of channels."""
    baseline_depth: float = Field(default=1.0, gt=0, le=1)
    """Baselines: share of the published numbers of layers."""
    benchmark_version: Literal["v0.3.0", "corrected"] = "v0.3.0"
    """ConvLSTM-S and PredRNN++: the benchmark's code up to v0.3.0, which made Table 2's rows, or as corrected after it."""
    hidden_dim: int = 1400
    """d: channels of the patches and of every mixer."""
    depth: int = Field(default=16, le=10_000)
    """de: number of STLMixers."""
    patch_size: int = 2
    """p: side of a patch in pixels; Section B assumes p ≤ 2."""
    overlap: int = 0
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
    """Add the input of block de//n to the input of block (n − 1)·de//n, where n is skip_parts."""
    skip_parts: int = Field(default=3, ge=3)
    """n of the skip: 3 from 1/3 to 2/3 of the depth, 5 from 1/5 to 4/5."""
    prediction: Literal["direct", "rollout"] = "direct"
    """direct: all horizon frames at once. rollout: as many as the context has, fed back until the horizon is full."""

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        if self.model not in (OURS, *BASELINES):
            raise ConfigError(f"model must be one of {', '.join((OURS, *BASELINES))}, got {self.model!r}")
        stlight_only = ModelConfig.model_fields.keys() - {"model", *BASELINE_FIELDS}
        owners = dict.fromkeys(*((BASELINE_FIELDS, "baselines") if self.model == OURS else (sorted(stlight_only), OURS)))
        if self.model != OURS and not BASELINES[self.model].has_correction:
            owners["benchmark_version"] = " and ".join(name for name, spec in BASELINES.items() if spec.has_correction)
        for name, owner in owners.items():
            if (value := getattr(self, name)) != (default := ModelConfig.model_fields[name].default):
                raise ConfigError(f"{name} applies to {owner} only and must be {default!r} for {self.model}, got {value!r}")
        constrained = ("hidden_dim", "depth", "patch_size", "overlap", "dilation", "decoder", "initialization")
        check_architecture(kernel_sizes=(self.k1, self.k2), **{name: getattr(self, name) for name in constrained})
        return self


class DataConfig(_Section):
    """The clips that a model is trained and tested on."""

    dataset: str = "mmnist"
    """A data set of the benchmark, or a custom one: the name of its folder under the data root."""
    custom_shape: ClipShape | None = None
    """Clip shape of a custom data set; None for the benchmark's."""
    source: Literal["embedded", "files", "stand_in"] = "embedded"
    """Digits shipped with a package, files under the data root, or clips generated in the same shape."""
    clips_per_epoch: int = Field(default=10_000, ge=1)
    """Training clips in an epoch."""
    validation_clips: int = Field(default=1_000, ge=1)
    """Held-out clips that `best_on_validation` selects on."""
    test_clips: int = Field(default=10_000, ge=1)
    """Clips that the reported metrics are measured on."""
    downsampling: int = Field(default=1, ge=1)
    """Factor by which height and width of every frame are reduced, by averaging; 1: frames as published."""

    @model_validator(mode="after")
    def _dataset_exists(self) -> Self:
        spec, shape = DATASETS.get(self.dataset), self.custom_shape
        if not shape and not spec:
            raise ConfigError(f"dataset must be one of {', '.join(DATASETS)}, or one under data_sets, got {self.dataset!r}")
        if shape and (spec or not CUSTOM_NAME.fullmatch(self.dataset)):
            raise ConfigError(f"dataset: a custom one needs a new name of small letters, digits and _, got {self.dataset!r}")
        for name, value in shape._asdict().items() if shape else ():
            check_integer(name, value, minimum=_LEAST_SIDE if name in ("height", "width") else 1)
        full = shape or DATASETS[self.dataset].shape
        check_frame_size(full.height, full.width, self.downsampling, "downsampling")
        if min(full.height, full.width) // self.downsampling < _LEAST_SIDE:
            got = f"got {full.height}x{full.width} with downsampling {self.downsampling}"
            raise ConfigError(f"frames must keep {_LEAST_SIDE} pixels a side, because SSIM's window has as many, {got}")
        sources = (spec.fallback, "files") if spec and spec.fallback else ("files",)
        if self.source not in sources:
            raise ConfigError(f"source must be one of {', '.join(sources)} for dataset {self.dataset}, got {self.source!r}")
        return self


class ComputeConfig(_Section):
    """How a run computes. A scale may set these fields for all experiments."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: autocast on a CUDA device; a CPU always computes in float32."""
    tf32: bool = True
    """Allow TensorFloat-32 in convolutions and matrix products on a CUDA device; PyTorch's own default for convolutions."""
    kernels: Kernels = "auto"
    """How STLight is computed, with the same result; auto times the ways and takes the fastest on the device."""
    cuda_graphs: bool = False
    """Record the training step's kernels on a CUDA device once and replay them."""
    deterministic: bool = False
    """Use only deterministic algorithms on a CUDA device, which are slower; a CPU always does."""
    accumulation_steps: int = Field(default=1, ge=1)
    """Equal parts of a batch, each with its own BatchNorm statistics and sampling draws. Must divide batch_size."""
    out_of_memory: Literal["stop", "split"] = "stop"
    """split: a run that does not fit restarts with more accumulation_steps; the record says how many."""


class TrainingConfig(ComputeConfig):
    """Training by Adam on the mean squared error, with a learning rate schedule, and how it is computed."""

    schedule: Literal["onecycle", "cosine"] = "onecycle"
    """onecycle: updated every step. cosine: updated every epoch, after a warm-up."""
    max_lr: float = Field(default=1e-3, gt=0)
    """Peak learning rate of the cycle; first learning rate of the cosine."""
    final_div_factor: float = Field(default=1e4, gt=0)
    """onecycle: the cycle ends at max_lr / 25 / final_div_factor."""
    warmup_epochs: int = Field(default=0, ge=0)
    """cosine: epochs in which the learning rate rises in equal steps from warmup_lr to the cosine."""
    warmup_lr: float = Field(default=1e-5, gt=0)
    """cosine: learning rate of the first epoch, if there is a warm-up."""
    min_lr: float = Field(default=1e-6, ge=0)
    """cosine: final learning rate."""
    num_epochs: int = Field(default=200, ge=1)
    """Passes over clips_per_epoch clips."""
    batch_size: int = Field(default=16, ge=1)
    """Clips per step; the last incomplete batch of an epoch is dropped."""
    sampling_steps: int = Field(default=50_000, ge=1)
    """Recurrent baselines: steps of scheduled sampling, after which they see their own predictions only."""
    lpips: bool = False
    """Measure LPIPS too. Needs `pip install lpips`, which downloads a network's weights when first used."""


class RunConfig(_Section):
    """One run: a variant's full configuration and a seed."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()
    seed: int = Field(default=0, ge=0)
    """Seed of the initial weights and of the training clips; held-out clips do not depend on it."""

    @model_validator(mode="after")
    def _sections_agree(self) -> Self:
        shape, data, training = self.clip_shape, self.data, self.training
        if (name := self.model.model) == OURS:
            check_frame_size(shape.height, shape.width, self.model.patch_size)
        else:
            multiple = published(name, data.dataset).frame_multiple
            check_frame_size(shape.height, shape.width, multiple, f"the frame multiple of {name},")
            if training.cuda_graphs or training.kernels not in ("auto", "plain"):
                raise ConfigError(f"kernels and cuda_graphs apply to {OURS} only, must be auto and false for {name}")
            if training.num_epochs < (phases := BASELINES[name].phases):
                raise ConfigError(f"num_epochs must be at least {phases}, the phases of {name}, got {training.num_epochs}")
        if training.batch_size > data.clips_per_epoch:
            raise ConfigError(f"batch_size must be at most clips_per_epoch {data.clips_per_epoch}, got {training.batch_size}")
        if training.lpips and shape.channels not in (1, 3):
            raise ConfigError(f"lpips needs frames of 1 or 3 channels, {data.dataset} has {shape.channels}")
        if (warmup := training.warmup_epochs) >= training.num_epochs:
            raise ConfigError(f"warmup_epochs must be fewer than num_epochs {training.num_epochs}, got {warmup}")
        if training.batch_size % (parts := training.accumulation_steps):
            raise ConfigError(f"accumulation_steps must divide batch_size {training.batch_size}, got {parts}")
        return self

    @property
    def clip_shape(self) -> ClipShape:
        """Frames and frame size that the model sees."""
        full, factor = self.data.custom_shape or DATASETS[self.data.dataset].shape, self.data.downsampling
        return full._replace(height=full.height // factor, width=full.width // factor)

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps in an epoch."""
        return self.data.clips_per_epoch // self.training.batch_size

    @property
    def num_steps(self) -> int:
        """Optimizer steps in the whole run."""
        return self.training.num_epochs * self.steps_per_epoch

    @property
    def fields(self) -> dict[str, Any]:
        """All fields but the seed by their names, which are unique across the sections."""
        return {name: value for section in self.model_dump(exclude={"seed"}).values() for name, value in section.items()}

    @property
    def hash(self) -> str:
        """First 16 hex digits of the SHA-256 of the canonical JSON: equal if and only if the configurations mean the same."""
        # Excluded because a run that fits is the same either way, and the record of a run that is split says so.
        meaning = self.model_dump(exclude={"training": {"out_of_memory"}})
        canonical = json.dumps(meaning, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    @classmethod
    def from_fields(cls, fields: dict[str, Any], seed: int = 0) -> Self:
        """Build from flat field names, each of which belongs to one section. Raises `ConfigError`, in one line."""
        sections: dict[str, dict[str, Any]] = {"model": {}, "data": {}, "training": {}}
        for name, value in fields.items():
            if name not in SECTION_OF_FIELD:
                raise ConfigError(f"unknown field {name!r}; the fields are {', '.join(SECTION_OF_FIELD)}")
            # Pydantic would take true for 1, and the text "1400" for a number.
            if any(isinstance(value, kind) != isinstance(DEFAULTS[name], kind) for kind in (bool, str)):
                raise ConfigError(f"{name} must be like {DEFAULTS[name]!r}, got {value!r}")
            sections[SECTION_OF_FIELD[name]][name] = value
        try:
            return cls.model_validate({**sections, "seed": seed})
        except ValidationError as error:
            raise ConfigError(describe(error)) from error


SECTION_OF_FIELD = {name: section for section, values in RunConfig().model_dump(exclude={"seed"}).items() for name in values}
DEFAULTS = RunConfig().fields


def describe(error: ValidationError) -> str:
    """Return a validation error as one line: the field, what is wrong, and the value."""
    first = error.errors(include_url=False)[0]
    place = "" if first["type"] == "value_error" else f"{first['loc'][-1] if first['loc'] else 'configuration'}: "
    return place + error_words(first)


def error_words(detail: ErrorDetails) -> str:
    """Return what is wrong with a value, and the value."""
    if detail["type"] == "value_error":
        return str(detail["ctx"]["error"])
    return f"{detail['msg'][0].lower()}{detail['msg'][1:]}, got {detail['input']!r}"
