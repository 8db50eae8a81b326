"""From experiment and scale files to runs: what is varied, what it is called, and what is trained only once.

An experiment speaks in the paper's units; a scale says what the paper's base becomes, and every value stated in an experiment
follows in proportion. A variant is therefore called the same at every scale. Imports no torch.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stlight.config import DEFAULTS, SECTION_OF_FIELD, ConfigError, ModelConfig, RunConfig
from stlight.experiments.claims import Claim, cells_of, check_claims, read_claims
from stlight.experiments.yaml_files import ExperimentError, as_text, nearest, published_entries, read_yaml
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.metric_specs import COUNTED_METRICS, TIMED_METRICS
from stlight.registry.model_specs import OURS

# Set by the scale for each data set, never by an experiment.
CLIP_COUNTS = ("clips_per_epoch", "validation_clips", "test_clips")
SCALE_FIELDS = ("source", "own_shape", *CLIP_COUNTS)

# Fields that a scale changes in proportion to another one.
_FOLLOWS = {
    "warmup_epochs": "num_epochs",
    "warmup_lr": "max_lr",
    "min_lr": "max_lr",
    "baseline_width": "hidden_dim",
    "baseline_depth": "depth",
}

# Fields of the model that are not the other kind of model's.
_OF_BASELINES = ("baseline_width", "baseline_depth")
_OF_STLIGHT = tuple(name for name in ModelConfig.model_fields if name not in ("model", *_OF_BASELINES))

# Short forms in variant names; every other field is called by its own name.
_SHORT = {
    "hidden_dim": "dim",
    "initialization": "init",
    "max_lr": "lr",
    "final_div_factor": "fdf",
    "num_epochs": "epochs",
    "batch_size": "batch",
    "patch_size": "patch",
}

# The keys that each kind of figure takes.
_FIGURE_KEYS = {
    "heatmap": ("x", "y", "metric"),
    "lines": (),
    "bars": (),
    "dots": (),
    "curves": ("hue", "y"),
    "scatter": ("x", "y", "hue"),
    "tradeoff": ("y",),
    "growth": (),
}


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How big the experiments are run."""

    name: str
    summary: str
    base: dict[str, Any]
    """What the paper's values become; stated values of the same fields follow in proportion."""
    data: dict[str, dict[str, Any]]
    """Source and numbers of clips, for each data set."""
    own: dict[str, int]
    """No more clips than these of a data set of one's own."""
    compute: dict[str, Any]
    """How runs compute (kernels, precision), where an experiment does not say."""
    seeds: int
    """Seeds per variant, unless an experiment asks for more."""
    max_seeds: int | None
    """No experiment gets more seeds than this."""

    def resolve(self, paper_fields: dict[str, Any], share_of_epochs: float = 1.0) -> dict[str, Any]:
        """Fields in the paper's units → fields as they are run at this scale, for a share of the epochs."""
        dataset, ours = paper_fields["dataset"], paper_fields["model"] == OURS
        epochs = max(1, round(paper_fields["num_epochs"] * share_of_epochs))
        fields = {name: self._in_proportion(name, value) for name, value in (paper_fields | {"num_epochs": epochs}).items()}
        fields |= {name: paper_fields[name] for name in (_OF_BASELINES if ours else _OF_STLIGHT)}
        if not ours:
            # The same share of the run's steps as the paper's.
            share = fields["num_epochs"] / paper_fields["num_epochs"] * self._steps_per_epoch() / _steps_per_epoch(DEFAULTS)
            fields["sampling_steps"] = max(1, round(paper_fields["sampling_steps"] * share))
        compute = self.compute if ours else {n: v for n, v in self.compute.items() if n not in ("kernels", "cuda_graphs")}
        fields |= {name: value for name, value in compute.items() if paper_fields[name] == DEFAULTS[name]}
        patch_area = fields["patch_size"] ** 2
        if ours and paper_fields["hidden_dim"] % paper_fields["patch_size"] ** 2 == 0:
            # A width that the paper's patches divide stays one; for either decoder, so that pairs keep one width.
            fields["hidden_dim"] = max(1, math.floor(fields["hidden_dim"] / patch_area + 0.5)) * patch_area
        # A short training has no epoch to spare for a warm-up.
        fields["warmup_epochs"] = min(fields["warmup_epochs"], fields["num_epochs"] - 1)
        if dataset in DATASETS:
            return fields | self.data[dataset]
        return fields | {name: min(fields[name], self.own.get(name, fields[name])) for name in CLIP_COUNTS}

    def _steps_per_epoch(self) -> float:
        """Of the base run."""
        return _steps_per_epoch(DEFAULTS | self.data.get("mmnist", {}) | self.base)

    def _in_proportion(self, name: str, value: Any) -> Any:
        base = _FOLLOWS.get(name, name)
        if base not in self.base:
            return value
        scaled = value * self.base[base] / DEFAULTS[base]
        # Twelve digits: 0.003 × 0.01 / 0.001 should read 0.03.
        if name in _OF_BASELINES:
            return min(1.0, float(f"{scaled:.12g}"))
        least = 0 if base != name else 1
        return max(least, math.floor(scaled + 0.5)) if isinstance(DEFAULTS[name], int) else float(f"{scaled:.12g}")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One grid point of an experiment."""

    dataset: str
    name: str
    """Short, unique within its data set, the same at every scale at which it is trained for as many epochs as it states."""
    axes: dict[str, Any]
    """Its place on the experiment's axes, in the paper's units."""
    paper: RunConfig
    """The configuration as the paper would run it."""
    config: RunConfig
    """The configuration at the scale in hand, for seed 0."""

    def run_name(self, seed: int) -> str:
        """`<dataset>/<variant>/seed<k>`, also the run's folder."""
        return f"{self.dataset}/{self.name}/seed{seed}"

    def run_config(self, seed: int) -> RunConfig:
        """The configuration of one run."""
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
    """The metrics of each data set."""
    axes: list[str]
    """The fields varied, in the order of the table's columns."""
    share_of_epochs: float
    """Of the epochs that it states, those that its runs are trained for at this scale."""
    seeds: int
    selection: str
    published: list[dict[str, Any]]
    """The paper's numbers for variants: each entry gives axis values and metrics, as printed."""
    quoted: list[dict[str, Any]]
    """Those of models that the grid does not have, by name."""
    table: dict[str, Any]
    figure: dict[str, Any]
    claims: list[Claim]
    variants: list[Variant]
    hash: str
    """Changes with anything its tables and figures show: the experiment's file or the scale's."""
    waits_for: dict[str, str]
    """By data set, a file that is not there and what to do about it."""

    @property
    def counts(self) -> bool:
        """Whether some number is counted from the architecture, which needs no training."""
        named = [*self.metrics.values(), *(claim.metrics for claim in self.claims)]
        return not self.train or any(m in COUNTED_METRICS for names in named for m in names)

    @property
    def timed(self) -> bool:
        """True if the experiment shows a metric that is measured for all variants side by side in one process."""
        return any(metric in TIMED_METRICS for names in self.metrics.values() for metric in names)

    @property
    def run_names(self) -> list[str]:
        """Every run it needs."""
        return [v.run_name(seed) for v in self.variants for seed in range(self.seeds)] if self.train else []


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All experiments at one scale, and the runs they need: each once, however many items use it."""

    scale: Scale
    experiments: dict[str, Experiment]
    runs: dict[str, RunConfig] = field(default_factory=dict)

    def run(self, name: str) -> RunConfig:
        """A run's configuration. Raises `ExperimentError` for an unknown name, with the nearest known one."""
        if name not in self.runs:
            raise ExperimentError(f"no run {name!r} at scale {self.scale.name}{nearest(name, self.runs)}")
        return self.runs[name]

    def experiment(self, name: str) -> Experiment:
        """An experiment. Raises `ExperimentError` for an unknown name, with the nearest known one."""
        if name not in self.experiments:
            raise ExperimentError(f"no experiment {name!r}{nearest(name, self.experiments)}")
        return self.experiments[name]


