"""Parse the command line of `stlight` (or `python -m stlight`) and run one verb."""

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from stlight.commands.common import ARGUMENTS, Verb, check_range, tell
from stlight.commands.comparing import compare
from stlight.commands.computing import count, identify, measure, plan, train
from stlight.commands.following import status
from stlight.commands.inputs import doctor, fetch, prepare, schemas
from stlight.commands.openstl import diagnose, export, import_
from stlight.commands.results import analyse, report, waiting
from stlight.commands.rounds import allocate
from stlight.commands.running import run
from stlight.runtime.process import kernels_are_off
from stlight.runtime.run_lock import LockLost

_VERBS: list[Verb] = [run, fetch, doctor, prepare, train, measure, count, identify, analyse, waiting, report, plan, allocate]
_VERBS += [status, compare, export, import_, diagnose, schemas]
# `import` is a keyword of Python.
VERBS = {verb.__name__.rstrip("_"): verb for verb in _VERBS}

_PACKAGE = Path(__file__).resolve().parent
# In a wheel the workflow is part of the package. With `pip install -e` it lies beside the package in the checkout.
_WORKFLOW = next(path for path in (_PACKAGE / "workflow", _PACKAGE.parent / "workflow") if path.is_dir())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status.

    A user's mistake, a full disk or lack of memory is reported in one line on stderr, with status 1.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # At level INFO fontTools logs each glyph that it embeds in a figure.
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A locale may lack a character of a table. Stderr writes its number by default.
        sys.stdout.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    try:
        kernels_are_off()
        if options.verb != "run":
            check_range(options, "threads", 1)
            check_range(options, "slots_per_gpu", 1, 100)
            # The libraries of torch and numpy read this when they are loaded. By default they start one thread per core.
            os.environ["OMP_NUM_THREADS"] = str(options.threads)
            if options.planned_source:
                _check_source(options.planned_source)
        return VERBS[options.verb](options) or 0
    except (ValueError, OSError, MemoryError, LockLost) as error:
        tell(f"stlight: {str(error) or 'out of memory'}")
        return 1


def _folder(path: str) -> Path:
    if not path:
        raise argparse.ArgumentTypeError("must not be empty; the current folder is .")
    return Path(path)


def _check_source(planned: str) -> None:
    from stlight.runs.provenance import source_version

    folder = Path(__file__).resolve().parent
    try:
        ours = source_version()
    except SyntaxError as error:
        raise ValueError(f"{error.filename or folder}: not valid Python: {error}; start it again when it is") from error
    if ours != planned:
        raise ValueError(f"planned with code of version {planned}, but {folder} is {ours}; start it again")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="stlight", description="Reproduce the experiments of the STLight supplement.")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--mixed-versions", action="store_true", help="allow tables from results of several code versions")
    common.add_argument("--workflow", type=Path, default=_WORKFLOW, help="folder of experiments, scales and schemas")
    common.add_argument("--experiments", metavar="DIR", help="its folder of experiments, or your own (default: experiments)")
    # `run` has options of its own, because it passes on what is given: the workflow's configuration states the rest.
    job = argparse.ArgumentParser(add_help=False)
    job.add_argument("--scale", default="demo", help="smoke, demo, small, gpu, paper or your own (default: demo)")
    job.add_argument("--results", type=_folder, default=Path("results"), help="folder of results (default: results)")
    job.add_argument("--data-root", type=_folder, default=Path("data"), help="folder of data sets (default: data)")
    job.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    job.add_argument("--threads", type=int, default=1, help="threads for torch (default: 1)")
    job.add_argument("--slots-per-gpu", type=int, default=1, help="runs that may share a GPU (default: 1)")
    job.add_argument("--rounds", action="store_true", help="take the seeds that the rounds of a budget chose")
    job.add_argument("--planned-source", help="refuse to run if the code is of another version")
    verbs = parser.add_subparsers(required=True, metavar="VERB", dest="verb")
    for name, verb in VERBS.items():
        summary = str(verb.__doc__).splitlines()[0]
        parents = [common] if verb is run else [common, job]
        verb_parser = verbs.add_parser(name, parents=parents, help=summary, description=summary)
        for names, settings in ARGUMENTS[verb]:
            verb_parser.add_argument(*names, **settings)
    return parser
