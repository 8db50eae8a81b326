"""The verbs that the workflow's rules call, usable by hand. Each imports what it needs when it is called."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from stlight.runtime.run_lock import LockLost

if TYPE_CHECKING:
    from stlight.config import RunConfig
    from stlight.experiments import Experiment, Plan
    from stlight.runtime.signals import Interruption

# The installed package lies beside its workflow when it was installed from a checkout with `pip install -e`.
_WORKFLOW = Path(__file__).resolve().parent.parent / "workflow"

# The exit status of a run that was asked to stop and has saved its state: sysexits.h's "temporary failure, try again".
TRY_AGAIN = 75


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status. What a user did wrong is answered in one line, without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # It tells of every letter that it puts into a figure.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    options = _parser().parse_args(arguments)
    # Torch's and numpy's libraries would start a thread for each core; verbs that compute say how many they want.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        _take_settings(options)
        return int(options.verb(options) or 0)
    except (ValueError, OSError, MemoryError, LockLost) as error:
        _tell(f"stlight: {str(error) or 'out of memory'}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stlight", description="What the STLight supplement says, run again.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="scale, results or data, as for snakemake")
    common.add_argument("--scale", default="demo", help="smoke, demo, small, paper or one of your own (demo)")
    common.add_argument("--results", type=Path, default=Path("results"), help="folder of results (results)")
    common.add_argument("--data-root", type=Path, default=Path("data"), help="folder of data sets (data)")
    common.add_argument("--slots-per-gpu", type=int, default=1, help="runs that may share a GPU (1)")
    common.add_argument("--mixed-versions", action="store_true", help="tables from records of different versions of the code")
    common.add_argument("--workflow", type=Path, default=_WORKFLOW, help="folder of experiments, scales and schemas")

    fetch = verbs.add_parser("fetch", parents=[common], help="download a data set, or verify the files that are there")
    fetch.add_argument("dataset", help="mmnist, mfmnist, taxibj, kth or all")
    fetch.add_argument("--accept", action="store_true", help="take what is there for right, and record its checksums")
    fetch.set_defaults(verb=_fetch)

    doctor = verbs.add_parser("doctor", parents=[common], help="say which data is there or wrong, and what waits for it")
    doctor.set_defaults(verb=_doctor)

    prepare = verbs.add_parser("prepare", parents=[common], help="read and check a data set once, and split it")
    prepare.add_argument("dataset")
    prepare.add_argument("source")
    prepare.set_defaults(verb=_prepare)

    train = verbs.add_parser("train", parents=[common], help="train one run and record it")
    train.add_argument("run", help="<dataset>/<variant>/seed<k>, as `status` lists them")
    train.add_argument("--threads", type=int, default=1, help="threads for torch (1)")
    train.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    train.add_argument("--gpus", type=int, default=1, help="GPUs to lease, where there are any (1)")
    train.add_argument("--checkpoint-every", type=float, default=300.0, metavar="SECONDS", help="within long epochs (300)")
    train.add_argument("--newer-than", type=float, default=0.0, metavar="TIME", help="train again what was finished before (0)")
    train.add_argument("--config-hash", help="refuse to train if the configuration has another hash by now")
    train.set_defaults(verb=_train)

    measure = verbs.add_parser(
        "measure", parents=[common], help="measure the time and memory of an experiment's variants, side by side"
    )
    measure.add_argument("experiment")
    measure.add_argument("--threads", type=int, default=1, help="threads for torch (1)")
    measure.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    measure.set_defaults(verb=_measure)

    for name, verb, words in (
        ("count", _count, "count the parameters and FLOPs of an experiment's variants"),
        ("analyse", _analyse, "write an experiment's table, figure and example predictions from its records"),
    ):
        parser_of_verb = verbs.add_parser(name, parents=[common], help=words)
        parser_of_verb.add_argument("experiment")
        parser_of_verb.set_defaults(verb=verb)
    parser_of_verb.add_argument("--complete", action="store_true", help="refuse if a run has no valid record yet")

    waiting = verbs.add_parser("waiting", parents=[common], help="say which cells wait and why; write the tables of the others")
    waiting.set_defaults(verb=_waiting)

    report = verbs.add_parser(
        "report", parents=[common], help="write the verdicts, the errata and the page, from the runs there are"
    )
    report.set_defaults(verb=_report)

    plan = verbs.add_parser("plan", parents=[common], help="what a scale will cost: runs, hours, memory")
    plan.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    plan.add_argument("--threads", type=int, default=1, help="threads of a run (1)")
    plan.add_argument("--side-by-side", type=int, help="runs at a time (as many as the cores allow; one on a GPU)")
    plan.add_argument("--flops", type=float, metavar="RATE", help="multiply-adds a second to reckon with, instead of timing")
    plan.add_argument("--budget", type=float, metavar="HOURS", help="say which experiments fit into so many hours")
    plan.set_defaults(verb=_print_plan)

    status = verbs.add_parser("status", parents=[common], help="show every run: waiting, running, done, diverged, failed")
    status.set_defaults(verb=_status)
    return parser


def _take_settings(options: argparse.Namespace) -> None:
    """`--config scale=… results=… data=…`, for who has Snakemake's way in mind."""
    names = {"scale": "scale", "results": "results", "data": "data_root"}
    for setting in options.config:
        key, equals, value = setting.partition("=")
        if not equals or key not in names:
            raise ValueError(f"--config {setting}: must be one of {', '.join(names)}, written as scale=paper")
        setattr(options, names[key], value if key == "scale" else Path(value))