_NAME = re.compile(r"\w[\w-]*")


def load_plan(workflow: Path, scale: str, data_root: Path = Path("data")) -> Plan:
    """Read and check every file under `workflow`; nothing is trained. Raises `ExperimentError`, in one line."""
    the_scale = load_scale(workflow, scale, data_root)
    files = sorted((workflow / "experiments").glob("*.yaml"))
    if not files:
        raise ExperimentError(f"{workflow / 'experiments'} holds no .yaml file: one is needed for each experiment")
    for path in files:
        if not _NAME.fullmatch(path.stem):
            raise ExperimentError(f"{path}: the name of an experiment is made of letters, digits, _ and -")
    for path in (workflow / "experiments").glob("*.yml"):
        raise ExperimentError(f"{path}: would not be read: rename it to {path.stem}.yaml")
    experiments = {path.stem: _load_experiment(path, workflow, the_scale, data_root) for path in files}
    _check_claim_names(workflow, experiments)
    runs: dict[str, RunConfig] = {}
    for experiment in experiments.values():
        for variant in experiment.variants if experiment.train else []:
            for seed in range(experiment.seeds):
                name, config = variant.run_name(seed), variant.run_config(seed)
                if runs.setdefault(name, config) != config:
                    raise ExperimentError(f"{experiment.name}: two configurations would both be called {name!r}")
    return Plan(scale=the_scale, experiments=experiments, runs=runs)


