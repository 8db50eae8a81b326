"""Read and check a data set once, and split it."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("dataset")
    parser.add_argument("source")


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    from stlight.data.prepare import prepare

    print(prepare(options.dataset, options.source, options.data_root))
    return None
