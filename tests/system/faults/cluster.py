"""Train runs as jobs of a real Slurm, with Snakemake and the project's profile, and interrupt them in every way."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pandas as pd
import yaml

from stlight.experiments import load_plan
from stlight.runs.record import read_state
from stlight.training import train_run
from tests.conftest import REPOSITORY
from tests.system.slurm.sandbox import Sandbox
from tests.tiny_runs import outputs

SCALE = """
summary: Long enough for something to happen
base: {{hidden_dim: 16, depth: 3, patch_size: 2, batch_size: 2, num_epochs: {epochs}, max_lr: 0.01}}
data:
  mmnist: {{source: embedded, clips_per_epoch: 60, validation_clips: 4, test_clips: 4}}
  mfmnist: {{source: files, clips_per_epoch: 60, validation_clips: 4, test_clips: 4}}
  taxibj: {{source: stand_in, clips_per_epoch: 60, validation_clips: 4, test_clips: 4}}
  kth: {{source: stand_in, clips_per_epoch: 60, validation_clips: 4, test_clips: 4}}
compute: {{kernels: fused}}
seeds: 1
"""
EXPERIMENT = """
title: Runs that survive
paper: {{section: "-", item: Mine}}
summary: Words.
base: {{dataset: taxibj, num_epochs: 200}}
grid: {grid}
metrics: [mse]
figure: {{kind: lines}}
"""


def set_up(work: Path, grid: str, epochs: int, pack_minutes: int = 0) -> list[str]:
    """Copy the workflow with one small experiment and the Slurm profile with the sandbox's sizes. Return the runs' names.

    A run may take 15 minutes. With 0 `pack_minutes`, every run is a Slurm job of its own.
    """
    for name in ("workflow", "profiles"):
        shutil.copytree(REPOSITORY / name, work / name)
    shutil.copy(REPOSITORY / "Snakefile", work)
    for path in (work / "workflow" / "experiments").glob("*.yaml"):
        path.unlink()
    (work / "workflow" / "experiments" / "survival.yaml").write_text(EXPERIMENT.format(grid=grid))
    # The experiment states the paper's 200 epochs, so the scale's base is the number that is trained.
    (work / "workflow" / "scales" / "slurm.yaml").write_text(SCALE.format(epochs=epochs))
    path = work / "profiles" / "slurm" / "config.yaml"
    profile = yaml.safe_load(path.read_text())
    packs = {"pack_minutes": pack_minutes, "pack_cores": 2, "pack_gpus": 2}
    profile["default-resources"] |= {"mem_mb": 400, "runtime": 5} | packs
    # No warning signal: two minutes before such a short limit it would come at once.
    profile["set-resources"]["train"] |= {"mem_mb": "400 * min(attempt, 3)", "runtime": 15, "slurm_extra": "--nice=0"}
    profile["set-threads"]["train"] = 1
    # The sandbox has no accounting.
    profile |= {"slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 3, "latency-wait": 5}
    path.write_text(yaml.safe_dump(profile))
    return list(load_plan(work / "workflow", "slurm", work / "data").runs)


def _default_ctrl_c() -> None:
    # A shell that starts us in the background makes its children ignore SIGINT.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Workflow:
    """Snakemake, submitting to the cluster, and the state of its runs."""

    def __init__(self, slurm: Sandbox, work: Path) -> None:
        self.slurm, self.work, self.log = slurm, work, work / "snakemake.log"
        self.start()

    def start(self) -> None:
        snakemake = Path(sys.executable).parent / "snakemake"
        command = [snakemake, "--profile", "profiles/slurm", "--config", "scale=slurm"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.work, env=self.slurm.env, stdout=log, stderr=log, preexec_fn=_default_ctrl_c
            )

    def unlock(self) -> None:
        command = [Path(sys.executable).parent / "snakemake", "--unlock", "--config", "scale=slurm"]
        subprocess.run(command, cwd=self.work, env=self.slurm.env, capture_output=True, check=True)

    def folder(self, run: str) -> Path:
        return self.work / "results" / "slurm" / "runs" / run

    def epoch(self, run: str) -> int:
        try:
            return json.loads((self.folder(run) / "progress.json").read_text())["epoch"]
        except (FileNotFoundError, ValueError):
            return 0

    def under_way(self) -> dict[str, tuple[int, str]]:
        """Return process id and Slurm job of each run that is training."""
        found = {}
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().decode().split("\0")
                if words[1:5] == ["-P", "-m", "stlight", "train"] and (entry / "cwd").readlink() == self.work:
                    variables = (entry / "environ").read_bytes().decode(errors="replace").split("\0")
                    job = next(line.partition("=")[2] for line in variables if line.startswith("SLURM_JOB_ID="))
                    found[words[5]] = int(entry.name), job
            except OSError:
                continue
        return found

    def last_session(self, run: str) -> str:
        return (self.work / "results" / "slurm" / "logs" / "train" / f"{run}.log").read_text()

    def gone(self, run: str, pid: int, seconds: float = 180) -> None:
        self.slurm.wait_for(lambda: self.under_way().get(run, (None,))[0] != pid, seconds)


def jobs_of_slurm(slurm: Sandbox, work: Path, quick: bool) -> dict[str, int]:
    """Kill, cancel, time out, drain, lose and requeue jobs; compare each run's outputs with those of an undisturbed run."""
    grid = "{k1: [5, 7]}" if quick else "{k1: [5, 7, 9, 11], decoder: [shuffle_reassemble, reassemble_shuffle]}"
    runs = set_up(work, grid, 60 if quick else 150)
    figures: Counter[str] = Counter(runs=len(runs))
    workflow = Workflow(slurm, work)
    try:
        # The second epoch, because the state of the first is saved only after it is reported.
        slurm.wait_for(lambda: all(workflow.epoch(run) >= 2 for run in runs), 240)
        interrupted = _quick_events(workflow, runs) if quick else _all_events(workflow, runs, figures)
        if not quick:
            interrupted |= _stop_snakemake(workflow, runs, figures)
        figures["wrong"] += workflow.process.wait(1200) != 0
    finally:
        workflow.process.kill()
    figures["interrupted"] = len(interrupted)
    plan = load_plan(work / "workflow", "slurm", work / "data")
    for run in runs:
        resumed = "from epoch" in workflow.last_session(run)
        restored = "was finished already" in workflow.last_session(run)
        waited = "waits for it" in workflow.last_session(run)
        figures["resumed from a checkpoint"] += resumed
        figures["restored"] += restored
        figures["waited for the job that had them"] += waited and not restored
        figures["wrong"] += run in interrupted and not (resumed or restored or waited)
        train_run(run, plan.run(run), work / "straight" / run, work)
        straight, survived = outputs(work / "straight" / run), outputs(workflow.folder(run))
        figures["wrong"] += survived[0]["device"].pop("gpus") not in [[str(gpu)] for gpu in range(4)]
        for record in (straight[0], survived[0]):
            del record["provenance"]["code"]
        figures["the same to the bit"] += survived == straight
        figures["wrong"] += survived != straight or (workflow.folder(run) / "checkpoints").exists()
    table = pd.read_csv(work / "results" / "slurm" / "tables" / "survival.csv")
    figures["wrong"] += list(table["status"]) != ["done"] * len(runs)
    return figures


