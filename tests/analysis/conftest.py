import json

import numpy as np
import pytest

from stlight.analysis.evidence import ResultsFolder, key, load_one
from stlight.analysis.values import Values
from tests.tiny_runs import record_untrained


@pytest.fixture
def record_run(tmp_path):
    """Write the record and history of a run that was never trained, with numbers of the test's choosing."""

    def write(experiment, variant, seed=0, **told):
        record_untrained(tmp_path, variant.run_name(seed), variant.run_config(seed), **told)

    return write


@pytest.fixture
def values_of(demo, tmp_path):
    """Load the values of an experiment from the test's folder."""

    def load(experiment):
        return Values(load_one(experiment, demo.scale, ResultsFolder(tmp_path)))

    return load


def write_counts(experiment, folder, **changed):
    """Write counts of an experiment: the same for each variant, but for what is changed."""
    parts = {"patch_encoder": 10, "mixers": 100, "patch_reassemble": 1}
    count = {
        "parameters": parts | {"total": 33_047_710},
        "closed_forms": parts,
        "weights": parts | {"patch_shuffle": 0},
        "benchmark_flops": 33_686_732_800,
    }
    count |= {"flops_fvcore": 10**9} | changed
    return _write(experiment, folder, "complexity", {key(v): count for v in experiment.variants})


def write_timings(experiment, folder, changed=None):
    """Write timings of an experiment: the same for each variant, but for what is changed by its name."""
    found = {"epoch_seconds": 2.5, "clips_per_second": 40.0, "peak_memory": 3 * 2**20}
    variants = {key(v): found | {"config_hash": v.config.hash} | (changed or {}).get(v.name, {}) for v in experiment.variants}
    device = {"type": "cuda", "name": "A GPU"}
    return _write(experiment, folder, "speed", {"device": device, "threads": 2, "rounds": 7, "variants": variants})


def _write(experiment, folder, kind, content):
    path = folder / kind / f"{experiment.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def write_examples(experiment, folder, variant, seed=0, size=None):
    """Write example clips of a run: black context, grey truth and prediction."""
    shape = variant.config.clip_shape
    frame = (shape.channels, *(size or (shape.height, shape.width)))
    context = np.zeros((2, shape.context_frames, *frame), np.uint8)
    future = np.full((2, shape.horizon_frames, *frame), 99, np.uint8)
    path = folder / "runs" / variant.run_name(seed) / "examples.npz"
    np.savez(path, context=context, truth=future, prediction=future)