def _check_claim_names(workflow: Path, experiments: dict[str, Experiment]) -> None:
    places: dict[str, str] = {}
    for experiment in experiments.values():
        for claim in experiment.claims:
            if (
                places.setdefault(claim.id, experiment.name) != experiment.name
                or sum(other.id == claim.id for other in experiment.claims) > 1
            ):
                path = workflow / "experiments" / f"{experiment.name}.yaml"
                raise ExperimentError(f"{path}: claims: the id {claim.id!r} is given twice (also in {places[claim.id]})")


def load_scale(workflow: Path, name: str, data_root: Path = Path("data")) -> Scale:
    """Read and check a scale file. Its source `auto` means the benchmark's files where they lie, else what needs none."""
    path = workflow / "scales" / f"{name}.yaml"
    # The name is a folder under the results, and must stay one.
    if not _NAME.fullmatch(name) or not path.is_file():
        known = ", ".join(sorted(p.stem for p in (workflow / "scales").glob("*.yaml")))
        raise ExperimentError(f"no scale {name!r}; the scales are {known}")
    content = read_yaml(path, workflow / "schemas" / "scale.schema.json")
    base, patch_area = content["base"], content["base"]["patch_size"] ** 2
    if base["hidden_dim"] % patch_area:
        raise ExperimentError(f"{path}: base: hidden_dim {base['hidden_dim']} must be divisible by patch_size² = {patch_area}")
    data, own = {}, content["data"].pop("own", {})
    for dataset, settings in content["data"].items():
        if settings.get("source") == "auto":
            present = all((data_root / file).exists() for file in DATASETS[dataset].files)
            settings = settings | {"source": "files" if present else DATASETS[dataset].fallback}
        data[dataset] = settings
    return Scale(
        name=name,
        summary=content["summary"],
        base=base,
        data=data,
        own=own,
        compute=content.get("compute", {}),
        seeds=int(content["seeds"]),
        max_seeds=int(content["max_seeds"]) if "max_seeds" in content else None,
    )


def _load_experiment(path: Path, workflow: Path, scale: Scale, data_root: Path) -> Experiment:
    content = read_yaml(path, workflow / "schemas" / "experiment.schema.json")
    grids = content["grid"] if isinstance(content["grid"], list) else [content["grid"]]
    base = content.get("base", {})
    axes = list(dict.fromkeys(name for grid in grids for name in grid))
    share_of_epochs = _share_of_epochs(path, content, workflow, scale)
    for place, names in [("base", base), *((f"grid[{i}]", grid) for i, grid in enumerate(grids))]:
        _check_fields(path, place, names)

    variants: dict[str, Variant] = {}
    for point in _grid_points(grids):
        try:
            variant = _variant(base | point, axes, scale, content.get("data_sets", {}), share_of_epochs)
        except ConfigError as error:
            raise ExperimentError(f"{path}: at {_state(point)}: {error}") from error
        variants[variant.run_name(0)] = variant

    datasets = list(dict.fromkeys(variant.dataset for variant in variants.values()))
    stated = content["metrics"]
    metrics_of = stated if isinstance(stated, dict) else dict.fromkeys(datasets, stated)
    # JSON Schema takes 2.0 for an integer.
    seeds = max(scale.seeds, int(content.get("seeds", 1)))
    known = {metric for names in metrics_of.values() for metric in names}
    entries = published_entries(path, content, known)
    models = {variant.axes["model"] for variant in variants.values() if "model" in variant.axes}
    quoted = [entry for entry in entries if entry.get("model", OURS) not in models | {OURS}]
    experiment = Experiment(
        name=path.stem,
        title=content["title"],
        section=content["paper"]["section"],
        item=content["paper"]["item"],
        summary=content["summary"],
        train=content.get("train", True),
        metrics=metrics_of,
        axes=axes,
        share_of_epochs=share_of_epochs,
        seeds=min(seeds, scale.max_seeds or seeds),
        selection=content.get("selection", "last"),
        published=[entry for entry in entries if entry not in quoted],
        quoted=quoted,
        table=content.get("table", {}),
        figure=content["figure"],
        claims=read_claims(path, content),
        variants=list(variants.values()),
        waits_for=_missing_data({v.dataset for v in variants.values() if v.config.data.source == "files"}, data_root),
        hash=_hash([content, dataclasses.asdict(scale)]),
    )
    _check_places(path, experiment, datasets, entries)
    _check_lpips(path, experiment)
    cells = cells_of(experiment.variants, experiment.published, quoted, known)
    check_claims(path, experiment.claims, cells, axes, experiment.train)
    return experiment


