"""Verbs that compute: train, count, measure, identify, and plan, which predicts what a scale costs."""

import argparse
import gc
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from stlight.commands.common import argument, check_range, load, scale_folder, tell
from stlight.commands.rounds import print_rounds
from stlight.registry.dataset_specs import DATASETS

if TYPE_CHECKING:
    from stlight.config import RunConfig
    from stlight.costs.estimate import RunCost
    from stlight.experiments import Experiment
    from stlight.runtime.process import Interruption


@argument("name", metavar="run", help="<dataset>/<variant>/seed<k>, as `stlight status` lists them")
@argument("--gpus", type=int, choices=(0, 1), default=1, help="GPUs to lease if the machine has any (default: 1)")
@argument("--checkpoint-every", type=float, default=300.0, metavar="SECONDS", help="within long epochs (default: 300)")
@argument("--newer-than", type=float, default=0.0, metavar="TIME", help="restore deleted outputs only if newer (default: 0)")
@argument("--config-hash", help="refuse to train if the configuration has another hash")
def train(options: argparse.Namespace) -> int:
    """Train one run and record it. Return 75 if a signal interrupted it after it saved its state."""
    check_range(options, "checkpoint_every", 0)
    config = load(options).run(options.name)
    if options.config_hash not in (None, config.hash):
        raise ValueError(
            f"{options.name}: the experiment or scale files have changed since the workflow started; start it again"
        )
    from stlight.runtime.process import INTERRUPTED_STATUS, Interrupted, Interruption

    interruption = Interruption()
    try:
        with interruption.noticed():
            _train(options, config, interruption)
    except Interrupted as signal:
        tell(f"stlight: {options.name}: interrupted by {signal}; run the same command again to resume")
        return INTERRUPTED_STATUS
    return 0


def _train(options: argparse.Namespace, config: "RunConfig", interruption: "Interruption") -> None:
    """Take the run's lock and lease its GPU before loading torch, because torch sees only the GPUs of that moment."""
    from stlight.runs.record import load_valid_record
    from stlight.runtime import gpu_lease, run_lock

    folder = scale_folder(options) / "runs" / options.name
    with run_lock.hold(folder, tell):
        # While we waited for the lock, another process may have finished the run: then no GPU is needed.
        gpus = 0 if options.device == "cpu" or load_valid_record(folder, config.hash, options.name) else options.gpus
        with gpu_lease.leased(gpus, options.slots_per_gpu, tell) as lease:
            import torch

            from stlight.runtime.process import leave_out_compiler

            recipe = config.training
            if recipe.kernels != "compiled" and not recipe.deterministic and not torch.cuda.is_available():
                leave_out_compiler()
            from stlight.training import train_run

            gc.freeze()
            gc.enable()
            torch.set_num_threads(options.threads)
            record = train_run(
                options.name,
                config,
                folder,
                options.data_root,
                device=options.device,
                gpus=lease.gpus,
                checkpoint_every=options.checkpoint_every,
                newer_than=options.newer_than,
                interruption=interruption,
            )
    data = " on stand-in data" if config.data.source == "stand_in" else ""
    tell(f"{options.name}: {record.status}, test MSE{data} {record.metrics['last']['mse']}")


@argument("names", nargs="+", metavar="experiment")
def count(options: argparse.Namespace) -> None:
    """Count the parameters and FLOPs of the variants of experiments, at the paper's size."""
    from stlight.runtime.process import leave_out_compiler

    leave_out_compiler()

    from stlight.model.complexity import check_with_fvcore, complexity
    from stlight.registry.model_specs import OURS
    from stlight.runs.provenance import provenance
    from stlight.runtime.atomic_files import write_atomically

    experiments = load(options)
    for experiment in map(experiments.experiment, options.names):
        counts = {
            f"{variant.dataset}/{variant.name}": complexity(variant.paper.model, variant.paper.clip_shape, variant.dataset)
            for variant in experiment.variants
        }
        ours = [variant.paper for variant in experiment.variants if variant.paper.model.model == OURS]
        for config in ours[:1]:
            check_with_fvcore(config.model, config.clip_shape)
        counts["provenance"] = provenance({})
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