def _fetch(options: argparse.Namespace) -> int:
    from stlight.data.clips import DataError
    from stlight.data.fetching.store import Library

    library = Library(options.workflow, options.data_root)
    failed = 0
    for dataset in library.sources if options.dataset == "all" else [options.dataset]:
        try:
            library.fetch(dataset, accept=options.accept)
        except DataError as error:
            _tell(f"stlight: {dataset}: {error}")
            failed = 1
    return failed


def _doctor(options: argparse.Namespace) -> int:
    from stlight.commands.doctor import print_findings

    return print_findings(options.workflow, options.data_root, options.scale)


def _prepare(options: argparse.Namespace) -> None:
    from stlight.data.prepare import prepare

    print(prepare(options.dataset, options.source, options.data_root))


def _train(options: argparse.Namespace) -> int:
    for name, minimum in (("threads", 1), ("gpus", 0), ("slots_per_gpu", 1), ("checkpoint_every", 0.0)):
        value = getattr(options, name)
        if not value >= minimum:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {minimum:g}, got {value:g}")
    # Before torch is loaded, or its libraries start as many threads as there are cores.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    plan = _plan(options)
    config = plan.run(options.run)
    if options.config_hash not in (None, config.hash):
        raise ValueError(
            f"{options.run}: the experiment or scale files have changed since the workflow started; start it again"
        )
    from stlight.runtime.signals import Interrupted, Interruption

    interruption = Interruption()
    try:
        with interruption.noticed():
            _train_here(options, config, interruption)
    except Interrupted as signal:
        _tell(f"stlight: {options.run}: stopped by {signal}; start it again to go on")
        return TRY_AGAIN
    return 0


def _train_here(options: argparse.Namespace, config: "RunConfig", interruption: "Interruption") -> None:
    """Train as the only process that does, on GPUs of its own: both are settled before torch is loaded and looks for them."""
    from stlight.runs.record import recorded
    from stlight.runtime import gpu_lease, run_lock

    folder = options.results / options.scale / "runs" / options.run
    gpus = 0 if options.device == "cpu" else options.gpus
    with run_lock.hold(folder, _tell):
        # A record that another process has just written needs no GPU.
        gpus = 0 if recorded(folder, config.hash) else gpus
        with gpu_lease.leased(gpus, options.slots_per_gpu, _tell) as lease:
            import torch

            from stlight.training import train_run
            from stlight.training.devices import leave_out_compiler

            recipe = config.training
            if recipe.kernels != "compiled" and not recipe.deterministic and not torch.cuda.is_available():
                leave_out_compiler()
            gc.freeze()
            gc.enable()
            torch.set_num_threads(options.threads)
            record = train_run(
                options.run,
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
    _tell(f"{options.run}: {record.status}, test MSE{data} {record.metrics['last']['mse']}")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _count(options: argparse.Namespace) -> None:
    import json

    from stlight.model.complexity import complexity
    from stlight.runtime.atomic_files import write_atomically

    experiment = _plan(options).experiment(options.experiment)
    counts = {
        f"{variant.dataset}/{variant.name}": complexity(variant.paper.model, variant.paper.clip_shape)
        for variant in experiment.variants
    }
    path = options.results / options.scale / "complexity" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(counts, indent=1) + "\n")


def _measure(options: argparse.Namespace) -> None:
    for name in ("threads", "slots_per_gpu"):
        if getattr(options, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(options, name)}")
    # Before torch is loaded, as for training.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    experiment = _plan(options).experiment(options.experiment)

    import json

    from stlight.runtime import gpu_lease
    from stlight.runtime.atomic_files import write_atomically

    with gpu_lease.leased(0 if options.device == "cpu" else 1, options.slots_per_gpu, _tell):
        from stlight.costs.measure import measure

        gc.freeze()
        gc.enable()
        measured = measure(experiment, device=options.device, threads=options.threads)
    path = options.results / options.scale / "speed" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(measured, indent=1, allow_nan=False) + "\n")
    _tell(f"{experiment.name}: {len(measured['variants'])} variants measured in {measured['rounds']} rounds")


