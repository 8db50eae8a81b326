"""Calls of a real Snakemake and of the command line, and small copies of the workflow to call them on."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.conftest import REPOSITORY

# Called by its path, because a user need not activate the environment.
SNAKEMAKE = Path(sys.executable).parent / "snakemake"


def snakemake(*arguments, cwd, snakefile=None, ok=True, programs="/usr/local/bin"):
    command = [str(SNAKEMAKE), "--cores", "2", *(["-s", str(snakefile)] if snakefile else []), *map(str, arguments)]
    # Without the environment's own folder in PATH, a job must find its interpreter by itself.
    environment = {k: v for k, v in os.environ.items() if k != "VIRTUAL_ENV"} | {"PATH": f"{programs}:/usr/bin:/bin"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    output = done.stdout + done.stderr
    assert (done.returncode == 0) == ok, output[-5000:]
    return output


def counts(output):
    """Return the number of jobs by rule, from the table that Snakemake prints."""
    return {rule: int(number) for rule, number in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}


def copy_of_repository(folder, keep=()):
    """Copy the workflow with only the experiments to keep."""
    for name in ("workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, folder / name)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    for path in (folder / "workflow" / "experiments").glob("*.yaml"):
        if path.stem not in keep:
            path.unlink()
    return folder


def experiment(folder, name, lines):
    (folder / "workflow" / "experiments" / f"{name}.yaml").write_text(
        f"title: {name}\npaper: {{section: '-', item: Mine}}\nsummary: Words.\n"
        f"metrics: [mse]\nfigure: {{kind: lines}}\n{lines}\n"
    )


def again(repository, work, *arguments, ok=True):
    return snakemake("--config", "scale=smoke", *arguments, cwd=work, snakefile=repository / "Snakefile", ok=ok)


def run_cli(*arguments, cwd):
    command = [sys.executable, "-m", "stlight", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
