"""The verb that starts the workflow, from any folder and also from an installed package."""

import argparse
import json
import os
import sys
from pathlib import Path

from stlight.commands.common import argument, check_range, experiments_folder, load_static


@argument("--cores", metavar="N", help="cores to use, or all (default: all, or what the profile says)")
@argument("--hours", type=float, metavar="H", help="budget in core hours, spent in rounds (default: the seeds of the scale)")
@argument("--slots-per-gpu", metavar="N", help="runs that may share a GPU, or auto with --device-rate (default: 1)")
@argument("--device-rate", type=Path, metavar="FILE", help="what `python -m benchmarks gpu` wrote on the GPUs' model")
@argument("--profile", metavar="NAME", help="gpu, slurm, or a folder with a profile of your own, beside the default one")
@argument("snakemake", nargs="*", metavar="-- ARGUMENT", help="further arguments and targets, as Snakemake takes them")
def run(options: argparse.Namespace) -> None:
    """Make every table and figure of a scale, the verdicts and the report. Snakemake replaces this process."""
    from stlight.workflow_support import Settings

    check_range(options, "hours", 1e-6)
    config = {
        "scale": options.scale,
        "results": str(options.results),
        "data": str(options.data_root),
        "experiments": _unambiguous_experiments(options),
        "hours": options.hours,
        "slots_per_gpu": options.slots_per_gpu,
        "device_rate": options.device_rate and str(options.device_rate),
        "mixed_versions": options.mixed_versions or None,
    }
    config = {key: value for key, value in config.items() if value is not None}
    Settings.from_config(config).check_folders()
    load_static(options)
    command = snakemake_command(options, config)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def _unambiguous_experiments(options: argparse.Namespace) -> str:
    """Return the folder of experiments. Raises `ValueError` if the name that the user gave means two of them."""
    ours, own = (folder / (options.experiments or "") for folder in (options.workflow, Path.cwd()))
    if options.experiments and ours.is_dir() and own.is_dir() and not ours.samefile(own):
        raise ValueError(f"--experiments {options.experiments}: give the whole path of {own} or {ours}")
    return experiments_folder(options)


def snakemake_command(options: argparse.Namespace, config: dict[str, object]) -> list[str]:
    """Return the call of Snakemake. Raises `ValueError` for what Snakemake would report late, or not at all."""
    if options.cores is not None and options.cores != "all" and not (options.cores.isdecimal() and int(options.cores)):
        raise ValueError(f"--cores must be all or a number from 1, got {options.cores!r}")
    if given := [each for each in options.snakemake if each.startswith("-C") or each.partition("=")[0] == "--config"]:
        raise ValueError(f"{given[0]} would replace the settings that `stlight run` makes: state them as its own options")
    if not (snakefile := options.workflow / "Snakefile").is_file():
        raise ValueError(f"--workflow: {options.workflow} holds no Snakefile")
    if not os.access(here := Path.cwd(), os.W_OK | os.X_OK) and not {"-d", "--directory"} & {*options.snakemake}:
        raise ValueError(f"{here} cannot be written: Snakemake keeps its records in the current folder; start in another one")
    command = ["--config", *(f"{key}={json.dumps(str(value), ensure_ascii=False)}" for key, value in config.items())]
    if options.cores or not options.profile:
        command += ["--cores", options.cores or "all"]
    # In a checkout, profiles lie beside the workflow, where Snakemake does not look.
    places = (options.workflow / "profiles", options.workflow.parent / "profiles")
    shipped = next((path for path in places if (path / "default").is_dir()), None)
    if shipped:
        command += ["--workflow-profile", str(shipped / "default")]
    if options.profile:
        found = shipped / options.profile if shipped else Path(options.profile)
        command += ["--profile", str(found) if found.is_dir() else options.profile]
    # The last option before the user's arguments takes one value, so that it does not take a target, too.
    command += ["-s", str(snakefile)]
    # -P, because otherwise Python imports what lies in the current folder.
    return [sys.executable, "-P", "-m", "snakemake", *command, *options.snakemake]
