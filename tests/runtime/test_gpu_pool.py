"""The GPUs that a process may use, from CUDA_VISIBLE_DEVICES and nvidia-smi."""

import pytest

from stlight.runtime.gpu_lease import pool
from tests.runtime.conftest import TWO_GPUS

pytestmark = pytest.mark.usefixtures("machine")


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("3, 1", ["3", "1"]),
        ("0,-1,1", ["0"]),
        ("2,x,1", ["2"]),
        ("1,0,1", ["1", "0"]),
        ("NoDevFiles", []),
        ("", []),
        ("GPU-a,MIG-1,MIG-GPU-2/1/0", ["GPU-a", "MIG-1", "MIG-GPU-2/1/0"]),
    ],
)
def test_the_pool_is_what_cuda_would_see(monkeypatch, nvidia_smi, given, gpus):
    nvidia_smi(TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert pool() == gpus


@pytest.mark.parametrize(("status", "gpus"), [(0, ["0", "1"]), (9, [])])
def test_without_a_name_the_pool_is_all_gpus_by_index(monkeypatch, nvidia_smi, status, gpus):
    nvidia_smi(TWO_GPUS, status)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert pool() == gpus
