"""Load all experiments at a scale: read their files, expand their grids into variants, and check what they refer to."""

import hashlib
import itertools
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from stlight.config import DEFAULTS, ConfigError, RunConfig
from stlight.experiments.field_types import SCALE_FIELDS
from stlight.experiments.grid_cells import cells_of
from stlight.experiments.plan import Experiment, ExperimentFile, Plan, Variant
from stlight.experiments.published_data import PublishedEntry, read_curves, read_points, read_text
from stlight.experiments.scaling import Scale, ScaleFile
from stlight.experiments.yaml_files import ExperimentError, as_text, check_known, read_file, state
from stlight.registry.dataset_specs import DATASETS, base_of
from stlight.registry.metric_specs import COUNTED_METRICS
from stlight.registry.model_specs import OURS

BASE = "stlight_l"
"""Name of the variant that differs from a data set's base in nothing."""

_SHORT = {
    "hidden_dim": "dim",
    "initialization": "init",
    "max_lr": "lr",
    "final_div_factor": "fdf",
    "num_epochs": "epochs",
    "batch_size": "batch",
    "patch_size": "patch",
}
"""Short forms of fields in the names of variants. Every other field has its own name."""
_NAME = re.compile(r"\w[\w-]*")
_LONGEST_NAME = 200
"""Bytes. File systems take 255, and a file that is being written has a longer name."""
MAX_RUNS = 20_000
"""Runs of all experiments, and points of one grid. Snakemake takes about a minute for a DAG of as many jobs."""


def load_plan(workflow: Path, scale: str, data_root: Path = Path("data"), experiments_folder: str = "experiments") -> Plan:
    """Load and check all files under `workflow` without training anything. Raises `ExperimentError`, in one line."""
    the_scale = load_scale(workflow, scale, data_root)
    folder = workflow / experiments_folder
    files = sorted(path for path in folder.glob("*") if _is_meant(path))
    if not files:
        raise ExperimentError(f"{folder} holds no .yaml file: one is needed for each experiment")
    for path in files:
        if not _NAME.fullmatch(path.stem) or path.suffix != ".yaml":
            raise ExperimentError(f"{path}: an experiment's file is named with letters, digits, _ and -, and ends in .yaml")
    loaded = {path.stem: _load_experiment(path, workflow, the_scale, data_root) for path in files}
    experiments = {name: experiment for name, experiment in loaded.items() if experiment}
    if (asked := sum(sum(e.seeds_by_cell.values()) for e in experiments.values())) > MAX_RUNS:
        largest = max(experiments.values(), key=lambda e: sum(e.seeds_by_cell.values()))
        path, most = folder / f"{largest.name}.yaml", sum(largest.seeds_by_cell.values())
        raise ExperimentError(f"{path}: asks for {most} runs, all experiments for {asked}; at most {MAX_RUNS} are possible")
    claimed: dict[str, str] = {}
    runs: dict[str, RunConfig] = {}
    for name, experiment in experiments.items():
        for claim in experiment.claims:
            if claim.id in claimed:
                path = folder / f"{name}.yaml"
                raise ExperimentError(f"{path}: claims: the id {claim.id!r} is given twice (also in {claimed[claim.id]})")
            claimed[claim.id] = name
        for variant in experiment.variants:
            for k, run in enumerate(experiment.runs_of(variant)):
                config = variant.run_config(k)
                if runs.setdefault(run, config) != config:
                    raise ExperimentError(f"{name}: two configurations would both be called {run!r}")
    for number, more in enumerate(the_scale.more_seeds):
        place = f"{workflow / 'scales' / scale}.yaml: more_seeds[{number}]"
        trained = [name for name, experiment in experiments.items() if experiment.train]
        if experiments_folder != "experiments" and more.experiment not in trained:
            continue
        experiment = experiments[check_known(f"{place}: no experiment trained at this scale", more.experiment, trained)]
        for axis in more.where:
            check_known(f"{place}.where: unknown axis", axis, experiment.axes)
        if not any(more.applies_to(experiment.name, variant.axes) for variant in experiment.variants):
            raise ExperimentError(f"{place}.where: no cell has {state(more.where)}")
    return Plan(scale=the_scale, experiments=experiments, runs=runs)


def load_scale(workflow: Path, name: str, data_root: Path = Path("data")) -> Scale:
    """Load and check a scale. Raises `ExperimentError`, in one line."""
    path = workflow / "scales" / f"{name}.yaml"
    # The name is also a folder under the results, so it must not lead out of them.
    if not _NAME.fullmatch(name) or len(name.encode()) > _LONGEST_NAME or not path.is_file():
        raise ExperimentError(f"no scale {name!r}; the scales are {', '.join(_scales(workflow))}")
    return Scale.from_file(name, read_file(path, ScaleFile), data_root)


def _scales(workflow: Path) -> list[str]:
    return sorted(path.stem for path in (workflow / "scales").glob("*.yaml"))