def _quick_events(workflow: Workflow, runs: list[str]) -> set[str]:
    cancelled, killed = runs
    before = workflow.under_way()
    os.kill(before[killed][0], signal.SIGKILL)
    workflow.slurm.run("scancel", before[cancelled][1])
    for run in runs:
        workflow.gone(run, before[run][0])
    return set(runs)


def _all_events(workflow: Workflow, runs: list[str], figures: Counter[str]) -> set[str]:
    slurm, before = workflow.slurm, workflow.under_way()
    node_of = {run: slurm.run("squeue", "--noheader", f"--jobs={job}", "--format=%N") for run, (_, job) in before.items()}
    figures["stand-in GPUs in use at once"] = len(before)
    here = [run for run in runs if node_of[run] == "n1"]
    there = [run for run in runs if node_of[run] == "n2"]
    at_its_limit, killed, cancelled, requeued = here
    slurm.end_soon(before[at_its_limit][1], 1)
    os.kill(before[killed][0], signal.SIGKILL)
    slurm.run("scancel", before[cancelled][1])
    slurm.restart_controller(pause=3)
    slurm.run("scontrol", "requeue", before[requeued][1])
    for run in here:
        workflow.gone(run, before[run][0])
    # Jobs of a drained node continue; those of a lost node start elsewhere.
    slurm.drain("n2")
    epochs = {run: workflow.epoch(run) for run in there}
    slurm.wait_for(lambda: all(workflow.epoch(run) > epochs[run] for run in there), 120)
    slurm.down("n2")
    for run in there:
        workflow.gone(run, before[run][0])
    slurm.resume("n2")
    figures["cases"] += 6
    return set(runs)


def _stop_snakemake(workflow: Workflow, runs: list[str], figures: Counter[str]) -> set[str]:
    """Stop Snakemake by Ctrl-C, which cancels the jobs, and by SIGKILL, after which the next call must wait for the jobs."""
    slurm = workflow.slurm
    slurm.wait_for(lambda: len(workflow.under_way()) >= 4, 300)
    stopped = set(workflow.under_way())
    workflow.process.send_signal(signal.SIGINT)
    figures["wrong"] += workflow.process.wait(120) == 0
    slurm.wait_for(lambda: not workflow.under_way(), 90)
    plan = load_plan(workflow.work / "workflow", "slurm", workflow.work / "data")
    states = [read_state(workflow.folder(run), plan.run(run).hash)["status"] for run in runs]
    figures["wrong"] += not set(states) <= {"interrupted", "done"}
    workflow.start()
    slurm.wait_for(lambda: len(workflow.under_way()) >= 2, 300)
    workflow.process.kill()
    workflow.process.wait()
    workflow.unlock()
    workflow.start()
    figures["cases"] += 2
    return stopped
