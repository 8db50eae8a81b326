"""How many jobs a Slurm job holds and what it asks for; tests/system/slurm/test_packs.py submits real ones."""

import pytest
import yaml

from stlight.runtime.job_packs import pack_resources, pack_size, split_evenly
from stlight.workflow_support import Settings, Workflow
from tests.conftest import REPOSITORY

RUN = {"_cores": 4, "mem_mb": 3000, "runtime": 20, "pack_minutes": 240, "pack_cores": 16, "pack_gpus": 2}
ON_GPU = {"gpu": 1, "gpu_percent": 100}


@pytest.mark.parametrize(
    ("changed", "size"),
    [
        # Four cores each of 16; eleven times 20 minutes, and ten to spare.
        ({}, (4, 44)),
        # Two GPUs, or three runs on each.
        (ON_GPU, (2, 22)),
        (ON_GPU | {"gpu_percent": 33, "_cores": 1}, (6, 66)),
        # A data set's preparation needs no GPU.
        ({"gpu": 0, "gpu_percent": 100}, (4, 44)),
        # Of more than half the time, one each; of more than the cores, one after another.
        ({"runtime": 121}, (4, 4)),
        ({"_cores": 32}, (1, 11)),
        # A command names all jobs of a pack.
        ({"runtime": 2, "_cores": 1}, (16, 400)),
        # A long run is a job of its own, and so is each job without a pack.
        (ON_GPU | {"runtime": 1440, "pack_gpus": 1}, (1, 1)),
        ({"pack_minutes": 0}, (1, 1)),
    ],
)
def test_a_pack_holds_what_its_minutes_and_its_room_allow(changed, size):
    assert pack_size(RUN | changed) == size


def test_a_job_without_a_time_limit_or_a_profile_is_not_packed():
    assert pack_size({"_cores": 1}) == pack_size({"_cores": 1, "pack_minutes": 60}) == (1, 1)


def test_a_pack_asks_for_what_runs_at_once_and_for_the_time_of_all():
    asked = pack_resources(RUN | ON_GPU | {"slurm_partition": "gpu"}, at_once=2, jobs=5)
    assert (asked["_cores"], asked["mem_mb"], asked["gpu"], asked["runtime"]) == (8, 6000, 2, 70)
    assert asked["slurm_partition"] == "gpu"
    few = pack_resources(RUN, at_once=4, jobs=3)
    assert (few["_cores"], few["mem_mb"], few["runtime"], few.get("gpu", 0)) == (12, 9000, 30, 0)
    shared = pack_resources(RUN | {"gpu": 1, "gpu_percent": 33, "_cores": 1}, at_once=6, jobs=6)
    assert shared["gpu"] == 2


def test_packs_are_even_and_hold_every_job_once():
    parts = split_evenly(list(range(129)), 128)
    assert [len(part) for part in parts] == [65, 64]
    assert sorted(number for part in parts for number in part) == list(range(129))
    assert split_evenly([1, 2, 3], 1) == [[1], [2], [3]]


@pytest.mark.parametrize(("scale", "most"), [("demo", 115), ("small", 23), ("gpu", 11), ("paper", 1)])
def test_the_profile_packs_short_runs_only(scale, most):
    profile = yaml.safe_load((REPOSITORY / "profiles" / "slurm" / "config.yaml").read_text())
    runtime = Workflow(REPOSITORY / "workflow", Settings(scale=scale)).run_minutes
    train = {"_cores": profile["set-threads"]["train"], "gpu_percent": 100, "runtime": runtime}
    assert pack_size(profile["default-resources"] | train | profile["set-resources"]["train"]) == (1, most)
