"""Experiments with their variants at a scale, and the runs that they need."""

from dataclasses import dataclass, field
from typing import Any

from stlight.config import RunConfig
from stlight.experiments.claim_types import Claim
from stlight.experiments.experiment_file import PublishedEntry
from stlight.experiments.figure_types import Figure, TwoWayTable
from stlight.experiments.printed_number import PrintedNumber
from stlight.experiments.scaling import Scale
from stlight.experiments.yaml_files import ExperimentError, nearest
from stlight.registry.metric_specs import COUNTED_METRICS, TIMED_METRICS
from stlight.registry.model_specs import OURS


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
    """The configuration at this scale, for seed 0."""
    run_as: str
    """Variant whose runs it shares: itself, or the experiment's first one of the same configuration at this scale."""

    def run_name(self, seed: int) -> str:
        """Return `<dataset>/<variant>/seed<k>`, which is also the run's folder."""
        return f"{self.dataset}/{self.run_as}/seed{seed}"

    def run_config(self, seed: int) -> RunConfig:
        """Return the configuration of one run."""
        return self.config.model_copy(update={"seed": seed})


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
    share_of_epochs: float
    """Share of the stated epochs that runs train for at this scale."""
    seeds: int
    selection: str
    published: list[PublishedEntry]
    """The paper's numbers for variants."""
    quoted: list[PublishedEntry]
    """The paper's numbers for models that the grid does not have."""
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
        """True if some number is counted from the architecture, which needs no training."""
        claimed = {metric for claim in self.claims for metric in claim.metrics}
        return not self.train or bool(COUNTED_METRICS & {*claimed, *self.known_metrics})

    @property
    def timed(self) -> bool:
        """True if the experiment shows a metric that is measured for all variants side by side in one process."""
        return bool(TIMED_METRICS & set(self.known_metrics))

    @property
    def known_metrics(self) -> list[str]:
        """The metrics of all data sets, each once."""
        return list(dict.fromkeys(metric for metrics in self.metrics.values() for metric in metrics))

    @property
    def run_names(self) -> list[str]:
        """All runs that the experiment needs."""
        names = [v.run_name(seed) for v in self.variants for seed in range(self.seeds)] if self.train else []
        return list(dict.fromkeys(names))

    def printed(self, variant: Variant, metric: str) -> PrintedNumber | None:
        """Return the paper's number for a variant, or None."""
        return self.all_printed(variant).get(metric)

    def all_printed(self, variant: Variant) -> dict[str, PrintedNumber]:
        """Return the paper's numbers for a variant, by metric."""
        coordinates = {"model": OURS} | variant.axes
        fitting = [entry for entry in self.published if entry.coordinates.items() <= coordinates.items()]
        return {metric: number for entry in fitting for metric, number in entry.numbers.items()}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All experiments at one scale, and the runs they need: each once, however many items use it."""

    scale: Scale
    experiments: dict[str, Experiment]
    runs: dict[str, RunConfig] = field(default_factory=dict)

    def run(self, name: str) -> RunConfig:
        """Return a run's configuration. Raises `ExperimentError` for an unknown name, with the nearest known one."""
        if name not in self.runs:
            raise ExperimentError(f"no run {name!r} at scale {self.scale.name}{nearest(name, self.runs)}")
        return self.runs[name]

    def experiment(self, name: str) -> Experiment:
        """Return an experiment. Raises `ExperimentError` for an unknown name, with the nearest known one."""
        if name not in self.experiments:
            raise ExperimentError(f"no experiment {name!r}{nearest(name, self.experiments)}")
        return self.experiments[name]
