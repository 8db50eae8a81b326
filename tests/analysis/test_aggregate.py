import dataclasses
import json
import math

import pytest

from stlight.analysis.aggregate import (
    MixedVersionsError,
    aggregate,
    best_variants,
    check_versions,
    interval,
    load_records,
    load_speeds,
    missing_runs,
    missing_speeds,
)
from stlight.runs.record import Heartbeat


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
    name = experiment.run_names[0]
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


@pytest.fixture
def timed(demo):
    """An experiment that also asks for times and memory."""
    experiment = demo.experiment("figure1_initialization")
    return dataclasses.replace(experiment, metrics={"mmnist": ["epoch_seconds", "mse", "peak_memory", "num_params"]})


def write_speeds(experiment, folder, **changed):
    found = {"epoch_seconds": 2.5, "clips_per_second": 40.0, "peak_memory": 3 * 2**20}
    variants = {f"{v.dataset}/{v.name}": found | {"config_hash": v.config.hash} for v in experiment.variants}
    variants["mmnist/stlight_l"] |= changed
    path = folder / "speed" / f"{experiment.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"device": {"type": "cpu"}, "threads": 1, "rounds": 5, "variants": variants}))
    return path


def test_times_and_memory_wait_until_they_are_measured(timed, tmp_path):
    row = cell(aggregate(timed, tmp_path), initialization="hybrid", metric="epoch_seconds")
    assert (row["status"], row["n"]) == ("waiting", 0)
    assert math.isnan(row["measured"])
    words = f"{tmp_path / 'speed' / 'figure1_initialization.json'} is missing: python -m stlight measure figure1_initialization"
    assert missing_speeds(timed, tmp_path) == words
    with pytest.raises(FileNotFoundError):
        load_speeds(timed, tmp_path)
    write_speeds(timed, tmp_path, epoch_seconds=7.5)
    table = aggregate(timed, tmp_path)
    row = cell(table, initialization="hybrid", metric="epoch_seconds")
    assert (row["measured"], row["status"], row["n"], row["selection"]) == (7.5, "measured", 1, "-")
    assert cell(table, initialization="kaiming_normal", metric="epoch_seconds")["measured"] == 2.5
    assert cell(table, initialization="hybrid", metric="peak_memory")["measured"] == 3 * 2**20
    assert missing_speeds(timed, tmp_path) == ""


def test_times_and_memory_are_never_ranked(timed, record_run, tmp_path):
    for number, v in enumerate(timed.variants):
        for seed in range(timed.seeds):
            record_run(timed, v, seed, mse=100.0 * number + seed)
    write_speeds(timed, tmp_path, epoch_seconds=0.1)
    table = aggregate(timed, tmp_path)
    assert set(table.loc[table["metric"] != "mse", "standing"]) == {""}
    assert list(table.attrs["rankings"]) == [("mmnist", "mse")]
    # The first metric is one of time, and the fastest is not the best.
    write_speeds(timed, tmp_path, epoch_seconds=100.0)
    assert best_variants(timed, aggregate(timed, tmp_path))["mmnist"] is timed.variants[0]


@pytest.mark.parametrize("changed", [{"config_hash": "other"}, {"peak_memory": None}, {"epoch_seconds": math.nan}])
def test_times_of_another_configuration_and_damaged_ones_are_none(timed, tmp_path, changed):
    path = write_speeds(timed, tmp_path, **changed)
    again = f"{path} is damaged or of another grid: python -m stlight measure {timed.name}"
    assert missing_speeds(timed, tmp_path) == again
    path.write_text("{")
    assert missing_speeds(timed, tmp_path) == again
    assert set(aggregate(timed, tmp_path).query("metric == 'epoch_seconds'")["status"]) == {"waiting"}


def test_every_counted_metric_is_read_by_its_name(demo, tmp_path):
    experiment = dataclasses.replace(
        demo.experiment("table2_openstl"), metrics={"mmnist": ["prediction_flops", "benchmark_flops", "mse"]}
    )
    (tmp_path / "complexity").mkdir()
    path = tmp_path / "complexity" / "table2_openstl.json"
    names = [f"{v.dataset}/{v.name}" for v in experiment.variants]
    older = {"parameters": {"total": 1}, "benchmark_flops": 2}
    path.write_text(json.dumps(dict.fromkeys(names, older)))
    # Counted before there was this metric: to be counted again.
    assert cell(aggregate(experiment, tmp_path), model="STLight-L", metric="prediction_flops")["status"] == "waiting"
    path.write_text(json.dumps(dict.fromkeys(names, older | {"prediction_flops": 3})))
    row = cell(aggregate(experiment, tmp_path), model="STLight-L", metric="prediction_flops")
    assert (row["measured"], row["status"]) == (3, "counted")


def test_published_rows_of_models_in_the_grid_are_theirs(demo, record_run, tmp_path):
    base = demo.experiment("table2_openstl")
    names = ["STLight-L", "TAU", "MIM"]
    grid = demo.experiment("table3_kernel_sizes").variants
    variants = [dataclasses.replace(v, axes={"model": name}) for name, v in zip(names, grid, strict=False)]
    own = [e for e in base.published if e["model"] in names]
    quoted = [e for e in base.published if e["model"] not in names]
    experiment = dataclasses.replace(
        base, axes=["model"], variants=variants, published=own, quoted=quoted, metrics={"mmnist": ["mse"]}
    )
    record_run(experiment, variants[1], mse=50.0)
    table = aggregate(experiment, tmp_path)
    assert list(table.columns[:2]) == ["model", "data"]
    row = cell(table, model="TAU")
    assert (row["published"], row["measured"], row["status"]) == (15.69, 50.0, "done")
    assert cell(table, model="PhyDNet")["status"] == "quoted"
    assert len(table) == len(base.published)
    # Where the grid has every model, none is quoted.
    table = aggregate(dataclasses.replace(experiment, quoted=[]), tmp_path)
    assert list(table["published"]) == [14.77, 15.69, 14.73]
