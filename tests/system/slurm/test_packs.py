"""Short runs that share a Slurm job: few submissions, and no run loses anything when the job is killed or another run fails."""

import json
import os
import signal
from pathlib import Path

from stlight.experiments import load_plan
from stlight.runs.record import read_record
from stlight.training import train_run
from tests.system.faults.cluster import Workflow, set_up
from tests.tiny_runs import outputs

GRID = "{k1: [5, 7, 9], decoder: [shuffle_reassemble, reassemble_shuffle]}"


def records(workflow, runs):
    """Return when each finished run was started, and when its record was written."""
    paths = {run: workflow.folder(run) / "record.json" for run in runs}
    return {
        run: (json.loads(path.read_text())["provenance"]["started"], workflow.folder(run).joinpath(".finished").stat().st_mtime)
        for run, path in paths.items()
        if path.exists()
    }


def interrupted(workflow, runs, finished):
    """Wait until so many runs have finished and two others train in a pack. Return the finished, the others and their job."""
    slurm = workflow.slurm

    def found():
        under_way = [run for run in workflow.under_way() if workflow.epoch(run) >= 2]
        return len(records(workflow, runs)) >= finished and len(under_way) == 2

    slurm.wait_for(found, 300)
    under_way = workflow.under_way()
    (job,) = {job for _, job in under_way.values()}
    return records(workflow, runs), under_way, job


def test_runs_of_a_killed_pack_resume_and_finished_ones_are_kept(slurm, tmp_path):
    runs = set_up(tmp_path, GRID, epochs=40, pack_minutes=60)
    before = set(slurm.jobs())
    workflow = Workflow(slurm, tmp_path)
    try:
        kept, under_way, job = interrupted(workflow, runs, finished=1)
        resumed = set(under_way)
        slurm.run("scancel", job)
        slurm.wait_for(lambda: slurm.jobs()[job] == "CANCELLED", 60)
        more, under_way, job = interrupted(workflow, runs, finished=2)
        # As if the machine had lost its power: nobody is told.
        for pid in slurm.processes():
            if f"SLURM_JOB_ID={job}" in environment(pid):
                os.kill(pid, signal.SIGKILL)
        assert workflow.process.wait(300) == 0, workflow.log.read_text()[-5000:]
    finally:
        workflow.process.kill()
    kept |= more
    # Three packs, the table and the report.
    assert len(set(slurm.jobs()) - before) <= 5
    assert {run: records(workflow, runs)[run] for run in kept} == kept
    assert any("from epoch" in workflow.last_session(run) for run in resumed | set(under_way))
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
    (tmp_path / "results" / "slurm" / "runs" / failing / ".lock").mkdir(parents=True)
    before = set(slurm.jobs())
    workflow = Workflow(slurm, tmp_path)
    try:
        assert workflow.process.wait(300) == 1
    finally:
        workflow.process.kill()
    assert [read_record(workflow.folder(run) / "record.json").status for run in others] == ["done"] * len(others)
    # The pack, and then twice the run that failed.
    assert len(set(slurm.jobs()) - before) == 3
    assert failing in workflow.log.read_text()
    table = (tmp_path / "results" / "slurm" / "unfinished" / "tables" / "survival.csv").read_text()
    assert table.count("done") == len(others)


def test_a_snakemake_that_is_told_to_stop_submits_nothing_that_waits(slurm, tmp_path):
    runs = set_up(tmp_path, "{k1: [5, 7, 9]}", epochs=10)
    profile = tmp_path / "profiles" / "slurm" / "config.yaml"
    profile.write_text(profile.read_text().replace("slurm_jobs=16", "slurm_jobs=1"))
    before = set(slurm.jobs())
    workflow = Workflow(slurm, tmp_path)
    try:
        slurm.wait_for(workflow.under_way, 120)
        workflow.process.send_signal(signal.SIGTERM)
        workflow.process.wait(120)
    finally:
        workflow.process.kill()
    assert len(set(slurm.jobs()) - before) == len(records(workflow, runs)) == 1
