"""Count the parameters and FLOPs of an experiment's variants, at the paper's size."""

import argparse
import json

from stlight.commands.common import load, scale_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment")


def run(options: argparse.Namespace) -> None:
    """Write results/<scale>/complexity/<experiment>.json."""
    from stlight.model.complexity import complexity
    from stlight.runtime.atomic_files import write_atomically

    experiment = load(options).experiment(options.experiment)
    counts = {
        f"{variant.dataset}/{variant.name}": complexity(variant.paper.model, variant.paper.clip_shape)
        for variant in experiment.variants
    }
    path = scale_folder(options) / "complexity" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(counts, indent=1) + "\n")
