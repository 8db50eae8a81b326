"""The verb that starts the workflow, from any folder and also from an installed package."""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from stlight.commands.common import argument, check_range, experiments_folder


@argument("--scale", help="smoke, demo, small, gpu, paper or your own (default: demo)")
@argument("--results", help="folder of results (default: results)")
@argument("--data", metavar="DIR", help="folder of data sets (default: data)")
@argument("--cores", metavar="N", help="cores to use, or all (default: all, or what the profile says)")
@argument("--hours", type=float, metavar="H", help="budget in core hours, spent in rounds (default: the seeds of the scale)")
@argument("--slots-per-gpu", metavar="N", help="runs that may share a GPU, or auto with --device-rate (default: 1)")
@argument("--device-rate", metavar="FILE", help="what `python -m benchmarks gpu` wrote on the GPUs' model")
@argument("--profile", metavar="NAME", help="gpu, slurm, or a folder with a profile of your own, beside the default one")
@argument("snakemake", nargs="*", metavar="-- ARGUMENT", help="further arguments and targets, as Snakemake takes them")
def run(options: argparse.Namespace) -> None:
    """Make every table and figure of a scale, the verdicts and the report. Snakemake replaces this process."""
    from stlight.experiments import load_plan
    from stlight.workflow_support import Settings

    check_range(options, "hours", 1e-6)
    names = ("scale", "results", "data", "hours", "slots_per_gpu", "device_rate")
    given = {name: value for name in names if (value := getattr(options, name)) is not None}
    given |= {"experiments": _unambiguous_experiments(options)} if options.experiments else {}
    given |= {"mixed_versions": True} if options.mixed_versions else {}
    settings = Settings.from_config(_configuration(options.workflow) | given)
    settings.check_folders()
    load_plan(options.workflow, settings.scale, Path(settings.data), settings.experiments)
    command = snakemake_command(options, given)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(command[0], command)


def _configuration(workflow: Path) -> dict[str, Any]:
    """Return the configuration that the Snakefile will find in the current folder or in its checkout."""
    import yaml

    paths = [folder / "config" / "config.yaml" for folder in (Path(), workflow.parent)]
    path = next((path for path in paths if path.is_file()), None)
    try:
        stated = yaml.safe_load(path.read_text(encoding="utf-8")) if path else {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(stated or {}, dict):
        raise ValueError(f"{path}: must hold settings, got {stated!r}")
    return stated or {}


def _unambiguous_experiments(options: argparse.Namespace) -> str:
    """Return the folder of experiments. Raises `ValueError` if the name that the user gave means two of them."""
    ours, own = (folder / options.experiments for folder in (options.workflow, Path.cwd()))
    if ours.is_dir() and own.is_dir() and not ours.samefile(own):
        raise ValueError(f"--experiments {options.experiments}: give the whole path, {own} or {ours}")
    return experiments_folder(options)


def snakemake_command(options: argparse.Namespace, config: dict[str, Any]) -> list[str]:
    """Return the call of Snakemake. Raises `ValueError` for what Snakemake would report late, or not at all."""
    if options.cores is not None and options.cores != "all" and not (options.cores.isdecimal() and int(options.cores)):
        raise ValueError(f"--cores must be all or a number from 1, got {options.cores!r}")
    if given := [each for each in options.snakemake if each.startswith("-C") or each.partition("=")[0] == "--config"]:
        raise ValueError(f"{given[0]} would replace the settings that `stlight run` makes: state them as its own options")
    if not (snakefile := options.workflow / "Snakefile").is_file():
        raise ValueError(f"--workflow: {options.workflow} holds no Snakefile")
    if not os.access(here := Path.cwd(), os.W_OK | os.X_OK) and not {"-d", "--directory"} & {*options.snakemake}:
        raise ValueError(f"{here} cannot be written: Snakemake keeps its records in the current folder; start in another one")
    # As YAML strings, because Snakemake would take some folders for numbers or mappings. The spaces keep the quotes,
    # which Snakemake strips from the ends.
    stated = [f"{key}= {json.dumps(str(value), ensure_ascii=False)} " for key, value in config.items()]
    command = ["--config", *stated] if stated else []
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
