"""Loading the results of a scale, whole or damaged."""

import dataclasses
import hashlib
import json
import math
import re

import pytest

from stlight.analysis.evidence import (
    IncompleteError,
    Missing,
    MixedVersionsError,
    ResultsFolder,
    load_one,
)
from stlight.runs.record import Heartbeat, RecordError, read_record, write_record
from tests.analysis.conftest import write_counts, write_examples, write_timings


@pytest.fixture
def evidence_of(demo, tmp_path):
    return lambda experiment: load_one(experiment, demo.scale, ResultsFolder(tmp_path))


def test_a_damaged_record_is_missing_and_named(demo, record_run, evidence_of, tmp_path):
    experiment = demo.experiment("figure1_initialization")
    for seed in range(5):
        record_run(experiment, experiment.variants[0], seed, mse=10.0 + seed)
    name = experiment.variants[0].run_name(4)
    damaged = tmp_path / "runs" / name / "record.json"
    damaged.write_text(damaged.read_text().replace("14.0", "99.0"))
    evidence = evidence_of(experiment)
    assert len(evidence.records) == 4
    assert evidence.missing[name].state == "damaged"
    assert evidence.missing[name].why.startswith(f"{damaged} is not a valid record: its content does not have")
    assert evidence.missing["mmnist/init=kaiming_normal+lr=0.001/seed0"] == Missing("waiting")
    assert len(evidence.missing) == 11
    with pytest.raises(IncompleteError, match="11 of its 15 runs have no record"):
        evidence.check_complete()


def test_a_record_of_another_configuration_does_not_count(demo, record_run, evidence_of):
    experiment = demo.experiment("table5_final_div_factor")
    old = experiment.variants[0]
    changed = old.config.model_copy(update={"training": old.config.training.model_copy(update={"num_epochs": 99})})
    record_run(experiment, dataclasses.replace(old, config=changed), mse=1.0)
    evidence = evidence_of(experiment)
    assert not evidence.records
    assert evidence.missing[old.run_name(0)] == Missing("waiting", "its record is of another configuration")


def test_the_reason_for_a_missing_run(demo, evidence_of, tmp_path):
    experiment = demo.experiment("table2_openstl")
    name, config_hash = experiment.run_names[0], experiment.variants[0].run_config(0).hash

    def reason():
        return str(evidence_of(experiment).missing[name])

    log = tmp_path / "logs" / "train" / f"{name}.log"
    log.parent.mkdir(parents=True)
    log.write_text("")
    assert reason() == f"waiting: ended without a word in {log}"
    log.write_text("Traceback\nImportError: no torch\n\n")
    assert reason() == "waiting: ImportError: no torch"
    heartbeat = Heartbeat(tmp_path / "runs" / name, config_hash=config_hash, num_epochs=5)
    heartbeat.beat(epoch=3, seconds=1.0)
    assert reason() == "interrupted: its process is gone"
    heartbeat.beat(error="OutOfMemory: out of memory on cuda")
    assert reason() == "failed: OutOfMemory: out of memory on cuda"


def test_mixed_versions_are_refused_and_named(demo, record_run, evidence_of):
    experiment = demo.experiment("figure1_initialization")
    for seed in range(3):
        record_run(experiment, experiment.variants[0], seed)
    evidence = evidence_of(experiment)

    def made_by(name, source, torch):
        provenance = {"source": source, "code": "abc", "libraries": {"torch": torch}}
        record = evidence.runs[name].record.model_copy(update={"provenance": provenance})
        evidence.runs[name] = dataclasses.replace(evidence.runs[name], record=record)

    # Builds of one torch for different devices are one version.
    for name, torch in zip(evidence.runs, ("2.13.0+cpu", "2.13.0+cu130", "2.13.0"), strict=True):
        made_by(name, "s1", torch)
    evidence.check_versions()
    last = list(evidence.runs)[-1]
    for source, torch in (("s2", "2.13.0"), ("s1", "2.14.0")):
        made_by(last, source, torch)
        with pytest.raises(MixedVersionsError, match=rf"2 versions of the code: 2 of .*; 1 of {source}.*{re.escape(last)}"):
            evidence.check_versions()


@pytest.mark.parametrize("write", [write_counts, write_timings])
def test_counts_and_timings_of_another_version_are_mixed_too(timed, record_run, evidence_of, tmp_path, write):
    record_run(timed, timed.variants[0])
    write_counts(timed, tmp_path)
    write_timings(timed, tmp_path)
    evidence_of(timed).check_versions()
    path = write(timed, tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"provenance": {"source": "s2"}}))
    with pytest.raises(MixedVersionsError, match=rf"2 versions of .*; 1 of s2 .*, {path.relative_to(tmp_path)} the first"):
        evidence_of(timed).check_versions()


