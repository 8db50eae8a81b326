"""The GPUs that a process may use, from CUDA_VISIBLE_DEVICES and nvidia-smi."""

import pytest

from stlight.runtime.gpu_lease import pool
from tests.runtime.conftest import TWO_GPUS, UUIDS

pytestmark = pytest.mark.usefixtures("machine")

MIG = "\n".join(
    [
        f"GPU 0: A Card (UUID: {UUIDS[0]})",
        "  MIG 3g.20gb     Device  0: (UUID: MIG-1)",
        "  MIG 3g.20gb     Device  1: (UUID: MIG-2)",
        f"GPU 1: A Card (UUID: {UUIDS[1]})",
    ]
)


@pytest.mark.parametrize(
    ("given", "gpus"),
    [
        ("3, 1", ["3", "1"]),
        ("00,1", ["0", "1"]),
        ("0,-1,1", ["0"]),
        ("2,x,1", ["2"]),
        ("NoDevFiles", []),
        ("", []),
        (",".join(UUIDS), UUIDS),
        ("MIG-1,MIG-GPU-2/1/0", ["MIG-1", "MIG-GPU-2/1/0"]),
    ],
)
def test_the_pool_is_what_cuda_would_see(monkeypatch, given, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert pool() == gpus


@pytest.mark.parametrize(
    ("given", "gpus"),
    [(None, ["0", "1"]), ("1", ["1"]), ("1,2,0", ["1"]), ("GPU-b,0", ["GPU-b", "0"]), ("GPU-c,0", [])],
)
def test_the_pool_has_only_gpus_that_nvidia_smi_lists(monkeypatch, nvidia_smi, given, gpus):
    nvidia_smi(TWO_GPUS)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES") if given is None else monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    assert pool() == gpus


def test_mig_parts_replace_their_gpu(monkeypatch, nvidia_smi):
    nvidia_smi(MIG)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert pool() == ["MIG-1", "MIG-2", "1"]


def test_if_nvidia_smi_fails_the_names_are_used_as_given(nvidia_smi):
    nvidia_smi("NVIDIA-SMI has failed", status=9)
    assert pool() == ["0", "1"]


@pytest.mark.parametrize("given", ["1,0,1", f"0,{UUIDS[0]}", "GPU-b,1"])
def test_a_gpu_named_twice_is_refused(monkeypatch, nvidia_smi, given):
    nvidia_smi(TWO_GPUS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    with pytest.raises(ValueError, match="twice"):
        pool()
