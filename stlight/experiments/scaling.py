"""Scales: how large the experiments are run. A scale states what the paper's base becomes; every other value follows."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from stlight.config import BASELINE_FIELDS, DEFAULTS, ComputeConfig, ModelConfig
from stlight.experiments.field_types import ClipCounts, Coordinates, DatasetName, PositiveFloat, PositiveInt
from stlight.experiments.yaml_files import FileModel, check_known
from stlight.registry.dataset_specs import DATASETS, base_of
from stlight.registry.model_specs import BASELINES, OURS

_FOLLOWS = {
    "warmup_epochs": "num_epochs",
    "warmup_lr": "max_lr",
    "min_lr": "max_lr",
}
"""Fields that a scale changes in proportion to another one."""
_STLIGHT_FIELDS = ModelConfig.model_fields.keys() - {"model", *BASELINE_FIELDS}


class ScaleBase(FileModel):
    """The values that STLight-L's become. Every value that an experiment states follows in proportion."""

    hidden_dim: PositiveInt
    depth: PositiveInt
    patch_size: PositiveInt
    batch_size: PositiveInt
    num_epochs: PositiveInt
    max_lr: PositiveFloat

    @model_validator(mode="after")
    def _patches_divide_the_width(self) -> Self:
        if self.hidden_dim % self.patch_size**2:
            raise ValueError(f"hidden_dim {self.hidden_dim} must be divisible by patch_size² = {self.patch_size**2}")
        return self


def _check_models(max_lr: dict[str, float] | None) -> dict[str, float] | None:
    for name in max_lr or ():
        check_known("no baseline", name, BASELINES)
    return max_lr


class BaselinesAtScale(FileModel):
    """The size of the models of other papers, and the learning rates that they are trained with."""

    baseline_width: Annotated[float, Field(gt=0, le=1)]
    """Share of the published numbers of channels."""
    baseline_depth: Annotated[float, Field(gt=0, le=1)]
    """Share of the published numbers of layers."""
    max_lr: dict[str, PositiveFloat] | None = None
    """Peak learning rate of each model that is trained. Others are counted and timed only. Without it, all of them are trained
    with the benchmark's."""

    _models_exist = field_validator("max_lr")(_check_models)


class DatasetAtScale(ClipCounts):
    """Source, numbers of clips, resolution and base of one data set."""

    source: Literal["auto", "embedded", "stand_in", "files"]
    """auto: the benchmark's files if all of them exist, else the source that needs none."""
    downsampling: PositiveInt = 1
    """Factor by which height and width of the frames are reduced."""
    baselines: dict[str, PositiveFloat] | None = None
    """Peak learning rate of each model of another paper that is trained on this data set; without it, as `baselines` of the
    scale says."""
    base: ScaleBase | None = None
    """Values of STLight-L on this data set; without them, stated values follow Moving MNIST's base in proportion."""

    _models_exist = field_validator("baselines")(_check_models)


class MoreSeeds(FileModel):
    """Seeds for some variants of an experiment."""

    experiment: str
    where: Coordinates = Field(default_factory=dict)
    """The part of the grid, in the paper's units; all of it if no axis is named."""
    seeds: PositiveInt

    def applies_to(self, experiment: str, axes: dict[str, Any]) -> bool:
        """Return True for a point of the named part of the experiment's grid."""
        named = {axis: value if isinstance(value, list) else [value] for axis, value in self.where.items()}
        return experiment == self.experiment and all(axes.get(axis) in values for axis, values in named.items())


class ScaleFile(FileModel):
    """How large the experiments are run."""

    summary: str
    """One line: what the scale is for and how long it takes."""
    base: ScaleBase
    """Values of STLight-L on Moving MNIST."""
    data: dict[DatasetName, DatasetAtScale] = Field(default_factory=dict)
    """By data set of the benchmark. One that is not named has its published numbers of clips, within the limits of `custom`."""
    custom: ClipCounts | None = None
    """Limits for custom data sets and those that `data` does not name, which then have source auto; without limits, files."""
    baselines: BaselinesAtScale | None = None
    """Models of other papers; without it, they are trained as published."""
    compute: ComputeConfig = ComputeConfig()
    """How runs compute, unless an experiment says otherwise."""
    seeds: PositiveInt
    """Seeds per variant, unless an experiment asks for more."""
    more_seeds: list[MoreSeeds] = Field(default_factory=list)
    """Variants that get more seeds."""
    max_seeds: PositiveInt | None = None
    """No variant gets more seeds than this."""
    looks: Annotated[tuple[Annotated[int, Field(ge=2)], ...], Field(strict=False)] = ()
    """Numbers of seeds, rising, at which verdicts may be drawn and more seeds added; empty: the seeds are looked at once."""

    @model_validator(mode="after")
    def _looks_rise(self) -> Self:
        if list(self.looks) != sorted(set(self.looks)):
            raise ValueError(f"looks must rise, got {list(self.looks)}")
        return self