@pytest.fixture
def timed(demo):
    """An experiment that also asks for times and memory."""
    experiment = demo.experiment("figure1_initialization")
    return dataclasses.replace(experiment, metrics={"mmnist": ["epoch_seconds", "mse", "peak_memory", "num_params"]})


def test_missing_timings_and_counts_say_what_to_do(timed, evidence_of, tmp_path):
    evidence, name = evidence_of(timed), timed.name
    assert evidence.unmeasured == [
        f"{tmp_path}/complexity/{name}.json is missing: python -m stlight count {name}",
        f"{tmp_path}/speed/{name}.json is missing: python -m stlight measure {name}",
    ]
    write_timings(timed, tmp_path)
    write_counts(timed, tmp_path)
    evidence = evidence_of(timed)
    assert evidence.unmeasured == []
    assert evidence.timings["rounds"] == 7


@pytest.mark.parametrize("changed", [{"config_hash": "other"}, {"peak_memory": None}, {"epoch_seconds": math.nan}])
def test_timings_of_another_configuration_and_damaged_ones_are_missing(timed, evidence_of, tmp_path, changed):
    write_counts(timed, tmp_path)
    path = write_timings(timed, tmp_path, {"lr=0.001": changed})
    problem = f"{path} is damaged or of another grid: python -m stlight measure {timed.name}"
    assert evidence_of(timed).unmeasured == [problem]
    path.write_text("{")
    assert evidence_of(timed).unmeasured == [problem]


def test_counts_that_lack_a_newer_metric_are_counted_again(demo, evidence_of, tmp_path):
    experiment = dataclasses.replace(demo.experiment("table2_openstl"), metrics={"mmnist": ["prediction_flops", "mse"]})
    write_counts(experiment, tmp_path)
    assert "of another grid" in evidence_of(experiment).unmeasured[0]
    write_counts(experiment, tmp_path, prediction_flops=3)
    assert "complexity" not in str(evidence_of(experiment).unmeasured)


def test_damaged_examples_are_named(demo, record_run, evidence_of, tmp_path):
    experiment = demo.experiment("figure1_initialization")
    variant = experiment.variants[0]
    record_run(experiment, variant)
    write_examples(experiment, tmp_path, variant)
    evidence, name = evidence_of(experiment), variant.run_name(0)
    context, truth, _ = evidence.examples(name)
    assert (len(context), truth.max()) == (2, 99)
    path = tmp_path / "runs" / name / "examples.npz"
    record = evidence.runs[name].record.model_copy(update={"files": {path.name: hashlib.sha256(path.read_bytes()).hexdigest()}})
    evidence.runs[name] = dataclasses.replace(evidence.runs[name], record=record)
    assert len(evidence.examples(name)) == 3
    # The first test clips of another run are as readable.
    write_examples(experiment, tmp_path, variant, size=(16, 16))
    with pytest.raises(RecordError, match=re.escape(f"{path} is damaged: it does not have the checksum")):
        evidence.examples(name)
    record.files.clear()
    path.write_bytes(b"damaged")
    with pytest.raises(RecordError, match=re.escape(f"{path} is damaged")):
        evidence.examples(name)


def test_losses_that_are_missing_or_damaged_make_a_run_damaged(demo, record_run, evidence_of, tmp_path):
    experiment = demo.experiment("table3_kernel_sizes")
    first, second, *_ = experiment.variants
    record_run(experiment, first)
    record_run(experiment, second)
    (tmp_path / "runs" / first.run_name(0) / "losses.csv").unlink()
    path = tmp_path / "runs" / second.run_name(0) / "record.json"
    losses = path.with_name("losses.csv")
    record = read_record(path)
    digest = hashlib.sha256(losses.read_bytes()).hexdigest()
    write_record(path, record.model_copy(update={"files": {"losses.csv": digest}}))
    assert len(evidence_of(experiment).runs[record.run].losses) == 3
    losses.write_text(losses.read_text()[:-1])
    found = evidence_of(experiment)
    assert found.missing[first.run_name(0)].state == "damaged"
    assert "losses.csv cannot be read" in found.missing[first.run_name(0)].why
    assert "losses.csv is damaged: it does not have the checksum" in found.missing[record.run].why


def test_spikes_on_the_way_are_counted(demo, record_run, evidence_of):
    experiment = demo.experiment("table3_kernel_sizes")
    # Ten times the worst trivial predictor is 2880; the last evaluation is no spike but a divergence.
    record_run(experiment, experiment.variants[0], losses=(28.7, 28.9, 1e30, 2.0, 29.0))
    assert [run.spikes for run in evidence_of(experiment).runs.values()] == [2]
