"""Parse the command line of `stlight` (or `python -m stlight`) and run one verb."""

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from stlight.commands.common import tell
from stlight.runtime.run_lock import LockLost

# Each verb is the module of this name in stlight/commands/.
VERBS = (
    "fetch",
    "doctor",
    "prepare",
    "train",
    "measure",
    "count",
    "identify",
    "analyse",
    "waiting",
    "report",
    "plan",
    "status",
    "schemas",
)

# With `pip install -e`, the package lies beside the workflow of its checkout.
_WORKFLOW = Path(__file__).resolve().parent.parent / "workflow"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status.

    A user's mistake, a full disk or lack of memory is reported in one line on stderr, with status 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # At level INFO fontTools logs each glyph that it embeds in a figure.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    # By default the libraries of torch and numpy start one thread per core. Verbs that compute set their own number.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    options = _parser().parse_args(arguments)
    try:
        _apply_config(options)
        return int(options.run_verb(options) or 0)
    except (ValueError, OSError, MemoryError, LockLost) as error:
        tell(f"stlight: {str(error) or 'out of memory'}")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stlight", description="Reproduce the experiments of the STLight supplement.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", nargs="+", default=[], metavar="KEY=VALUE", help="scale, results or data, as for snakemake")
    common.add_argument("--scale", default="demo", help="smoke, demo, small, paper or your own (default: demo)")
    common.add_argument("--results", type=Path, default=Path("results"), help="folder of results (default: results)")
    common.add_argument("--data-root", type=Path, default=Path("data"), help="folder of data sets (default: data)")
    common.add_argument("--slots-per-gpu", type=int, default=1, help="runs that may share a GPU (default: 1)")
    common.add_argument("--mixed-versions", action="store_true", help="allow tables from records of several code versions")
    common.add_argument("--workflow", type=Path, default=_WORKFLOW, help="folder of experiments, scales and schemas")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for verb in VERBS:
        module = import_module(f"stlight.commands.{verb}")
        summary = str(module.__doc__).splitlines()[0].rstrip(".")
        verb_parser = verbs.add_parser(verb, parents=[common], help=summary, description=summary)
        module.add_arguments(verb_parser)
        verb_parser.set_defaults(run_verb=module.run)
    return parser


def _apply_config(options: argparse.Namespace) -> None:
    """Apply `--config scale=… results=… data=…`, which Snakemake users type by habit."""
    names = {"scale": "scale", "results": "results", "data": "data_root"}
    for setting in options.config:
        key, equals, value = setting.partition("=")
        if not equals or key not in names:
            raise ValueError(f"--config {setting}: must be one of {', '.join(names)}, written as scale=paper")
        setattr(options, names[key], value if key == "scale" else Path(value))
