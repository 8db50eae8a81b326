"""Measure the time and memory of an experiment."""

import argparse
import gc
import os

from stlight.commands.common import load, scale_folder, tell


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("experiment")
    parser.add_argument("--threads", type=int, default=1, help="threads for torch (1)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")


def run(options: argparse.Namespace) -> int | None:
    """Run the verb."""
    for name in ("threads", "slots_per_gpu"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    # Before torch is loaded, as for training.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    experiment = load(options).experiment(options.experiment)

    import json

    from stlight.runtime import gpu_lease
    from stlight.runtime.atomic_files import write_atomically

    with gpu_lease.leased(0 if options.device == "cpu" else 1, options.slots_per_gpu, tell):
        from stlight.costs.measure import measure

        gc.freeze()
        gc.enable()
        measured = measure(experiment, device=options.device, threads=options.threads)
    path = scale_folder(options) / "speed" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(measured, indent=1, allow_nan=False) + "\n")
    tell(f"{experiment.name}: {len(measured['variants'])} variants measured in {measured['rounds']} rounds")
    return None
