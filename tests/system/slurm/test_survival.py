"""The quick form of what `python -m tests.system.faults slurm` does at length."""

from tests.system.faults.cluster import jobs_of_slurm


def test_jobs_that_are_killed_or_cancelled_go_on_to_the_same_end(slurm, tmp_path):
    figures = jobs_of_slurm(slurm, tmp_path, quick=True)
    assert figures["wrong"] == 0, (figures, (tmp_path / "snakemake.log").read_text()[-5000:])
    assert figures["went on from a checkpoint"] == figures["the same to the bit"] == 2
