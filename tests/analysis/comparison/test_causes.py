"""Each change of a run's origin is named, by its kind and field, and nothing else is."""

import copy

import pytest

from stlight.analysis.comparison.causes import causes, differing_setup
from stlight.config import ComputeConfig, RunConfig
from stlight.registry.dataset_specs import ClipShape
from stlight.runs.record import RunRecord
from tests.tiny_runs import tiny

CONFIGURATION = {
    "hidden_dim": 32, "depth": 6, "overlap": 2, "k1": 5, "k2": 9, "dilation": 2, "decoder": "reassemble_shuffle",
    "initialization": "kaiming_normal", "skip": False, "skip_parts": 5, "prediction": "rollout", "patch_size": 4,
    "schedule": "cosine", "max_lr": 0.02, "final_div_factor": 1e3, "warmup_epochs": 1, "warmup_lr": 1e-4, "min_lr": 1e-5,
    "num_epochs": 4, "batch_size": 4, "sampling_steps": 100, "lpips": True,
    "model": "TAU", "baseline_width": 0.5, "baseline_depth": 0.5, "benchmark_version": "corrected",
}  # fmt: skip
DATA = {
    "clips_per_epoch": 12,
    "validation_clips": 4,
    "test_clips": 5,
    "downsampling": 2,
    "source": "files",
    "dataset": "kth",
    "custom_shape": ClipShape(1, 1, 1, 8, 8),
}
BACKEND = {
    "precision": "bfloat16", "tf32": False, "kernels": "plain", "cuda_graphs": True, "deterministic": True,
    "accumulation_steps": 2, "out_of_memory": "split",
}  # fmt: skip
FACTS = [
    ("device", "device.type", "cuda"),
    ("device", "device.name", "NVIDIA H100"),
    ("device", "device.cuda", "12.8"),
    ("device", "device.gpus", ["GPU 3"]),
    ("device", "device.changed", ["from epoch 2, step 9: threads 2 after 1"]),
    ("threads", "device.threads", 4),
    ("backend", "device.kernels", "triton"),
    ("backend", "device.dropped_out", {"triton": "no compiler"}),
    ("backend", "device.accumulation_steps", 4),
    ("device", "provenance.host", "other"),
    ("code", "provenance.code", "abcdef123456+changes"),
    ("code", "provenance.source", "0123456789abcdef"),
    ("versions", "provenance.libraries.torch", "2.14.0"),
    ("versions", "provenance.libraries.numpy", "2.5.0"),
    ("versions", "provenance.libraries.stlight", "0.2.0"),
    ("versions", "provenance.python", "3.13.1"),
    ("data", "provenance.data.source", "files"),
    ("data", "provenance.data.sha256", "feed"),
    ("data", "provenance.data.frames.test.sha256", "beef"),
    ("data", "trivial.all_zeros.mse", 175.1),
    ("code", "num_params", 1001),
    ("code", "prediction_flops", 11),
]


def record(config=None, **changed):
    fields = {
        "run": "taxibj/stlight_l/seed0",
        "config": tiny(),
        "config_hash": tiny().hash,
        "status": "done",
        "metrics": {"last": {"epoch": 3.0, "mse": 1.0}},
        "trivial": {"all_zeros": {"mse": 175.0}},
        "num_params": 1000,
        "prediction_flops": 10,
        "seconds": {"training": 1.0, "total": 2.0},
        "device": {"type": "cpu", "name": "x86_64", "threads": 1, "kernels": "fused", "mixer_milliseconds": {"fused": 0.7}},
        "provenance": {
            "code": "f551e98f2fdd",
            "source": "1c45a2a63c981f75",
            "libraries": {"stlight": "0.1.0", "torch": "2.13.0+cpu", "numpy": "2.4.6"},
            "python": "3.11.7",
            "data": {"dataset": "taxibj", "source": "stand_in", "frames": {"test": {"sha256": "cafe"}}},
            "started": "2026-11-24T19:35:46+00:00",
            "host": "vm",
        },
    }
    # A copy, because not every change alone makes a valid configuration.
    return RunRecord(**(fields | changed)).model_copy(update={"config": config or tiny()})


def changed_config(**fields):
    """Return the configuration with fields changed, unchecked."""
    config = tiny()
    sections = {name: {k: v for k, v in fields.items() if k in type(part).model_fields} for name, part in parts(config).items()}
    return config.model_copy(update={name: parts(config)[name].model_copy(update=update) for name, update in sections.items()})


def parts(config):
    return {"model": config.model, "data": config.data, "training": config.training}


def with_fact(path, value):
    """Return a record with one fact changed, which may be new."""
    content = record().model_dump()
    inner, names = content, path.split(".")
    for name in names[:-1]:
        inner = inner.setdefault(name, {})
    inner[names[-1]] = value
    return RunRecord.model_validate(content)


FIELDS = [(kind, name, value) for kind, fields in (("configuration", CONFIGURATION), ("data", DATA), ("backend", BACKEND))
          for name, value in fields.items() if tiny().fields[name] != value]  # fmt: skip


def test_at_least_fifty_changes_are_tried():
    assert len(FIELDS) + len(FACTS) + 1 >= 50


@pytest.mark.parametrize(("kind", "name", "value"), FIELDS)
def test_a_changed_field_of_the_configuration_is_named(kind, name, value):
    found = causes(record(), record(changed_config(**{name: value})))
    assert [(cause.kind, cause.name) for cause in found] == [(kind, name)]
    assert found[0].a != found[0].b


def test_a_changed_seed_is_named():
    (found,) = causes(record(), record(tiny().model_copy(update={"seed": 7})))
    assert (found.kind, found.name, found.a, found.b) == ("seed", "seed", "0", "7")


@pytest.mark.parametrize(("kind", "path", "value"), FACTS)
def test_a_changed_fact_is_named(kind, path, value):
    (found,) = causes(record(), with_fact(path, value))
    assert found.kind == kind
    assert found.a != found.b


def test_a_fact_that_one_side_lacks_is_not_stated():
    (found,) = causes(record(), with_fact("device.cuda", "12.8"))
    assert (found.a, found.b) == ("not stated", "12.8")


def test_times_and_results_are_no_causes():
    other = record(seconds={"training": 9.0, "total": 9.5}, metrics={"last": {"epoch": 3.0, "mse": 2.0}}, status="diverged")
    facts = copy.deepcopy(other.provenance) | {"started": "2027-01-01T00:00:00+00:00"}
    timed = other.device | {"mixer_milliseconds": {"plain": 3.0}}
    rounded = {"all_zeros": {"mse": 175.0 * (1 + 1e-9)}}
    assert causes(record(), other.model_copy(update={"provenance": facts, "device": timed, "trivial": rounded})) == []


def test_consequences_of_another_configuration_are_not_named():
    other = record(changed_config(depth=6), num_params=2000)
    assert [cause.name for cause in causes(record(), other)] == ["depth"]


def test_the_seed_and_the_way_of_computing_do_not_change_what_is_trained():
    computing = changed_config(**BACKEND).model_copy(update={"seed": 3})
    assert differing_setup([record()], [record(computing)]) == []
    assert differing_setup([record()], [record(), record(changed_config(k2=9, max_lr=0.5))]) == ["k2", "max_lr"]
    assert set(BACKEND) == set(ComputeConfig.model_fields)


def test_every_field_of_the_configuration_is_tried():
    assert RunConfig().fields.keys() == {name for _, name, _ in FIELDS}
