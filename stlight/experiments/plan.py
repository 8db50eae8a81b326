"""Experiments: as their files state them, and with their variants and runs at a scale."""

import hashlib
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import Field

from stlight.config import RunConfig
from stlight.experiments.claim_types import Claim
from stlight.experiments.field_types import (
    AxisValue,
    ClipCounts,
    CustomName,
    DatasetName,
    DistinctList,
    FieldName,
    MetricName,
    OneOrMore,
    PositiveInt,
    PrintedNumber,
)
from stlight.experiments.figure_types import Figure, TwoWayTable
from stlight.experiments.published_data import PublishedBand, PublishedCurves, PublishedData, PublishedEntry
from stlight.experiments.scaling import Scale
from stlight.experiments.yaml_files import FileModel, check_known
from stlight.registry.dataset_specs import ClipShape
from stlight.registry.metric_specs import COUNTED_METRICS, TIMED_METRICS
from stlight.registry.model_specs import OURS

SHARED_SEED_FIELDS = frozenset({"initialization", "decoder", "skip", "skip_parts", "dilation", "final_div_factor"})
"""Fields that two variants may differ in and still use the same seeds: they change neither a tensor's shape nor a clip."""


LOOKS = (3, 5, 8, 12)
"""Numbers of seeds at which verdicts are drawn when a budget adds seeds, unless the scale states others."""


Share = Annotated[float, Field(gt=0, le=1)]


class PaperItem(FileModel):
    """Where the paper has it."""

    section: str
    """Section of the supplement, or "-" for an experiment of your own."""
    item: str
    """Table or figure, as the supplement calls it."""


class CustomDataset(ClipCounts):
    """A custom data set: a folder under the data root with train.npy, test.npy and perhaps validation.npy, (N, T, C, H, W)."""

    context_frames: PositiveInt
    horizon_frames: PositiveInt
    channels: PositiveInt
    height: PositiveInt
    width: PositiveInt

    @property
    def fields(self) -> dict[str, Any]:
        """The fields of `stlight.config` that the statement sets."""
        stated = self.model_dump()
        return {"source": "files", "custom_shape": ClipShape(*(stated.pop(name) for name in ClipShape._fields)), **stated}


