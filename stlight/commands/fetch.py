"""Download a data set, or verify the files that are there."""

import argparse

from stlight.commands.common import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("dataset", help="mmnist, mfmnist, taxibj, kth or all")
    parser.add_argument("--accept", action="store_true", help="accept existing files as they are and record their checksums")


def run(options: argparse.Namespace) -> int:
    """Fetch one data set or all of them; if one fails, go on with the others and return 1."""
    from stlight.data.clips import DataError
    from stlight.data.fetching.store import DatasetStore
    from stlight.registry.dataset_specs import DATASETS

    store = DatasetStore(options.workflow, options.data_root)
    status = 0
    for dataset in DATASETS if options.dataset == "all" else [options.dataset]:
        try:
            store.fetch(dataset, accept=options.accept)
        except DataError as error:
            tell(f"stlight: {dataset}: {error}")
            status = 1
    return status
