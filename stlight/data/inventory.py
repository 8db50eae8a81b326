"""Take stock of the data under a data root without changing anything."""

import shutil
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from stlight.data.clips import DataError
from stlight.data.fetching.store import DatasetStore
from stlight.data.prepare import module_of
from stlight.data.prepared_files import open_prepared
from stlight.experiments import load_plan
from stlight.registry.dataset_specs import DATASETS


class _Need(NamedTuple):
    """What the runs of a scale need of a data set's files."""

    runs: int
    experiments: list[str]
    test_clips: int


class _Inspection(NamedTuple):
    """The state of one data set's files."""

    rows: list[list[str]]
    """Name, state and detail of each item."""
    problem: str
    """The problem to solve first, or ""."""
    megabytes_to_fetch: int


def print_inventory(workflow: Path, data_root: Path, scale: str) -> int:
    """Print the state of each file, then each problem with the runs that it stops at each scale, then the disk space needed.

    Returns 1 if a problem stops runs of the given scale, otherwise 0.
    """
    store = DatasetStore(workflow, data_root)
    scales = [path.stem for path in sorted((workflow / "scales").glob("*.yaml"))]
    # An unknown scale is an error that names the known ones.
    needs = {name: _needs(workflow, name, data_root) for name in dict.fromkeys([*scales, scale])}
    custom = {dataset for of_scale in needs.values() for dataset in of_scale if dataset not in DATASETS}
    rows: list[list[str]] = []
    problems: dict[str, str] = {}
    to_fetch = to_prepare = 0
    for dataset in (*DATASETS, *sorted(custom)):
        need = needs[scale].get(dataset)
        inspection = _inspect(store, dataset, need.test_clips if need else 0)
        rows += [[dataset, *row] for row in inspection.rows]
        to_fetch += inspection.megabytes_to_fetch
        if inspection.problem:
            problems[dataset] = inspection.problem
        try:
            open_prepared(data_root, dataset, "files")
            rows.append([dataset, "prepared", "yes", "all values were checked"])
        except DataError:
            to_prepare += DATASETS[dataset].prepared_megabytes if dataset in DATASETS else 0
            rows.append([dataset, "prepared", "not yet", ""])
    print(tabulate(rows, ["data set", f"under {data_root}", "state", "found"], disable_numparse=True))
    for dataset, problem in problems.items():
        print(f"\n{problem}")
        for name, of_scale in needs.items():
            if need := of_scale.get(dataset):
                print(f"  stops {need.runs} run{'s' * (need.runs > 1)} at scale {name}: {', '.join(need.experiments)}")
        if dataset in DATASETS and (fallback := DATASETS[dataset].fallback):
            print(f"  if a scale's source is auto, {fallback.replace('_', '-')} clips are used instead")
    existing = next(path for path in (data_root, *data_root.absolute().parents) if path.is_dir())
    free = shutil.disk_usage(existing).free / 1e6
    verdict = "" if free > to_fetch + to_prepare else ", which is not enough"
    print(f"\ndisk: about {to_fetch} MB to fetch and {to_prepare} MB to prepare; {free:.0f} MB free{verdict}")
    return int(any(dataset in needs[scale] for dataset in problems))


def _inspect(store: DatasetStore, dataset: str, test_clips: int) -> _Inspection:
    """Verify a data set's files and count its clips, of which `test_clips` test clips are needed."""
    rows: list[list[str]] = []
    problems: list[str] = []
    to_fetch = 0
    for source in store.sources(dataset) if dataset in DATASETS else ():
        path, (state, detail, _) = store.data_root / source.path, store.verify(source)
        rows.append([source.path, state, detail])
        if state == "wrong":
            problems.insert(0, f"{path} is wrong: {detail}")
        elif state == "missing":
            problems.append(f"{path} is missing: python -m stlight fetch {dataset}")
            to_fetch += source.megabytes
    if problems:
        return _Inspection(rows, problems[0], to_fetch)
    try:
        if dataset in DATASETS:
            (train, test), problem = store.check_counts(dataset)
        else:
            (train, test), problem = list(module_of(dataset).count(dataset, store.data_root)), ""
    except (DataError, OSError) as error:
        return _Inspection([*rows, ["content", "wrong", ""]], str(error), 0)
    if not problem and test_clips > test:
        problem = f"{store.data_root / dataset}: {dataset} has {test} test clips, the scale asks for {test_clips}"
    rows.append(["content", "wrong" if problem else "counted", f"{train} for training, {test} test clips"])
    return _Inspection(rows, problem, 0)


def _needs(workflow: Path, scale: str, data_root: Path) -> dict[str, _Need]:
    """Return what the runs of a scale need of each data set that they read from files."""
    plan = load_plan(workflow, scale, data_root)
    needs = {}
    for dataset in dict.fromkeys(c.data.dataset for c in plan.runs.values() if c.data.source == "files"):
        configs = [c for c in plan.runs.values() if c.data.dataset == dataset]
        users = [e.name for e in plan.experiments.values() if e.train and any(v.dataset == dataset for v in e.variants)]
        needs[dataset] = _Need(len(configs), users, max(c.data.test_clips for c in configs))
    return needs
