"""Take stock of the data under a data root without changing anything."""

import shutil
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from stlight.data.clips import DataError
from stlight.data.fetching.store import DatasetStore
from stlight.data.prepare import module_of, open_prepared
from stlight.experiments import load_plan
from stlight.registry.dataset_specs import DATASETS


class _Need(NamedTuple):
    """The needs of a scale's runs for one data set's files."""

    runs: int
    experiments: list[str]
    test_clips: int


def print_inventory(workflow: Path, data_root: Path, scale: str) -> int:
    """Print the state of each file, then each problem with the runs that it stops at each scale, then the disk space needed.

    Returns 1 if a problem stops runs of the given scale, otherwise 0.
    """
    store = DatasetStore(workflow, data_root)
    scales = [path.stem for path in sorted((workflow / "scales").glob("*.yaml"))]
    # Add the given scale, because loading an unknown one raises the error that lists the known ones.
    needs = {name: _needs(workflow, name, data_root) for name in dict.fromkeys([*scales, scale])}
    custom = sorted({dataset for of_scale in needs.values() for dataset in of_scale} - set(DATASETS))
    rows: list[list[str]] = []
    problems: dict[str, str] = {}
    to_fetch = to_prepare = 0
    for dataset in (*DATASETS, *custom):
        for source in store.sources(dataset) if dataset in DATASETS else ():
            path, (state, detail, _) = data_root / source.path, store.verify(source)
            rows.append([dataset, source.path, state, detail])
            if state == "wrong":
                problems[dataset] = f"{path} is wrong: {detail}"
            elif state == "missing":
                problems.setdefault(dataset, f"{path} is missing: python -m stlight fetch {dataset}")
                to_fetch += source.megabytes
        if dataset not in problems:
            counts, problem = _count(store, dataset)
            need = needs[scale].get(dataset)
            if not problem and need and need.test_clips > counts[1]:
                problem = (
                    f"{data_root / dataset}: {dataset} has {counts[1]} test clips, scale {scale} asks for {need.test_clips}"
                )
            detail = f"{counts[0]} for training, {counts[1]} test clips" if counts else ""
            rows.append([dataset, "content", "wrong" if problem else "counted", detail])
            problems |= {dataset: problem} if problem else {}
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


def _count(store: DatasetStore, dataset: str) -> tuple[list[int], str]:
    """Return the numbers of training and test clips, none if the files cannot be read, and the problem or ""."""
    try:
        if dataset in DATASETS:
            return store.check_counts(dataset)
        return list(module_of(dataset).count(dataset, store.data_root)), ""
    except (DataError, OSError) as error:
        return [], str(error)


def _needs(workflow: Path, scale: str, data_root: Path) -> dict[str, _Need]:
    """Return what the runs of a scale need of each data set that they read from files."""
    plan = load_plan(workflow, scale, data_root)
    needs = {}
    for dataset in dict.fromkeys(c.data.dataset for c in plan.runs.values() if c.data.source == "files"):
        configs = [c for c in plan.runs.values() if c.data.dataset == dataset]
        users = [e.name for e in plan.experiments.values() if e.train and any(v.dataset == dataset for v in e.variants)]
        needs[dataset] = _Need(len(configs), users, max(c.data.test_clips for c in configs))
    return needs