def _share_of_epochs(path: Path, content: dict[str, Any], workflow: Path, scale: Scale) -> float:
    shorter = content.get("shorter", {})
    known = [file.stem for file in (workflow / "scales").glob("*.yaml")]
    for name in shorter:
        if name not in known:
            raise ExperimentError(f"{path}: shorter: no scale {name!r}{nearest(name, known)}")
    return float(shorter.get(scale.name, 1.0))


def _missing_data(datasets: set[str], data_root: Path) -> dict[str, str]:
    waits_for = {}
    for dataset in datasets:
        files = DATASETS[dataset].files if dataset in DATASETS else (f"{dataset}/train.npy", f"{dataset}/test.npy")
        missing = [data_root / name for name in files if not (data_root / name).exists()]
        if missing and not (data_root / "prepared" / f"{dataset}-files.npz").exists():
            remedy = f"python -m stlight fetch {dataset}" if dataset in DATASETS else "put your clips there"
            waits_for[dataset] = f"{missing[0]}: {remedy}"
    return waits_for


def _variant(
    stated: dict[str, Any], axes: list[str], scale: Scale, own: dict[str, dict[str, int]], share_of_epochs: float
) -> Variant:
    dataset = stated.get("dataset", DEFAULTS["dataset"])
    protocol = DATASETS[dataset].protocol if dataset in DATASETS else {}
    of_dataset: dict[str, Any] = {"source": "files"}
    if dataset in own:
        of_dataset["own_shape"] = ClipShape(*(own[dataset][name] for name in ClipShape._fields))
        of_dataset |= {name: own[dataset][name] for name in CLIP_COUNTS}
    paper = RunConfig.from_fields(protocol | stated | of_dataset)
    stated_fields = _flat(paper)
    config = RunConfig.from_fields(scale.resolve(stated_fields, share_of_epochs))
    trained = stated_fields | {"num_epochs": max(1, round(stated_fields["num_epochs"] * share_of_epochs))}
    usual = DEFAULTS | protocol
    differing = {n: v for n, v in trained.items() if v != usual[n] and n not in (*SCALE_FIELDS, "dataset")}
    # No comma: Snakemake would cut the name there when it hands a job to a cluster.
    name = "+".join(f"{_SHORT.get(n, n)}={as_text(v)}" for n, v in differing.items()) or "stlight_l"
    return Variant(dataset=dataset, name=name, axes={n: stated_fields[n] for n in axes}, paper=paper, config=config)


def _steps_per_epoch(fields: dict[str, Any]) -> float:
    return float(fields["clips_per_epoch"] / fields["batch_size"])


def _flat(config: RunConfig) -> dict[str, Any]:
    return {name: value for section in config.model_dump(exclude={"seed"}).values() for name, value in section.items()}


def _grid_points(grids: list[dict[str, list[Any]]]) -> Iterator[dict[str, Any]]:
    for grid in grids:
        for values in itertools.product(*grid.values()):
            yield dict(zip(grid, values, strict=True))


def _check_fields(path: Path, place: str, names: dict[str, Any]) -> None:
    for name in names:
        if name == "own_shape":
            raise ExperimentError(f"{path}: {place}: the shape of a data set of your own is stated under data_sets")
        if name in SCALE_FIELDS:
            raise ExperimentError(f"{path}: {place}: {name} is set by the scale, not by an experiment")
        if name not in SECTION_OF_FIELD:
            raise ExperimentError(f"{path}: {place}: unknown field {name!r}{nearest(name, SECTION_OF_FIELD)}")


