"""What data is there, whether it is right, and what waits for what is not: told without changing anything."""

import argparse
from pathlib import Path
from typing import NamedTuple

from tabulate import tabulate

from stlight.data.clips import DataError
from stlight.data.fetching.store import Library, free_bytes
from stlight.data.prepare import count, open_prepared, prepared_path
from stlight.experiments import load_plan
from stlight.registry.dataset_specs import DATASETS


class _Need(NamedTuple):
    """What a scale's runs need of a data set's files."""

    runs: int
    experiments: list[str]
    test_clips: int


def print_findings(workflow: Path, data_root: Path, scale: str) -> int:
    """Print a line for each file, then what is missing or wrong and what it stops at each scale, then the disk that is needed.

    Returns 1 if the scale in hand lacks something, else 0.
    """
    library = Library(workflow, data_root)
    needs = {path.stem: _needs(workflow, path.stem, data_root) for path in sorted((workflow / "scales").glob("*.yaml"))}
    if scale not in needs:
        load_plan(workflow, scale, data_root)
    rows: list[list[str]] = []
    troubles: dict[str, str] = {}
    to_fetch = to_prepare = 0
    own = {dataset for of_scale in needs.values() for dataset in of_scale if dataset not in DATASETS}
    for dataset in (*library.sources, *sorted(own)):
        whole = True
        for source in library.sources.get(dataset, []):
            found = library.look(source)
            rows.append([dataset, source.path, found.verdict, found.words if found.facts else ""])
            to_fetch += source.megabytes * (found.verdict == "missing")
            whole &= found.verdict != "missing"
            if found.verdict == "wrong":
                troubles[dataset] = f"{data_root / source.path} is wrong: {found.words}"
            elif found.verdict == "missing":
                troubles.setdefault(dataset, f"{data_root / source.path} is missing: python -m stlight fetch {dataset}")
        if whole and dataset not in troubles:
            try:
                known = dataset in library.sources
                (train, test), words = library.check_counts(dataset) if known else (count(dataset, data_root), "")
                asked = needs[scale][dataset].test_clips if dataset in needs.get(scale, {}) else 0
                if not words and asked > test:
                    words = f"{data_root / dataset}: {dataset} has {test} test clips, scale {scale} asks for {asked}"
                state = "wrong" if words else "counted"
                rows.append([dataset, "content", state, f"{train} for training, {test} test clips"])
                troubles |= {dataset: words} if words else {}
            except (DataError, OSError) as error:
                rows.append([dataset, "content", "wrong", ""])
                troubles[dataset] = str(error)
        try:
            open_prepared(prepared_path(data_root, dataset, "files"), data_root)
            rows.append([dataset, "prepared", "yes", "read through, all values"])
        except DataError:
            to_prepare += DATASETS[dataset].prepared_megabytes if dataset in DATASETS else 0
            rows.append([dataset, "prepared", "not yet", ""])
    print(tabulate(rows, ["data set", f"under {data_root}", "state", "found"], disable_numparse=True))
    for dataset, trouble in troubles.items():
        print(f"\n{trouble}")
        for name, of_scale in needs.items():
            if need := of_scale.get(dataset):
                print(f"  stops {need.runs} run{'s' * (need.runs > 1)} at scale {name}: {', '.join(need.experiments)}")
        if dataset in DATASETS and (fallback := DATASETS[dataset].fallback):
            print(f"  where a scale's source is auto, {fallback.replace('_', '-')} clips are used instead")
    free = free_bytes(data_root) / 1e6
    lacks = "" if free > to_fetch + to_prepare else ", which is not enough"
    print(
        f"\ndisk: about {to_fetch} MB to fetch and {to_prepare} MB to prepare what is not there yet; {free:.0f} MB free{lacks}"
    )
    return int(any(dataset in needs[scale] for dataset in troubles))


def _needs(workflow: Path, scale: str, data_root: Path) -> dict[str, _Need]:
    """The data sets whose files a scale's runs are made from, with how many runs and of which experiments."""
    plan = load_plan(workflow, scale, data_root)
    needs = {}
    for dataset in dict.fromkeys(c.data.dataset for c in plan.runs.values() if c.data.source == "files"):
        configs = [c for c in plan.runs.values() if c.data.dataset == dataset]
        users = [e.name for e in plan.experiments.values() if e.train and any(v.dataset == dataset for v in e.variants)]
        needs[dataset] = _Need(len(configs), users, max(c.data.test_clips for c in configs))
    return needs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare no options."""


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    return print_findings(options.workflow, options.data_root, options.scale)
