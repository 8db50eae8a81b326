"""Measure the time and memory of an experiment's variants, side by side."""

import argparse
import json
import os

from stlight.commands.common import check_range, load, scale_folder, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch (default: 1)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")


def run(options: argparse.Namespace) -> None:
    """Write results/<scale>/speed/<experiment>.json."""
    check_range(options, "threads", 1)
    check_range(options, "slots_per_gpu", 1)
    # The libraries of torch read this when they are loaded.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    experiment = load(options).experiment(options.experiment)

    from stlight.runtime import gpu_lease, start_up
    from stlight.runtime.atomic_files import write_atomically

    # Lease a GPU before torch is loaded, because torch then sees only that GPU.
    with gpu_lease.leased(0 if options.device == "cpu" else 1, options.slots_per_gpu, tell):
        from stlight.costs.measure import measure

        start_up.resume_garbage_collection()
        measured = measure(experiment, device=options.device, threads=options.threads)
    path = scale_folder(options) / "speed" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(measured, indent=1, allow_nan=False) + "\n")
    tell(f"{experiment.name}: {len(measured['variants'])} variants measured in {measured['rounds']} rounds")
