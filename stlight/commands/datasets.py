"""Verbs about data sets: fetch, prepare and doctor."""

import argparse

from stlight.commands.common import argument, tell


@argument("dataset", help="mmnist, mfmnist, taxibj, kth or all")
@argument("--accept", action="store_true", help="accept existing files as they are and record their checksums")
def fetch(options: argparse.Namespace) -> int:
    """Download a data set, or verify the files that are there. If one of all fails, go on with the others and return 1."""
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


@argument("dataset", help="mmnist, mfmnist, taxibj, kth or the folder of a custom data set")
@argument("source", help="files, or embedded for the digits of mmnist that come with a package")
def prepare(options: argparse.Namespace) -> None:
    """Read, check and split a data set once, before training."""
    from stlight.data.prepare import prepare

    print(prepare(options.dataset, options.source, options.data_root))


def doctor(options: argparse.Namespace) -> int:
    """Show which data exists, which is wrong, and which runs wait for it. Return 1 if the chosen scale lacks something."""
    from stlight.data.fetching.inventory import print_inventory

    return print_inventory(options.workflow, options.data_root, options.scale)
