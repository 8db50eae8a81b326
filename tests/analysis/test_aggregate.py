import math

import pandas as pd
import pytest

from stlight.analysis.aggregate import aggregate, best_variants, dispersion, interval


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


def test_dispersion_by_hand():
    # Differences -2, -1, 0: standard deviation 1.
    assert dispersion(pd.Series([5.0, 3.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert math.isnan(dispersion(pd.Series([5.0, 3.0])))


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
    record_run(experiment, variant(experiment, "epochs=50"), mse=0.5)
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