def _check_places(path: Path, experiment: Experiment, datasets: list[str], entries: list[dict[str, Any]]) -> None:
    """Every published number and every axis named by a table or figure must have its place in the grid."""
    if set(experiment.metrics) != set(datasets):
        raise ExperimentError(f"{path}: metrics: given for {', '.join(experiment.metrics)}, the grid has {', '.join(datasets)}")
    known = {metric for names in experiment.metrics.values() for metric in names}
    for number, entry in enumerate(entries):
        quoted = entry in experiment.quoted
        keys = entry.keys() - {"model", "source"}
        unknown = keys - known - set(experiment.axes)
        if unknown:
            name = sorted(unknown)[0]
            raise ExperimentError(
                f"{path}: published[{number}]: {name!r} is neither an axis of the grid nor one of the metrics"
            )
        place = {axis: entry[axis] for axis in experiment.axes if axis in entry}
        if not known & entry.keys():
            raise ExperimentError(f"{path}: published[{number}]: gives none of the metrics {', '.join(sorted(known))}")
        cells = sum(place.items() <= variant.axes.items() for variant in experiment.variants)
        if not quoted and cells != 1:
            found = f"{cells} points of the grid have" if cells else "no point of the grid has"
            words = f"{found} {_state(place)}" + (": name every axis" if cells else "")
            raise ExperimentError(f"{path}: published[{number}]: {words}")
    _check_table_and_figure(path, experiment, known)


def _check_lpips(path: Path, experiment: Experiment) -> None:
    for variant in experiment.variants:
        named = [*experiment.metrics[variant.dataset], *(metric for claim in experiment.claims for metric in claim.metrics)]
        if "lpips" in named and not variant.config.training.lpips:
            raise ExperimentError(f"{path}: metrics: lpips is measured only with base: {{lpips: true}}")


def _check_table_and_figure(path: Path, experiment: Experiment, metrics: set[str]) -> None:
    """What a table or figure names must exist, and where it shows one value in a place there must be one."""
    kind = experiment.figure["kind"]
    given, wanted = experiment.figure.keys() - {"kind"}, set(_FIGURE_KEYS[kind])
    if given != wanted:
        words = ", ".join(_FIGURE_KEYS[kind]) or "nothing else"
        raise ExperimentError(f"{path}: figure: kind {kind} takes {words}, got {', '.join(sorted(given)) or 'nothing else'}")
    if kind == "tradeoff" and "model" not in experiment.axes:
        raise ExperimentError(f"{path}: figure: kind tradeoff compares models: the grid must have an axis model")
    if kind == "bars" and not {"dataset"} <= set(experiment.axes):
        raise ExperimentError(f"{path}: figure: kind bars compares models by data set: the grid must have an axis dataset")
    if (kind == "growth") == experiment.train:
        raise ExperimentError(f"{path}: figure: kind growth is for experiments with train: false, and they have no other")
    if not experiment.train and not metrics <= COUNTED_METRICS:
        raise ExperimentError(f"{path}: metrics: train: false can only have {', '.join(sorted(COUNTED_METRICS))}")
    if kind == "scatter" and experiment.figure["x"] != "num_params":
        raise ExperimentError(f"{path}: figure.x: kind scatter has num_params there, got {experiment.figure['x']!r}")
    axes = {*experiment.axes, *(["model"] if experiment.quoted else [])}
    places = {"table.rows": axes, "table.columns": axes, "figure.hue": axes, "figure.metric": metrics}
    places |= {"figure.x": axes, "figure.y": axes} if kind == "heatmap" else {"figure.y": metrics}
    for place, known in places.items():
        part, key = place.split(".")
        name = getattr(experiment, part).get(key)
        if name is not None and name not in known:
            raise ExperimentError(f"{path}: {place}: must be one of {', '.join(sorted(known))}, got {name!r}")
    grids = [("table", "rows", "columns")] if experiment.table else []
    grids += [("figure", "y", "x")] if kind == "heatmap" else []
    for part, row, column in grids:
        names = [getattr(experiment, part)[key] for key in (row, column)]
        cells = [tuple(variant.axes[name] for name in names) for variant in experiment.variants]
        if len(set(cells)) < len(cells):
            raise ExperimentError(f"{path}: {part}: several points of the grid share one cell of {names[0]} × {names[1]}")


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _state(fields: dict[str, Any]) -> str:
    return ", ".join(f"{name} = {as_text(value)}" for name, value in fields.items())