class Scale(ScaleFile):
    """How large the experiments are run, with the sources of the data that are there."""

    name: str
    sources: dict[str, str]
    """Where the clips of each data set of the benchmark come from."""

    @classmethod
    def from_file(cls, name: str, file: ScaleFile, data_root: Path) -> Self:
        """Choose the source of each data set."""
        sources: dict[str, str] = {}
        for dataset, spec in DATASETS.items():
            stated = file.data[dataset].source if dataset in file.data else "auto" if file.custom else "files"
            exists = all((data_root / path).exists() for path in spec.files)
            sources[dataset] = ("files" if exists else spec.fallback or "files") if stated == "auto" else stated
        return cls(**dict(file), name=name, sources=sources)

    def trains(self, model: str, dataset: str) -> bool:
        """Return True if a model is trained on a data set at this scale, rather than only counted, timed and quoted."""
        rates = self._rates(dataset)
        return model not in BASELINES or rates is None or model in rates

    def _rates(self, dataset: str) -> dict[str, float] | None:
        """Return the peak learning rates of the baselines trained on a data set; None if all are, with the benchmark's."""
        own = self.data[dataset].baselines if dataset in self.data else None
        return own if own is not None or self.baselines is None else self.baselines.max_lr

    def seeds_of(self, experiment: str, axes: dict[str, Any], at_least: int) -> int:
        """Return the number of seeds of a point of an experiment's grid; the experiment asks for `at_least` so many."""
        more = [stated.seeds for stated in self.more_seeds if stated.applies_to(experiment, axes)]
        seeds = max(self.seeds, at_least, *more)
        return min(seeds, self.max_seeds or seeds)

    def resolve(self, paper_fields: dict[str, Any], share_of_epochs: float = 1.0) -> dict[str, Any]:
        """Translate fields in the paper's units into fields at this scale, for a share of the epochs."""
        dataset, model = paper_fields["dataset"], paper_fields["model"]
        ours = model == OURS
        clips = {name: stated.model_dump(exclude={"source", "base", "baselines"}) for name, stated in self.data.items()}
        epochs = max(1, round(paper_fields["num_epochs"] * share_of_epochs))
        own = self.data[dataset].base if dataset in self.data else None
        before, after = DEFAULTS | base_of(dataset if own else "mmnist", model), dict(own or self.base)
        if not ours:
            after["max_lr"] = (self._rates(dataset) or {}).get(model, before["max_lr"])
            if self.baselines:
                after |= self.baselines.model_dump(exclude={"max_lr"})
        fields = {n: _in_proportion(n, value, before, after) for n, value in (paper_fields | {"num_epochs": epochs}).items()}
        fields |= {name: paper_fields[name] for name in (BASELINE_FIELDS if ours else _STLIGHT_FIELDS)}
        compute = self.compute.model_dump(exclude_unset=True, exclude=None if ours else {"kernels", "cuda_graphs"})
        fields |= {name: value for name, value in compute.items() if paper_fields[name] == DEFAULTS[name]}
        patch_area = fields["patch_size"] ** 2
        if ours and paper_fields["hidden_dim"] % paper_fields["patch_size"] ** 2 == 0:
            # A width that the patches divide stays one, for both decoders, so that pairs of variants share one width.
            width = paper_fields["hidden_dim"] * after["hidden_dim"] / before["hidden_dim"]
            fields["hidden_dim"] = max(1, math.floor(width / patch_area + 0.5)) * patch_area
        if not ours:
            # However short a training is, it has an epoch for each phase of the model.
            fields["num_epochs"] = max(fields["num_epochs"], BASELINES[model].phases)
        # A short training has no epoch to spare for a warm-up.
        fields["warmup_epochs"] = min(fields["warmup_epochs"], fields["num_epochs"] - 1)
        limited = {name: min(fields[name], limit) for name, limit in self.custom or ()}
        fields |= clips.get(dataset, limited) | {"source": self.sources.get(dataset, "files")}
        if not ours:
            # Scheduled sampling takes the same share of a run's steps as in the paper.
            share = _steps(fields) / _steps(paper_fields)
            fields["sampling_steps"] = max(1, round(paper_fields["sampling_steps"] * share))
        return fields


def _in_proportion(name: str, value: Any, before: dict[str, Any], after: dict[str, Any]) -> Any:
    """Return a field's value at a scale that turns the base `before` into `after`."""
    base = _FOLLOWS.get(name, name)
    if base not in after:
        return value
    scaled = value * after[base] / before[base]
    if name in BASELINE_FIELDS:
        return min(1.0, _rounded(scaled))
    least = 0 if base != name else 1
    return max(least, math.floor(scaled + 0.5)) if isinstance(DEFAULTS[name], int) else _rounded(scaled)


def _rounded(value: float) -> float:
    """Return a value to twelve digits, so that 0.003 × 0.01 / 0.001 reads 0.03."""
    return float(f"{value:.12g}")


def _steps(fields: dict[str, Any]) -> float:
    return float(fields["num_epochs"] * fields["clips_per_epoch"] / fields["batch_size"])
