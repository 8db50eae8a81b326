"""Verbs that write what an experiment shows without training: count and measure."""

import argparse
import gc
import json

from stlight.commands.common import argument, load, scale_folder, tell


@argument("experiment")
def count(options: argparse.Namespace) -> None:
    """Count the parameters and FLOPs of an experiment's variants, at the paper's size."""
    from stlight.model.complexity import complexity
    from stlight.runtime.atomic_files import write_atomically

    experiment = load(options).experiment(options.experiment)
    counts = {
        f"{variant.dataset}/{variant.name}": complexity(variant.paper.model, variant.paper.clip_shape)
        for variant in experiment.variants
    }
    path = scale_folder(options) / "complexity" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(counts, indent=1) + "\n")


@argument("experiment")
def measure(options: argparse.Namespace) -> None:
    """Measure the time and memory of an experiment's variants, side by side."""
    experiment = load(options).experiment(options.experiment)

    from stlight.runtime import gpu_lease
    from stlight.runtime.atomic_files import write_atomically

    # Lease a GPU before torch is loaded, because torch then sees only that GPU.
    with gpu_lease.leased(0 if options.device == "cpu" else 1, options.slots_per_gpu, tell):
        from stlight.costs.measure import measure

        gc.freeze()
        gc.enable()
        measured = measure(experiment, device=options.device, threads=options.threads)
    path = scale_folder(options) / "speed" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(measured, indent=1, allow_nan=False) + "\n")
    tell(f"{experiment.name}: {len(measured['variants'])} variants measured in {measured['rounds']} rounds")