class ExperimentFile(FileModel):
    """One item of the paper."""

    title: str
    paper: PaperItem
    summary: str
    """Describes the fields varied and the outcome to look for."""
    train: bool = True
    """false: only count parameters and FLOPs, at the paper's size."""
    seeds: PositiveInt = 1
    """At least so many seeds for each variant."""
    max_seeds: PositiveInt | None = None
    """At most so many seeds for each variant, whatever the scale says."""
    base: dict[FieldName, AxisValue] = Field(default_factory=dict)
    """Fields of stlight/config.py, in the paper's units, that all variants share."""
    scales: list[str] = Field(default_factory=list)
    """Scales that have the experiment; all of them if none is named."""
    shorter: dict[str, Share | Annotated[dict[DatasetName, Share], Field(min_length=1)]] = Field(default_factory=dict)
    """Scales at which runs train for a share of the stated epochs, and that share, or that of each data set named."""
    data_sets: dict[CustomName, CustomDataset] = Field(default_factory=dict)
    """Custom data sets by name."""
    grid: OneOrMore[Annotated[dict[FieldName, DistinctList[AxisValue]], Field(min_length=1)]]
    """Values for each field varied; every combination is a variant. A list of grids is their union."""
    metrics: DistinctList[MetricName] | Annotated[dict[str, DistinctList[MetricName]], Field(min_length=1)]
    """Metrics in the order of the table's columns; for several data sets, those of each."""
    selection: Literal["last", "best_on_validation", "best_on_test"] = "last"
    """Which epoch's metrics are reported."""
    published: list[PublishedEntry] = Field(default_factory=list)
    """The paper's numbers: axis values and metrics, or a quoted model's name and metrics."""
    published_points: PublishedData | None = None
    """The paper's numbers from a published figure: one row for each point, with a column for each axis and metric."""
    published_curves: PublishedCurves | None = None
    """Published learning curves: columns for axes, bound (min or max over runs), epoch and one metric."""
    table: TwoWayTable | None = None
    figure: Figure
    claims: list[Claim] = Field(default_factory=list)
    """Sentences of the paper about this item, each with the one test that decides it."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One grid point of an experiment."""

    dataset: str
    name: str
    """Short, unique within its data set, and the same at all scales that train it for the epochs that it states."""
    axes: dict[str, Any]
    """Its values on the experiment's axes, in the paper's units."""
    paper: RunConfig
    """The configuration in the paper's units."""
    config: RunConfig
    """The configuration at this scale, without a seed (0); `run_config` sets one."""
    run_as: str
    """Variant whose runs it shares: itself, or the experiment's first one of the same configuration at this scale."""
    seeds: int
    """Number of runs, each with a seed of its own."""

    @property
    def cell(self) -> str:
        """`<dataset>/<variant>`, the folder of its runs. Variants with the same cell share all runs."""
        return f"{self.dataset}/{self.run_as}"

    def run_name(self, k: int) -> str:
        """Return the name of the k-th run, `<dataset>/<variant>/seed<k>`, which is also its folder."""
        return f"{self.cell}/seed{k}"

    def run_config(self, k: int) -> RunConfig:
        """Return the configuration of the k-th run. Its seed, of 32 bits, depends on `seed_group` and k only."""
        digest = hashlib.blake2b(f"{self.seed_group} {k}".encode(), digest_size=4).digest()
        return self.config.model_copy(update={"seed": int.from_bytes(digest)})

    @cached_property
    def seed_group(self) -> str:
        """Name of the variants whose k-th runs use the same seed: those that differ in nothing but `SHARED_SEED_FIELDS`.

        Runs with the same seed start from the same random draws and see the same clips, so they can be compared in pairs. All
        other variants have seeds of their own and are independent replicates.
        """
        meaning = self.config.model_dump(mode="json", exclude={"seed": True, "training": {"out_of_memory"}})
        kept = {name: {n: v for n, v in section.items() if n not in SHARED_SEED_FIELDS} for name, section in meaning.items()}
        return hashlib.blake2b(json.dumps(kept, sort_keys=True).encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """One item of the paper, as its file states it, with its variants at a scale."""

    name: str
    title: str
    section: str
    item: str
    summary: str
    train: bool
    metrics: dict[str, list[str]]
    """By data set, in the order of the table's columns."""
    axes: list[str]
    """The fields varied, in the order of the table's columns."""
    share_of_epochs: dict[str, float]
    """By data set, the share of the stated epochs that runs train for at this scale."""
    selection: str
    published: list[PublishedEntry]
    """The paper's numbers for variants."""
    quoted: list[PublishedEntry]
    """The paper's numbers for models that the grid does not have."""
    curves: list[PublishedBand]
    """The paper's learning curves for variants."""
    drawn: list[PublishedData]
    """Published figures that numbers were read from."""
    table: TwoWayTable | None
    figure: Figure
    claims: list[Claim]
    variants: list[Variant]
    hash: str
    """Changes with the content of the experiment's file or the scale's."""
    waits_for: dict[str, str]
    """By data set, a file that is missing and how to get it."""

    @property
    def counts(self) -> bool:
        """True if some number is counted from the architecture, which needs no training.

        Claims about several models need counts as well: a scale may compare models only at their paper's relative sizes.
        """
        claimed = {metric for claim in self.claims for metric in claim.named_metrics}
        models = {variant.paper.model.model for variant in self.variants} if self.claims else {OURS}
        return not self.train or len(models) > 1 or bool(COUNTED_METRICS & {*claimed, *self.known_metrics})

    @property
    def timed(self) -> bool:
        """True if the experiment shows a metric that is measured for all variants side by side in one process."""
        return bool(TIMED_METRICS & set(self.known_metrics))

    @property
    def known_metrics(self) -> list[str]:
        """The metrics of all data sets, each once."""
        return list(dict.fromkeys(metric for metrics in self.metrics.values() for metric in metrics))

    def seeds_of(self, variant: Variant) -> int:
        """Return the number of runs of a variant, each with a seed of its own."""
        return variant.seeds if self.train else 0

    def runs_of(self, variant: Variant) -> list[str]:
        """Return the names of a variant's runs."""
        return [variant.run_name(k) for k in range(self.seeds_of(variant))]

    @property
    def seeds_by_cell(self) -> dict[str, int]:
        """Number of runs of each cell, which variants may share."""
        return {variant.cell: self.seeds_of(variant) for variant in self.variants}

    @property
    def run_names(self) -> list[str]:
        """All runs that the experiment needs."""
        return list(dict.fromkeys(itertools.chain(*map(self.runs_of, self.variants))))

    def all_printed(self, variant: Variant, corrected: bool = False) -> dict[str, PrintedNumber]:
        """Return the paper's numbers for a variant, by metric; `corrected` without known misprints."""
        coordinates = {"model": OURS} | variant.axes
        fitting = [entry for entry in self.published if entry.coordinates.items() <= coordinates.items()]
        found = [entry.numbers | (entry.corrected if corrected else {}) for entry in fitting]
        return {metric: number for numbers in found for metric, number in numbers.items()}

    def band(self, variant: Variant) -> PublishedBand | None:
        """Return the paper's learning curve for a variant, or None."""
        return next((band for band in self.curves if band.coordinates.items() <= variant.axes.items()), None)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All experiments at one scale, and the runs they need: each once, however many items use it."""

    scale: Scale
    experiments: dict[str, Experiment]
    runs: dict[str, RunConfig]

    @property
    def seeds(self) -> dict[str, int]:
        """Number of runs of each trained cell, however many experiments use it."""
        found: dict[str, int] = {}
        for experiment in self.experiments.values():
            for variant in experiment.variants if experiment.train else []:
                found[variant.cell] = max(found.get(variant.cell, 0), variant.seeds)
        return found

    @cached_property
    def hash(self) -> str:
        """Hash of the cells and claims, which changes with neither seeds nor words elsewhere."""
        cells = {v.cell: v.config.hash for e in self.experiments.values() if e.train for v in e.variants}
        claims = [claim.model_dump(mode="json", exclude={"note"}) for e in self.experiments.values() for claim in e.claims]
        content = json.dumps([cells, claims], sort_keys=True)
        return hashlib.blake2b(content.encode(), digest_size=8).hexdigest()

    def with_seeds(self, seeds: Mapping[str, int]) -> Self:
        """Return the plan with these numbers of runs by cell, for all experiments alike. Cells that are not named have none."""
        experiments: dict[str, Experiment] = {}
        runs: dict[str, RunConfig] = {}
        for name, experiment in self.experiments.items():
            variants = [replace(variant, seeds=seeds.get(variant.cell, 0)) for variant in experiment.variants]
            experiments[name] = replace(experiment, variants=variants)
            for variant in variants if experiment.train else []:
                runs |= {variant.run_name(k): variant.run_config(k) for k in range(variant.seeds)}
        return replace(self, experiments=experiments, runs=runs)

    def for_budget(self, seeds: Mapping[str, int]) -> Self:
        """Return the plan of a budget's rounds: `with_seeds`, looked at as the scale says or, if it does not, at `LOOKS`.

        Its scale says in its summary that a budget placed the seeds, because the numbers in the file's do not hold then.
        """
        summary = "Seeds placed in rounds by a budget of core hours, where they settle most sentences"
        scale = self.scale.model_copy(update={"looks": self.scale.looks or LOOKS, "summary": summary})
        return replace(self.with_seeds(seeds), scale=scale)

    def run(self, name: str) -> RunConfig:
        """Return a run's configuration. Raises `ExperimentError` for an unknown name, with the nearest known one."""
        return self.runs[check_known(f"scale {self.scale.name} has no run", name, self.runs)]

    def experiment(self, name: str) -> Experiment:
        """Return an experiment. Raises `ExperimentError` for an unknown name, with the nearest known one."""
        return self.experiments[check_known("no experiment", name, self.experiments)]