def _analyse(options: argparse.Namespace) -> None:
    from stlight.analysis.aggregate import load_speeds, missing_runs

    plan = _plan(options)
    experiment, folder = plan.experiment(options.experiment), options.results / options.scale
    missing = missing_runs(experiment, folder)
    if options.complete and missing:
        name, why = next(iter(missing.items()))
        raise ValueError(
            f"{experiment.name}: {len(missing)} of its {len(experiment.run_names)} runs have no record: {name}: {why}"
        )
    if options.complete:
        load_speeds(experiment, folder)
    _write_item(plan, experiment, folder, options.mixed_versions)
    for path in (folder / _UNFINISHED).glob(f"*/{experiment.name}.*"):
        path.unlink(missing_ok=True)


# Apart from the outputs that the workflow knows: it takes one that exists for finished.
_UNFINISHED = "unfinished"


def _write_item(plan: "Plan", experiment: "Experiment", folder: Path, mixed_versions: bool, into: Path | None = None) -> None:
    from stlight.analysis.aggregate import aggregate, check_versions, load_records
    from stlight.analysis.figures import write_figures
    from stlight.analysis.tables import write_tables

    if not mixed_versions:
        check_versions(experiment, load_records(experiment, folder))
    table = aggregate(experiment, folder)
    write_tables(experiment, plan.scale, table, folder, into)
    write_figures(experiment, plan.scale, table, folder, into)


def _waiting(options: argparse.Namespace) -> None:
    """What the workflow calls when something has failed for good: the cells there are, and why the others are not."""
    from stlight.analysis.aggregate import missing_runs, missing_speeds

    plan, folder = _plan(options), options.results / options.scale
    for experiment in plan.experiments.values():
        missing = missing_runs(experiment, folder)
        if unmeasured := missing_speeds(experiment, folder):
            print(f"{experiment.name}: {unmeasured}")
        if not missing and not unmeasured:
            continue
        begun = {name: why for name, why in missing.items() if why != "waiting"}
        idle = f" ({len(missing) - len(begun)} not begun)" if len(begun) < len(missing) else ""
        if missing:
            print(f"{experiment.name}: {len(missing)} of its {len(experiment.run_names)} runs are not there{idle}")
        for name, why in begun.items():
            print(f"  {name}: {why}")
        if len(missing) < len(experiment.run_names):
            try:
                _write_item(plan, experiment, folder, options.mixed_versions, folder / _UNFINISHED)
                print(f"  its other cells: {folder / _UNFINISHED / 'tables' / experiment.name}.md")
            except (ValueError, OSError) as error:
                _tell(f"stlight: {error}")
    _report(options)
    print(f"all that is there: {folder / 'report.html'}")


def _report(options: argparse.Namespace) -> None:
    from stlight.analysis.report import write_report

    # What repeats a run: the settings that differ from the defaults.
    settings = [
        text
        for name, value, default in (
            ("--results", options.results, Path("results")),
            ("--data-root", options.data_root, Path("data")),
        )
        if value != default
        for text in (name, str(value))
    ]
    write_report(_plan(options), options.workflow, options.results / options.scale, settings)


def _print_plan(options: argparse.Namespace) -> None:
    bounds = {"threads": (1, 4096), "side_by_side": (1, 10**6), "flops": (1.0, 1e24), "budget": (1e-6, 1e9)}
    for name, (low, high) in bounds.items():
        value = getattr(options, name)
        if value is not None and not low <= value <= high:
            raise ValueError(f"--{name.replace('_', '-')} must be from {low:g} to {high:g}, got {value}")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    plan = _plan(options)

    import torch

    from stlight.costs.estimate import print_plan

    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    side_by_side = options.side_by_side or (1 if on_gpu else max(1, (os.cpu_count() or 1) // options.threads))
    print_plan(
        plan,
        device=options.device,
        threads=options.threads,
        side_by_side=side_by_side,
        flops_rate=options.flops,
        budget=options.budget,
    )


def _status(options: argparse.Namespace) -> None:
    from stlight.commands.status import print_status

    print_status(_plan(options), options.results)


def _plan(options: argparse.Namespace) -> "Plan":
    from stlight.experiments import load_plan

    return load_plan(options.workflow, options.scale, options.data_root)
