"""Measure the variants of an experiment in one process, in turns, so that other load on the machine affects all alike."""

import sys
import time
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from stlight.costs.workload import Workload
from stlight.experiments import Experiment
from stlight.runs.provenance import provenance
from stlight.training.devices import choose_device, configure, describe_device, out_of_memory

_MIN_ROUNDS, _MAX_ROUNDS = 3, 200
# No new round starts after this time.
_SECONDS = 8.0


def measure(experiment: Experiment, *, device: str = "auto", threads: int = 1) -> dict[str, Any]:
    """Return the content of results/<scale>/speed/<experiment>.json.

    It says where the variants were measured, and for each under `variants`, by `<dataset>/<variant>`: epoch_seconds (median
    seconds of a training step × steps of an epoch), clips_per_second (predicting, at the run's batch size), peak_memory
    (bytes: weights, gradients, optimizer state and the tensors of a step at their peak), kernels and config_hash.

    Raises:
        ValueError: the device does not exist.
        OutOfMemory: a variant does not fit.
    """
    torch.set_num_threads(threads)
    chosen = choose_device(device)
    shown = tqdm(experiment.variants, desc=experiment.name, unit="variant", disable=not sys.stderr.isatty())
    workloads: dict[str, Workload] = {}
    memory: dict[str, int] = {}
    try:
        for variant in shown:
            name = f"{variant.dataset}/{variant.name}"
            workloads[name] = Workload(variant.config, chosen, variant.config.training.batch_size)
            memory[name] = workloads[name].peak_memory()
            # The first calls load libraries.
            workloads[name].step()
            workloads[name].predict()
    except (RuntimeError, MemoryError) as error:
        raise out_of_memory(error, chosen) or error from error
    steps: dict[str, list[float]] = {name: [] for name in workloads}
    predictions: dict[str, list[float]] = {name: [] for name in workloads}
    started, rounds = time.perf_counter(), 0
    while rounds < _MIN_ROUNDS or (rounds < _MAX_ROUNDS and time.perf_counter() - started < _SECONDS):
        for name, workload in workloads.items():
            configure(workload.config.training)
            steps[name].append(workload.seconds(workload.step))
            predictions[name].append(workload.seconds(workload.predict))
        rounds += 1
    return {
        "device": describe_device(chosen),
        "threads": torch.get_num_threads(),
        "rounds": rounds,
        "provenance": provenance({}),
        "variants": {
            name: {
                "config_hash": workload.config.hash,
                "kernels": workload.kernels,
                "epoch_seconds": median(steps[name]) * workload.config.steps_per_epoch,
                "clips_per_second": len(workload.clip) / median(predictions[name]),
                "peak_memory": memory[name],
            }
            for name, workload in workloads.items()
        },
    }