def _is_meant(path: Path) -> bool:
    """Return True for whatever looks like an experiment, also a folder of them or Z.YAML, so that none is silently left out."""
    return not path.name.startswith(".") and (path.is_dir() or bool(re.search(r"\.y\w*ml", path.name, re.IGNORECASE)))


def _check_length(place: str, name: str) -> None:
    """Raise `ExperimentError` for a name that is too long for a folder or file of the results."""
    if (length := len(name.encode())) > _LONGEST_NAME:
        raise ExperimentError(f"{place} has {length} bytes, at most {_LONGEST_NAME} are possible: {name}")


def _load_experiment(path: Path, workflow: Path, scale: Scale, data_root: Path) -> Experiment | None:
    """Return None if the experiment is not for this scale."""
    file = read_file(path, ExperimentFile)
    axes = list(dict.fromkeys(name for grid in file.grid for name in grid))
    for key, names in (("shorter", file.shorter), ("scales", file.scales)):
        for name in names:
            check_known(f"{path}: {key}: no scale", name, _scales(workflow))
    if file.scales and scale.name not in file.scales:
        return None
    shorter = file.shorter.get(scale.name, 1.0)
    if (points := sum(math.prod(map(len, grid.values())) for grid in file.grid)) > MAX_RUNS:
        raise ExperimentError(f"{path}: grid: has {points} points; at most {MAX_RUNS} are possible")
    _check_length(f"{path}: the file's name", path.stem)
    for name in file.data_sets:
        _check_length(f"{path}: data_sets: a name", name)

    variants: dict[str, Variant] = {}
    run_as: dict[RunConfig, str] = {}
    seeds: dict[str, int] = {}
    for point in (dict(zip(grid, values, strict=True)) for grid in file.grid for values in itertools.product(*grid.values())):
        try:
            variant = _variant(file.base | point, axes, scale, file)
        except ConfigError as error:
            raise ExperimentError(f"{path}: at {state(point)}: {error}") from error
        _check_length(f"{path}: at {state(point)}: the name of its runs", variant.name)
        run = run_as.setdefault(variant.config, variant.name)
        is_trained = scale.trains(variant.config.model.model, variant.dataset)
        wanted = scale.seeds_of(path.stem, variant.axes, at_least=file.seeds) if is_trained else 0
        wanted = min(wanted, file.max_seeds or wanted)
        variant = replace(variant, run_as=run)
        seeds[variant.cell] = max(seeds.get(variant.cell, 0), wanted)
        other = variants.setdefault(f"{variant.dataset}/{variant.name}", variant)
        if other.paper != variant.paper:
            # Not as `state` has them, which rounds as the name does.
            both = (", ".join(f"{axis} = {value!r}" for axis, value in v.axes.items()) for v in (other, variant))
            raise ExperimentError(f"{path}: grid: {' and '.join(both)} would both be called {variant.name!r}")

    datasets = dict.fromkeys(variant.dataset for variant in variants.values())
    for name in shorter if isinstance(shorter, dict) else ():
        check_known(f"{path}: shorter.{scale.name}: the grid has no data set", name, datasets)
    models = {OURS, *(variant.axes.get("model", OURS) for variant in variants.values())}
    drawn = [data for data in (file.published_points, file.published_curves) if data]
    published = file.published + (read_points(file.published_points, workflow, axes) if file.published_points else [])
    content = [*(stated.model_dump(mode="json") for stated in (file, scale)), *(read_text(data, workflow) for data in drawn)]
    same = ("title", "summary", "train", "selection", "table", "figure")
    experiment = Experiment(
        **{name: getattr(file, name) for name in same},
        name=path.stem,
        section=file.paper.section,
        item=file.paper.item,
        metrics=file.metrics if isinstance(file.metrics, dict) else dict.fromkeys(datasets, file.metrics),
        axes=axes,
        share_of_epochs={dataset: _share(shorter, dataset) for dataset in datasets},
        published=[entry for entry in published if (entry.model or OURS) in models],
        quoted=[entry for entry in published if (entry.model or OURS) not in models],
        curves=read_curves(file.published_curves, workflow, axes) if file.published_curves else [],
        drawn=drawn,
        claims=[claim.model_copy(update={"section": claim.section or file.paper.section}) for claim in file.claims],
        variants=[replace(variant, seeds=seeds[variant.cell]) for variant in variants.values()],
        waits_for=_missing_data({v.dataset for v in variants.values() if v.config.data.source == "files"}, data_root),
        hash=hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16],
    )
    try:
        _check(experiment, published)
    except ValueError as error:
        raise ExperimentError(f"{path}: {error}") from error
    return experiment


def _share(shorter: float | dict[str, float], dataset: str) -> float:
    """Return the share of the stated epochs that runs on a data set train for."""
    return shorter.get(dataset, 1.0) if isinstance(shorter, dict) else shorter


