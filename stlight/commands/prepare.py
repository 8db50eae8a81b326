"""Read, check and split a data set once, before training."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("dataset", help="mmnist, mfmnist, taxibj, kth or the folder of a custom data set")
    parser.add_argument("source", help="files, or embedded for the digits of mmnist that come with a package")


def run(options: argparse.Namespace) -> None:
    """Prepare a data set and print the path of the prepared file."""
    from stlight.data.prepare import prepare

    print(prepare(options.dataset, options.source, options.data_root))
