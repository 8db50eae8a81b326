"""The verbs that the workflow's rules call, usable by hand. Each imports what it needs when it is called."""

import argparse
import gc
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

# The installed package lies beside its workflow when it was installed from a checkout with `pip install -e`.
_WORKFLOW = Path(__file__).resolve().parent.parent / "workflow"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status. What a user did wrong is answered in one line, without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    options = _parser().parse_args(arguments)
    try:
        return int(options.verb(options) or 0)
    except (ValueError, OSError) as error:
        print(f"stlight: {error}", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m stlight", description="What the STLight supplement says, run again.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--scale", default="demo", help="smoke, demo, small, paper or one of your own (demo)")
    common.add_argument("--results", type=Path, default=Path("results"), help="folder of results (results)")
    common.add_argument("--data-root", type=Path, default=Path("data"), help="folder of data sets (data)")
    common.add_argument("--workflow", type=Path, default=_WORKFLOW, help="folder of experiments, scales and schemas")

    prepare = verbs.add_parser("prepare", parents=[common], help="read and check a data set once, split its digits")
    prepare.add_argument("dataset")
    prepare.add_argument("source")
    prepare.set_defaults(verb=_prepare)

    train = verbs.add_parser("train", parents=[common], help="train one run and record it")
    train.add_argument("run", help="<dataset>/<variant>/seed<k>, as `status` lists them")
    train.add_argument("--threads", type=int, default=1, help="threads for torch (1)")
    train.add_argument("--device", default="auto", help="auto, cpu or cuda (auto)")
    train.add_argument("--config-hash", help="refuse to train if the configuration has another hash by now")
    train.set_defaults(verb=_train)

    for name, verb, words in (
        ("count", _count, "count the parameters and FLOPs of an experiment's variants"),
        ("analyse", _analyse, "write an experiment's table, figure and example predictions from its records"),
    ):
        parser_of_verb = verbs.add_parser(name, parents=[common], help=words)
        parser_of_verb.add_argument("experiment")
        parser_of_verb.set_defaults(verb=verb)

    status = verbs.add_parser("status", parents=[common], help="show every run: waiting, running, done, diverged, failed")
    status.set_defaults(verb=_status)
    return parser


def _prepare(options: argparse.Namespace) -> None:
    from stlight.data.sources import prepare

    print(prepare(options.dataset, options.source, options.data_root))


def _train(options: argparse.Namespace) -> None:
    if options.threads < 1:
        raise ValueError(f"--threads must be at least 1, got {options.threads}")
    # Before torch is loaded, or its libraries start as many threads as there are cores.
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    plan = _plan(options)
    config = plan.run(options.run)
    if options.config_hash not in (None, config.hash):
        raise ValueError(
            f"{options.run}: the experiment or scale files have changed since the workflow started; start it again"
        )

    import torch

    from stlight.training import train_run
    from stlight.training.devices import leave_out_compiler

    if config.training.kernels != "compiled" and not torch.cuda.is_available():
        leave_out_compiler()
    gc.freeze()
    gc.enable()
    torch.set_num_threads(options.threads)
    folder = options.results / options.scale / "runs" / options.run
    record = train_run(options.run, config, folder, options.data_root, device=options.device)
    data = " on stand-in data" if config.data.source == "stand_in" else ""
    print(f"{options.run}: {record.status}, test MSE{data} {record.metrics['last']['mse']}", file=sys.stderr)


def _count(options: argparse.Namespace) -> None:
    import json

    from stlight.model.complexity import complexity
    from stlight.records import write_atomically

    experiment = _plan(options).experiment(options.experiment)
    counts = {
        f"{variant.dataset}/{variant.name}": complexity(variant.paper.model, variant.paper.clip_shape)
        for variant in experiment.variants
    }
    path = options.results / options.scale / "complexity" / f"{experiment.name}.json"
    write_atomically(path, json.dumps(counts, indent=1) + "\n")


def _analyse(options: argparse.Namespace) -> None:
    from stlight.analysis.aggregate import aggregate
    from stlight.analysis.figures import write_figures
    from stlight.analysis.tables import write_tables

    plan = _plan(options)
    experiment, folder = plan.experiment(options.experiment), options.results / options.scale
    table = aggregate(experiment, folder)
    write_tables(experiment, plan.scale, table, folder)
    write_figures(experiment, plan.scale, table, folder)


def _status(options: argparse.Namespace) -> None:
    from stlight.status import print_status

    print_status(_plan(options), options.results)


def _plan(options: argparse.Namespace):  # type: ignore[no-untyped-def]
    from stlight.experiments import load_plan

    return load_plan(options.workflow, options.scale, options.data_root)