def _variant(stated: dict[str, Any], axes: list[str], scale: Scale, file: ExperimentFile) -> Variant:
    dataset = stated.get("dataset", DEFAULTS["dataset"])
    model = stated.get("model", OURS)
    of_size = {"model": OURS} if dataset in DATASETS and model in DATASETS[dataset].sizes else {}
    custom = file.data_sets[dataset].fields if dataset in file.data_sets else {"source": "files"}
    paper = RunConfig.from_fields(base_of(dataset, model) | stated | custom | of_size)
    fields = paper.fields
    share_of_epochs = _share(file.shorter.get(scale.name, 1.0), dataset)
    config = RunConfig.from_fields(scale.resolve(fields, share_of_epochs))
    trained = fields | {"num_epochs": max(1, round(fields["num_epochs"] * share_of_epochs))}
    usual = DEFAULTS | base_of(dataset, paper.model.model)
    differing = {n: v for n, v in trained.items() if v != usual[n] and n not in (*SCALE_FIELDS, "dataset")}
    # No comma, because Snakemake cuts the name there when it hands a job to a cluster.
    name = "+".join(f"{_SHORT.get(n, n)}={as_text(v)}" for n, v in differing.items()) or BASE
    points = fields | {"model": model}
    return Variant(
        dataset=dataset, name=name, axes={n: points[n] for n in axes}, paper=paper, config=config, run_as=name, seeds=1
    )


def _missing_data(datasets: set[str], data_root: Path) -> dict[str, str]:
    waits_for = {}
    for dataset in datasets:
        files = DATASETS[dataset].files if dataset in DATASETS else (f"{dataset}/train.npy", f"{dataset}/test.npy")
        missing = [data_root / name for name in files if not (data_root / name).exists()]
        if missing and not (data_root / "prepared" / f"{dataset}-files.npz").exists():
            remedy = f"python -m stlight fetch {dataset}" if dataset in DATASETS else "put your clips there"
            waits_for[dataset] = f"{missing[0]}: {remedy}"
    return waits_for


def _check(experiment: Experiment, published: list[PublishedEntry]) -> None:
    """Raise `ValueError` if the file refers to an axis, a metric or a grid point that the experiment does not have."""
    datasets = list(dict.fromkeys(variant.dataset for variant in experiment.variants))
    if set(experiment.metrics) != set(datasets):
        raise ValueError(f"metrics: given for {', '.join(experiment.metrics)}, the grid has {', '.join(datasets)}")
    if not experiment.train and not set(experiment.known_metrics) <= COUNTED_METRICS:
        raise ValueError(f"metrics: train: false can only have {', '.join(sorted(COUNTED_METRICS))}")
    for variant in experiment.variants:
        named = [*experiment.metrics[variant.dataset], *(metric for claim in experiment.claims for metric in claim.metrics)]
        if "lpips" in named and not variant.config.training.lpips:
            raise ValueError("metrics: lpips is measured only with base: {lpips: true}")
    _check_published(experiment, published)
    experiment.figure.check(experiment)
    if experiment.table:
        experiment.table.check(experiment)
    cells = cells_of(experiment)
    for number, claim in enumerate(experiment.claims):
        try:
            claim.check(cells, experiment.axes, experiment.train)
        except ValueError as error:
            raise ValueError(f"claims[{number}] ({claim.id}): {error}") from error


def _check_published(experiment: Experiment, published: list[PublishedEntry]) -> None:
    metrics: list[str] = experiment.known_metrics
    seen: list[Any] = []
    for band in experiment.curves:
        cells = sum(band.coordinates.items() <= variant.axes.items() for variant in experiment.variants)
        if cells != 1:
            raise ValueError(f"published_curves: {cells} points of the grid have {state(band.coordinates)}, one must have them")
        if band.coordinates in seen:
            raise ValueError(f"published_curves: the curve at {state(band.coordinates)} is published twice")
        seen.append(band.coordinates)
    for number, entry in enumerate(published):
        place = f"published[{number}]"
        unknown = (entry.numbers.keys() - set(metrics)) | (entry.coordinates.keys() - {*experiment.axes, "model"})
        if unknown:
            raise ValueError(f"{place}: {min(unknown)!r} is neither an axis of the grid nor one of the metrics")
        if misplaced := entry.corrected.keys() - entry.numbers.keys():
            raise ValueError(f"{place}.corrected: {min(misplaced)!r} is not one of its numbers, {', '.join(entry.numbers)}")
        if not entry.numbers:
            raise ValueError(f"{place}: gives none of the metrics {', '.join(sorted(metrics))}")
        coordinates = {axis: value for axis, value in entry.coordinates.items() if axis in experiment.axes}
        fitting = [variant.axes for variant in experiment.variants if coordinates.items() <= variant.axes.items()]
        if entry not in experiment.quoted and len(fitting) != 1:
            found = f"{len(fitting)} points of the grid have" if fitting else "no point of the grid has"
            raise ValueError(f"{place}: {found} {state(coordinates)}" + (": name every axis" if fitting else ""))
        # Two entries may state one cell in different words, with or without an axis that has one value.
        cell = entry.coordinates if entry in experiment.quoted else fitting[0]
        for metric in entry.numbers:
            if (metric, cell) in seen:
                raise ValueError(f"{place}.{metric}: this cell is published twice")
            seen.append((metric, cell))
