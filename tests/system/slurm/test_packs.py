"""Short runs that share a Slurm job: few submissions, and no run loses anything when the job is killed or another run fails."""

import contextlib
import os
import signal
from pathlib import Path

from stlight.experiments import load_plan
from stlight.training import train_run
from tests.system.faults.cluster import Workflow, set_up
from tests.tiny_runs import outputs

GRID = "{k1: [5, 7, 9], decoder: [shuffle_reassemble, reassemble_shuffle]}"


@contextlib.contextmanager
def started(slurm, folder):
    """Start Snakemake; at the end, kill it and cancel its jobs. Also yields a function that counts its submissions."""
    workflow = Workflow(slurm, folder)
    try:
        # Slurm forgets jobs after some minutes.
        yield workflow, lambda: workflow.log.read_text().count("submitted with SLURM jobid")
    finally:
        workflow.process.kill()
        workflow.process.wait()
        slurm.run("scancel", "--user=root")


def records(workflow, runs):
    """Return the records that are there. They hold the time at which training started, so no two trainings write the same."""
    found = {}
    for run in runs:
        with contextlib.suppress(FileNotFoundError):
            found[run] = (workflow.folder(run) / "record.json").read_bytes()
    return found


def interrupted(workflow, runs, finished):
    """Wait until so many runs have finished and two others train in a pack. Return the finished, the others and their job."""
    under_way = {}

    def found():
        under_way.clear()
        under_way.update((run, job) for run, (_, job) in workflow.under_way().items() if workflow.epoch(run) >= 2)
        return len(records(workflow, runs)) >= finished and len(under_way) == 2

    workflow.slurm.wait_for(found, 1200)
    (job,) = set(under_way.values())
    return records(workflow, runs), set(under_way), job


def test_runs_of_a_killed_pack_resume_and_finished_ones_are_kept(slurm, tmp_path):
    runs = set_up(tmp_path, GRID, epochs=40, pack_minutes=60)
    with started(slurm, tmp_path) as (workflow, num_submitted):
        kept, cancelled, job = interrupted(workflow, runs, finished=1)
        slurm.run("scancel", job)
        slurm.wait_for(lambda: slurm.jobs()[job] == "CANCELLED", 600)
        more, killed, job = interrupted(workflow, runs, finished=2)
        # As if the machine had lost its power: no process can save anything.
        for pid in slurm.processes():
            if f"SLURM_JOB_ID={job}" in environment(pid):
                os.kill(pid, signal.SIGKILL)
        assert workflow.process.wait(1200) == 0, workflow.log.read_text()[-5000:]
        # Three packs, the table and the report.
        assert num_submitted() <= 5
    kept |= more
    assert {run: records(workflow, runs)[run] for run in kept} == kept
    assert any("from epoch" in workflow.last_session(run) for run in cancelled | killed)
    plan = load_plan(tmp_path / "workflow", "slurm", tmp_path / "data")
    for run in runs:
        train_run(run, plan.run(run), tmp_path / "straight" / run, tmp_path)
        straight, survived = outputs(tmp_path / "straight" / run), outputs(workflow.folder(run))
        # Two GPUs, and each run had one of them.
        assert survived[0]["device"].pop("gpus") in (["0"], ["1"])
        for record in (straight[0], survived[0]):
            del record["provenance"]["code"]
        assert survived == straight


def environment(pid):
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace").split("\0")
    except OSError:
        return []


def test_a_run_that_fails_does_not_fail_the_others_of_its_pack(slurm, tmp_path):
    runs = set_up(tmp_path, "{k1: [5, 7, 9]}", epochs=2, pack_minutes=60)
    profile = tmp_path / "profiles" / "slurm" / "config.yaml"
    profile.write_text(profile.read_text().replace("retries: 20", "retries: 2"))
    failing, *others = runs
    # A folder cannot be locked, so the run fails before it trains.
    (tmp_path / "results" / "slurm" / "runs" / failing / ".lock").mkdir(parents=True)
    with started(slurm, tmp_path) as (workflow, num_submitted):
        assert workflow.process.wait(1200) == 1
        # The pack, and then twice the run that failed.
        assert num_submitted() == 3
    assert set(records(workflow, runs)) == set(others)
    table = (tmp_path / "results" / "slurm" / "unfinished" / "tables" / "survival.csv").read_text()
    assert table.count("done") == len(others)


def test_a_snakemake_that_is_told_to_stop_submits_nothing_that_waits(slurm, tmp_path):
    runs = set_up(tmp_path, "{k1: [5, 7, 9]}", epochs=10)
    profile = tmp_path / "profiles" / "slurm" / "config.yaml"
    profile.write_text(profile.read_text().replace("slurm_jobs=16", "slurm_jobs=1"))
    with started(slurm, tmp_path) as (workflow, num_submitted):
        slurm.wait_for(workflow.under_way, 600)
        workflow.process.send_signal(signal.SIGTERM)
        workflow.process.wait(600)
        assert num_submitted() == len(records(workflow, runs)) == 1
