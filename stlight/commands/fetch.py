"""Download a data set, or verify the files that are there."""

import argparse

from stlight.commands.common import tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dataset", help="mmnist, mfmnist, taxibj, kth or all")
    parser.add_argument("--accept", action="store_true")


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    from stlight.data.clips import DataError
    from stlight.data.fetching.store import Library

    library = Library(options.workflow, options.data_root)
    failed = 0
    for dataset in library.sources if options.dataset == "all" else [options.dataset]:
        try:
            library.fetch(dataset, accept=options.accept)
        except DataError as error:
            tell(f"stlight: {dataset}: {error}")
            failed = 1
    return failed
