"""Write the JSON Schemas."""

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    return None
