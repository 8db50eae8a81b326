"""Show which data exists, which is wrong, and which runs wait for it."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add no options: the common ones suffice."""


def run(options: argparse.Namespace) -> int:
    """Print the inventory of all data. Returns 1 if the chosen scale lacks something, otherwise 0."""
    from stlight.data.fetching.inventory import print_inventory

    return print_inventory(options.workflow, options.data_root, options.scale)
