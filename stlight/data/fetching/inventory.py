"""Take stock of the data under a data root without changing anything."""

from pathlib import Path

from tabulate import tabulate

from stlight.config import RunConfig
from stlight.data.clips import DataError
from stlight.data.fetching.store import DatasetStore
from stlight.data.prepare import module_of, open_prepared
from stlight.experiments import load_plan
from stlight.registry.dataset_specs import DATASETS


def print_inventory(workflow: Path, data_root: Path, scale: str) -> int:
    """Print the state of each file, then each problem with the runs that it stops at a scale, then the disk space needed.

    Returns 1 if a problem stops runs, otherwise 0.
    """
    store, plan = DatasetStore(workflow, data_root), load_plan(workflow, scale, data_root)
    waiting: dict[str, list[RunConfig]] = {}
    for config in plan.runs.values():
        if config.data.source == "files":
            waiting.setdefault(config.data.dataset, []).append(config)
    rows: list[list[str]] = []
    problems: dict[str, str] = {}
    to_fetch = to_prepare = 0
    for dataset in dict.fromkeys([*DATASETS, *waiting]):
        spec = DATASETS.get(dataset)
        sources = store.sources(dataset) if spec else []
        for name in spec.files if spec and not sources else ():
            rows.append([dataset, name, "no checksum is known" if (data_root / name).exists() else "missing"])
        for source in sources:
            present = source.exists(data_root)
            to_fetch += 0 if present else source.megabytes
            try:
                if not present:
                    raise DataError(f"{data_root / source.path} is missing: python -m stlight fetch {dataset}")
                state = store.verify(source) or "no checksum is known"
            except DataError as error:
                state = "wrong" if present else "missing"
                problems.setdefault(dataset, str(error))
            rows.append([dataset, source.path, state])
        if dataset not in problems:
            try:
                counts, problem = store.check_counts(dataset) if spec else (module_of(dataset).count(dataset, data_root), "")
                asked = max((config.data.test_clips for config in waiting.get(dataset, ())), default=0)
                if not problem and asked > counts[1]:
                    problem = f"{data_root / dataset}: {dataset} has {counts[1]} test clips, scale {scale} asks for {asked}"
                rows.append([dataset, "content", f"{counts[0]} for training, {counts[1]} test clips"])
            except DataError as error:
                problem = str(error)
            problems |= {dataset: problem} if problem else {}
        try:
            open_prepared(data_root, dataset, "files")
            rows.append([dataset, "prepared", "yes"])
        except DataError:
            to_prepare += spec.prepared_megabytes if spec else 0
    print(tabulate(rows, ["data set", f"under {data_root}", "state"], disable_numparse=True))
    for dataset, problem in problems.items():
        print(f"\n{problem}")
        if runs := len(waiting.get(dataset, ())):
            users = [e.name for e in plan.experiments.values() if e.train and any(v.dataset == dataset for v in e.variants)]
            print(f"  stops {runs} run{'s' * (runs > 1)} at scale {scale}: {', '.join(users)}")
        if dataset in DATASETS and (fallback := DATASETS[dataset].fallback):
            print(f"  if a scale's source is auto, {fallback.replace('_', '-')} clips are used instead")
    print(f"\ndisk: about {to_fetch} MB to fetch and {to_prepare} MB to prepare")
    return int(any(dataset in waiting for dataset in problems))
