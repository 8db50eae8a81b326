import math

import pytest

from stlight.analysis.aggregate import (
    MixedVersionsError,
    aggregate,
    best_variants,
    check_versions,
    interval,
    load_records,
    missing_runs,
)
from stlight.records import Heartbeat


def variant(experiment, name):
    return next(v for v in experiment.variants if v.name == name)


def cell(table, **place):
    rows = table
    for column, value in place.items():
        rows = rows[rows[column] == value]
    assert len(rows) == 1
    return rows.iloc[0]


def test_interval_by_hand():
    # mean 4, standard deviation 2, n = 3: half width 4.3027 · 2 / √3.
    assert interval([2.0, 4.0, 6.0]) == pytest.approx((4 - 4.9683, 4 + 4.9683), abs=1e-3)
    assert all(map(math.isnan, interval([1.0])))
    assert all(map(math.isnan, interval([1.0, math.nan])))


def test_means_intervals_and_runs_of_a_cell(demo, record_run, tmp_path):
    experiment = demo.experiment("figure1_initialization")
    hybrid = variant(experiment, "stlight_l")
    for seed, mse in enumerate([10.0, 20.0, 30.0, 40.0, 50.0]):
        record_run(experiment, hybrid, seed, mse=mse)
    table = aggregate(experiment, tmp_path)
    row = cell(table, initialization="hybrid")
    assert (row["measured"], row["n"], row["status"], row["selection"]) == (30, 5, "done", "last")
    assert (row["low"], row["high"]) == pytest.approx((30 - 19.632, 30 + 19.632), abs=1e-2)
    assert row["runs"].split(";") == [f"mmnist/stlight_l/seed{k}" for k in range(5)]
    assert cell(table, initialization="kaiming_normal")["status"] == "waiting"


def test_a_diverged_seed_is_never_missing(demo, record_run, tmp_path):
    experiment = demo.experiment("figure1_initialization")
    normal = variant(experiment, "init=kaiming_normal")
    for seed in range(4):
        record_run(experiment, normal, seed, mse=10.0)
    record_run(experiment, normal, 4, status="diverged", mse=None)
    row = cell(aggregate(experiment, tmp_path), initialization="kaiming_normal")
    assert row["status"] == "diverged"
    assert row["n"] == 5
    assert math.isnan(row["measured"])


def test_published_stands_beside_measured(demo, record_run, tmp_path):
    experiment = demo.experiment("table3_kernel_sizes")
    record_run(experiment, variant(experiment, "k1=11+k2=5"), mse=123.0)
    row = cell(aggregate(experiment, tmp_path), k1=11, k2=5)
    assert (row["published"], row["measured"], row["data"]) == (23.14, 123.0, "embedded digits")


def test_quoted_rows_are_told_from_ours(demo, tmp_path):
    table = aggregate(demo.experiment("table1_literature"), tmp_path)
    assert len(table) == 3 + 28
    assert cell(table, model="TAU", dataset="kth")["published"] == 0.911
    assert set(table.loc[table["status"] == "quoted", "model"]) & {"STLight-L"} == set()
    assert cell(table, model="STLight-L", dataset="taxibj")["data"] == "stand-in"


def test_derived_metrics(demo, record_run, tmp_path):
    experiment = demo.experiment("table1_literature")
    record_run(experiment, next(v for v in experiment.variants if v.dataset == "taxibj"), mse=0.5)
    assert cell(aggregate(experiment, tmp_path), model="STLight-L", dataset="taxibj")["measured"] == 50
    experiment = demo.experiment("figure2_decoder_order")
    record_run(experiment, variant(experiment, "dim=700"), losses=(5.0, 3.0, 2.0, 2.0))
    row = cell(aggregate(experiment, tmp_path), decoder="shuffle_reassemble", hidden_dim=700, depth=16, metric="dispersion")
    assert row["measured"] == pytest.approx(1.0)


def test_the_best_variant_is_the_one_with_the_lowest_mse(demo, record_run, tmp_path):
    experiment = demo.experiment("table3_kernel_sizes")
    for v in experiment.variants:
        record_run(experiment, v, mse=math.nan if v.name == "k1=9" else abs(v.axes["k1"] - 5) + abs(v.axes["k2"] - 9))
    assert best_variants(experiment, aggregate(experiment, tmp_path))["mmnist"].name == "k1=5+k2=9"
    assert best_variants(experiment, aggregate(experiment, tmp_path / "empty")) == {}


def test_a_damaged_record_is_never_averaged(demo, record_run, tmp_path):
    experiment = demo.experiment("figure1_initialization")
    hybrid = variant(experiment, "stlight_l")
    for seed in range(5):
        record_run(experiment, hybrid, seed, mse=10.0 + seed)
    damaged = tmp_path / "runs" / hybrid.run_name(4) / "record.json"
    damaged.write_text(damaged.read_text().replace("14.0", "99.0"))
    row = cell(aggregate(experiment, tmp_path), initialization="hybrid")
    assert (row["measured"], row["n"], row["status"]) == (11.5, 4, "waiting")
    missing = missing_runs(experiment, tmp_path)
    assert missing[hybrid.run_name(4)].startswith(f"damaged: {damaged} is not a valid record: its content does not have")
    assert missing["mmnist/init=kaiming_normal/seed0"] == "waiting"
    assert len(missing) == 11


def test_why_a_run_is_not_there(demo, tmp_path):
    experiment = demo.experiment("table2_openstl")
    (name,) = experiment.run_names
    config_hash = experiment.variants[0].run_config(0).hash
    log = tmp_path / "logs" / "train" / f"{name}.log"
    log.parent.mkdir(parents=True)
    log.write_text("")
    assert missing_runs(experiment, tmp_path)[name] == f"waiting: ended without a word in {log}"
    log.write_text("Traceback\nImportError: no torch\n\n")
    assert missing_runs(experiment, tmp_path)[name] == "waiting: ImportError: no torch"
    heartbeat = Heartbeat(tmp_path / "runs" / name, config_hash=config_hash, num_epochs=5)
    heartbeat.beat(epoch=3, seconds=1.0)
    assert missing_runs(experiment, tmp_path)[name] == "interrupted: its process is gone"
    heartbeat.beat(error="OutOfMemory: out of memory on cuda")
    assert missing_runs(experiment, tmp_path)[name] == "failed: OutOfMemory: out of memory on cuda"


def test_records_of_several_versions_are_told_apart(demo, record_run, tmp_path):
    experiment = demo.experiment("figure1_initialization")
    for seed in range(3):
        record_run(experiment, variant(experiment, "stlight_l"), seed)
    records = load_records(experiment, tmp_path)

    def made_by(source, torch):
        return {"source": source, "code": "abc", "libraries": {"torch": torch}}

    for number, (name, record) in enumerate(records.items()):
        # Builds of one torch for different devices are one version.
        where = made_by("s1", ["2.13.0+cpu", "2.13.0+cu130", "2.13.0"][number])
        records[name] = record.model_copy(update={"provenance": where})
    check_versions(experiment, records)
    last = "mmnist/stlight_l/seed2"
    for other in (made_by("s2", "2.13.0"), made_by("s1", "2.14.0")):
        mixed = records | {last: records[last].model_copy(update={"provenance": other})}
        with pytest.raises(MixedVersionsError, match=rf"2 versions of the code: 2 of .*; 1 of {other['source']}.*{last}"):
            check_versions(experiment, mixed)
