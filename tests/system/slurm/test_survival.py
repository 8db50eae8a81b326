"""A short form of `python -m tests.system.faults slurm`."""

import pytest

from tests.system.faults.cluster import jobs_of_slurm

pytestmark = pytest.mark.system


def test_jobs_that_are_killed_or_cancelled_resume_to_the_same_outputs(slurm, tmp_path):
    figures = jobs_of_slurm(slurm, tmp_path, quick=True)
    assert figures["wrong"] == 0, (figures, (tmp_path / "snakemake.log").read_text()[-5000:])
    assert figures["resumed from a checkpoint"] == figures["the same to the bit"] == 2
