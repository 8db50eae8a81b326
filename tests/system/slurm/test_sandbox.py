import os

import pytest

from tests.system.slurm.sandbox import GPUS, NODES, Sandbox, UnavailableError

pytestmark = pytest.mark.system

FINAL = {"COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"}


def submit(slurm, folder, script, *options):
    return slurm.run("sbatch", "--parsable", "--mem=100", f"--output={folder}/%j.log", *options, "--wrap", script)


def until(slurm, job, states, seconds=300):
    slurm.wait_for(lambda: slurm.jobs()[job] in states, seconds)
    return slurm.jobs()[job]


def test_eight_jobs_have_eight_gpus(slurm, tmp_path):
    # No job ends before all have begun.
    script = f"echo $SLURMD_NODENAME $CUDA_VISIBLE_DEVICES; while [ $(ls {tmp_path} | wc -l) -lt 8 ]; do sleep 0.1; done"
    jobs = [submit(slurm, tmp_path, script, "--gres=gpu:1") for _ in range(8)]
    assert {until(slurm, job, FINAL) for job in jobs} == {"COMPLETED"}
    places = [tuple((tmp_path / f"{job}.log").read_text().split()) for job in jobs]
    assert sorted(places) == [(node, str(gpu)) for node in NODES for gpu in range(GPUS)]


def test_a_job_outlives_a_drained_node_and_the_controller(slurm, tmp_path):
    job = submit(slurm, tmp_path, f"while [ ! -e {tmp_path}/go ]; do sleep 0.1; done; echo end", "--nodelist=n1")
    until(slurm, job, {"RUNNING"})
    slurm.drain("n1")
    assert slurm.state("n1") == "draining"
    slurm.restart_controller(pause=1)
    (tmp_path / "go").touch()
    assert until(slurm, job, FINAL) == "COMPLETED"
    slurm.resume("n1")
    assert (tmp_path / f"{job}.log").read_text() == "end\n"


def test_an_urgent_job_puts_another_back_in_the_queue(slurm, tmp_path):
    script = "[ ${SLURM_RESTART_COUNT:-0} = 1 ] || sleep 60"
    low = submit(slurm, tmp_path, script, "--nodelist=n1", "--exclusive", "--requeue")
    until(slurm, low, {"RUNNING"})
    urgent = submit(slurm, tmp_path, "true", "--nodelist=n1", "--partition=urgent")
    assert until(slurm, urgent, FINAL) == "COMPLETED"
    assert until(slurm, low, FINAL) == "COMPLETED"


def test_a_time_limit_ends_a_job(slurm, tmp_path):
    job = submit(slurm, tmp_path, "srun sleep 300", "--time=1")
    until(slurm, job, {"RUNNING"})
    slurm.end_soon(job, seconds=1)
    assert until(slurm, job, FINAL) == "TIMEOUT"


def test_a_second_sandbox_is_refused(slurm, tmp_path):
    with pytest.raises(UnavailableError, match="another sandbox"):
        Sandbox(tmp_path).start()
    assert "is UP" in slurm.run("scontrol", "ping")


# Must be the last test, because it stops the sandbox.
def test_nothing_is_left(slurm, tmp_path):
    job = submit(slurm, tmp_path, "trap '' TERM; sleep 300")
    until(slurm, job, {"RUNNING"})
    assert len(slurm.processes()) >= 6
    slurm.stop()
    assert slurm.processes() == []
    assert not os.path.lexists("/etc/slurm/slurm.conf")