@argument("--side-by-side", type=int, help="runs at a time (default: as many as the cores allow, one on a GPU)")
@argument("--flops", type=float, metavar="RATE", help="assume RATE multiply-adds per second instead of timing")
@argument("--device-rate", type=Path, metavar="FILE", help="reckon for the GPU on which `benchmarks gpu` wrote FILE")
@argument("--budget", type=float, metavar="HOURS", help="say which experiments fit into HOURS")
@argument("--hours", type=float, help="instead, print the rounds that spend a budget of so many core hours")
def plan(options: argparse.Namespace) -> None:
    """Print what a scale will cost: runs, hours and memory of each experiment."""
    for name, low in (("side_by_side", 1), ("flops", 1), ("budget", 1e-6), ("hours", 1e-6)):
        check_range(options, name, low)
    if options.hours is not None:
        print_rounds(options)
        return
    if options.flops and options.device_rate:
        raise ValueError("--flops and --device-rate both say how fast the device is: give one of them")
    loaded = load(options)

    import torch

    from stlight.costs.card import Card
    from stlight.costs.estimate import estimate_costs, fit_into_budget, gpu_bytes
    from stlight.training.devices import choose_device

    torch.set_num_threads(options.threads)
    card = Card.load(options.device_rate) if options.device_rate else None
    device = torch.device("cpu") if options.flops or card else choose_device(options.device)
    on_gpu = card is not None or (options.device != "cpu" and torch.cuda.is_available())
    side_by_side = options.side_by_side or (1 if on_gpu or options.flops else max(1, (os.cpu_count() or 1) // options.threads))
    place = torch.cuda.get_device_name(device) if device.type == "cuda" else f"this CPU, threads: {options.threads}"
    where = f"at {options.flops:.3g} multiply-adds a second, as stated" if options.flops else f"on {place}, timed"

    if card:
        where = f"on {card.name}, from {options.device_rate}"

    costs = estimate_costs(loaded, device, options.flops, card)
    hours = {name: costs[name].hours(config) for name, config in loaded.runs.items()}
    shapes = len({id(cost) for cost in costs.values()})
    print(f"scale {loaded.scale.name} {where}: {shapes} distinct shapes")
    trained = [e for e in loaded.experiments.values() if e.train]
    _print_experiments(trained, costs, hours)
    total = sum(hours.values())
    together = max(total / side_by_side, max(hours.values()))
    print(f"\n{len(hours)} runs, {_duration(total)} of computing; about {_duration(together)} with {side_by_side} side by side")
    if card and (slots := card.slots(max(gpu_bytes(cost) for cost in costs.values()))) is not None:
        print(f"the memory of {card.name} has room for {slots} of the largest runs at a time: slots_per_gpu={max(1, slots)}")
    if options.budget is not None:
        fits, spent = fit_into_budget(trained, hours, options.budget, side_by_side)
        left_out = [e.name for e in trained if e.name not in fits]
        chosen = f"{', '.join(fits) or 'nothing'} ({_duration(spent)} of computing)"
        print(f"within {options.budget:g} h: {chosen}; left out: {', '.join(left_out) or 'nothing'}")


def _print_experiments(experiments: "list[Experiment]", costs: "dict[str, RunCost]", hours: dict[str, float]) -> None:
    from tabulate import tabulate

    rows = []
    seen: set[str] = set()
    for experiment in experiments:
        names = set(experiment.run_names)
        time, added = (_duration(sum(hours[name] for name in group)) for group in (names, names - seen))
        memory = max(costs[name].memory for name in names) / 2**30
        rows.append([experiment.name, len(names), len(names - seen), time, added, f"{memory:.1f} GiB"])
        seen |= names
    print(
        tabulate(rows, ["experiment", "runs", "not in those above", "time", "time more", "memory a run"], disable_numparse=True)
    )


def _duration(hours: float) -> str:
    if hours < 1:
        return f"{hours * 60:.3g} min"
    return f"{hours:.3g} h" if hours < 100 else f"{hours:.0f} h"


@argument("--params", required=True, help="parameters as printed: 32.9M")
@argument("--flops", help="FLOPs of one clip as printed: 32.3G (default: list all that fit the parameters)")
@argument("--dataset", default="mmnist", help=f"{', '.join(DATASETS)} (default: mmnist)")
@argument("--kernels", type=int, nargs=2, metavar="K", help="search only these two kernel sizes, in either order")
@argument("--hidden-dim", type=int, help="search only this hidden-dim")
@argument("--depth", type=int, help="search only this depth")
@argument("--patch-size", type=int, help="search only this patch-size")
@argument("--overlap", type=int, help="search only this overlap")
def identify(options: argparse.Namespace) -> None:
    """Find the STLights that a printed number of parameters, and of FLOPs, can describe. Raise `ValueError` if none does."""
    from tabulate import tabulate

    from stlight.costs.identify import identify as search
    from stlight.experiments.field_types import PrintedNumber

    def printed(option: str, text: str) -> PrintedNumber:
        try:
            number = PrintedNumber(text)
        except ValueError as error:
            raise ValueError(f"{option} {error}") from None
        if number.value <= 0:
            raise ValueError(f"{option} must be above 0, got {text}")
        return number

    if options.dataset not in DATASETS:
        raise ValueError(f"--dataset must be one of {', '.join(DATASETS)}, got {options.dataset!r}")
    parameters = printed("--params", options.params)
    flops = printed("--flops", options.flops) if options.flops is not None else None
    k1, k2 = sorted(options.kernels) if options.kernels else (None, None)
    narrowed = {name: getattr(options, name) for name in ("hidden_dim", "depth", "patch_size", "overlap")}
    found = search(parameters, flops, DATASETS[options.dataset].shape, k1=k1, k2=k2, **narrowed)
    asked = f"{parameters} parameters" + (f" and {flops} FLOPs" if flops else "") + f" on {options.dataset}"
    if found.empty:
        raise ValueError(f"no layout has {asked}, in either counting")
    countings = {"flops": "FLOPs", "flops_without_depthwise": "depthwise as 0"}
    table = found[["hidden_dim", "depth", "k1", "k2", "patch_size"]].assign(
        overlap=found["overlap"].replace({0: "0, 1"}), parameters=[f"{count / 1e6:.3f}M" for count in found["parameters"]]
    )
    for name, head in countings.items():
        marks = [" *" if flops and fits else "" for fits in found[f"{name}_fit"]]
        table[head] = [f"{count / 1e9:.4f}G{mark}" for count, mark in zip(found[name], marks, strict=True)]
    print(tabulate(table.to_dict("list"), "keys", disable_numparse=True))
    print("\nk1 and k2 may be exchanged.")
    if flops:
        fit = {name: int(found[f"{name}_fit"].sum()) for name in countings}
        print(f"* rounds to {flops}: {fit['flops']} of {len(found)} as they are,", end=" ")
        print(f"{fit['flops_without_depthwise']} with depthwise convolutions counted as 0.")
