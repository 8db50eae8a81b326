"""The numbers of each seed and cell."""

import dataclasses
import math

import numpy as np
import pytest

from stlight.analysis.audit import selection_audit
from stlight.analysis.values import interval
from stlight.runs.record import SELECTIONS, read_record, write_record
from tests.analysis.conftest import write_counts, write_timings


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
    assert interval(np.array([2.0, 4.0, 6.0])) == pytest.approx((4 - 4.9683, 4 + 4.9683), abs=1e-3)
    assert interval(np.array([2.0, 2.0])) == (2, 2)
    assert all(map(math.isnan, interval(np.array([1.0]))))
    assert all(map(math.isnan, interval(np.array([1.0, math.nan]))))


def test_one_row_for_each_seed_metric_and_selection(demo, record_run, values_of, tmp_path):
    experiment = demo.experiment("table2_openstl")
    record_run(experiment, experiment.variants[0], mse=20.0)
    write_counts(experiment, tmp_path, prediction_flops=3)
    frame = values_of(experiment).by_seed
    assert not frame.duplicated(["dataset", "variant", "seed", "metric", "selection"]).any()
    recorded = frame[frame["seed"] == 0]
    assert set(recorded["selection"]) == set(SELECTIONS)
    assert set(recorded["metric"]) >= {"mse", "mse_x100", "dispersion", "steps_to_learn", "seconds"}
    assert len(frame[frame["metric"] == "benchmark_flops"]) == len(experiment.variants)
    assert frame["value"].dtype == float


def test_means_intervals_and_runs_of_a_cell(demo, record_run, values_of):
    experiment = demo.experiment("figure1_initialization")
    hybrid = variant(experiment, "lr=0.001")
    for seed, mse in enumerate([10.0, 20.0, 30.0, 40.0, 50.0]):
        record_run(experiment, hybrid, seed, mse=mse)
    table = values_of(experiment).cells
    row = cell(table, initialization="hybrid", metric="mse")
    assert (row["measured"], row["n"], row["status"], row["selection"]) == (30, 5, "done", "last")
    assert (row["low"], row["high"]) == pytest.approx((30 - 19.632, 30 + 19.632), abs=1e-2)
    assert row["runs"] == [f"mmnist/lr=0.001/seed{k}" for k in range(5)]
    assert row["values"] == [10, 20, 30, 40, 50]
    # The last epoch of the published band's edges.
    assert row["printed"] == "23.81 to 24.53"
    assert math.isnan(row["published"])
    waiting = cell(table, initialization="kaiming_normal", metric="mse")
    assert (waiting["status"], waiting["n"], waiting["values"]) == ("waiting", 0, [])


def test_a_diverged_run_is_the_worst_where_cells_are_compared_and_printed_as_recorded(demo, record_run, values_of):
    experiment = demo.experiment("figure1_initialization")
    for v in experiment.variants:
        for seed in range(experiment.seeds_of(v)):
            record_run(experiment, v, seed, mse=100.0 + seed)
    # Its last number looks best of all.
    diverged = variant(experiment, "init=kaiming_normal+lr=0.001")
    record_run(experiment, diverged, 4, status="diverged", mse=1.0)
    values = values_of(experiment)
    row = cell(values.cells, initialization="kaiming_normal", metric="mse")
    assert (row["status"], row["n"], row["values"][4]) == ("diverged", 5, 1)
    assert row["measured"] == pytest.approx(81.4)
    assert values.losses(diverged, "mse")[4] == math.inf
    assert values.losses(diverged, "ssim")[4] == math.inf
    assert row["p_best"] == 0
    assert values.best_variants()["mmnist"] is not diverged
    record_run(experiment, diverged, 4, status="diverged", mse=None)
    assert math.isnan(cell(values_of(experiment).cells, initialization="kaiming_normal", metric="mse")["measured"])


def test_published_stands_beside_measured(demo, record_run, values_of):
    experiment = demo.experiment("table3_kernel_sizes")
    record_run(experiment, variant(experiment, "k1=11+k2=5+lr=0.001"), mse=123.0)
    row = cell(values_of(experiment).cells, k1=11, k2=5)
    assert (row["published"], row["measured"], row["data"]) == (23.14, 123.0, "embedded digits")


def test_every_row_of_table_1_is_ours_beside_a_printed_number(demo, values_of):
    table = values_of(demo.experiment("table1_literature")).cells
    errors = table[table["metric"].isin(["mse", "mse_x100", "ssim"])]
    assert len(errors) == 3 + 28
    assert errors["published"].notna().all()
    assert cell(errors, model="TAU", dataset="kth")["published"] == 0.911
    assert "quoted" not in set(table["status"])
    assert cell(errors, model="STLight-L", dataset="taxibj")["data"] == "stand-in"


def test_rows_of_models_in_the_grid_are_not_quoted(demo, record_run, values_of):
    base = demo.experiment("table2_openstl")
    names = ["STLight-L", "TAU", "MIM"]
    grid = demo.experiment("table3_kernel_sizes").variants
    variants = [dataclasses.replace(v, axes={"model": name}) for name, v in zip(names, grid, strict=False)]
    own = [e for e in base.published if e.model in names]
    quoted = [e for e in base.published if e.model not in names]
    mse = {"mmnist": ["mse"]}
    experiment = dataclasses.replace(base, axes=["model"], variants=variants, published=own, quoted=quoted, metrics=mse)
    record_run(experiment, variants[1], mse=50.0)
    table = values_of(experiment).cells
    row = cell(table, model="TAU")
    assert (row["published"], row["measured"], row["status"]) == (15.69, 50.0, "done")
    assert cell(table, model="PhyDNet")["status"] == "quoted"
    assert len(table) == len(base.published)
    # No row is quoted if the grid has every model.
    assert list(values_of(dataclasses.replace(experiment, quoted=[])).cells["published"]) == [14.77, 15.69, 14.73]


def test_a_cell_has_learnt_what_it_does_better_than_every_trivial_predictor(demo, record_run, values_of):
    experiment = demo.experiment("figure1_initialization")
    trivial = {
        "repeat_last_frame": {"mse": 288.0, "mae": 337.0, "ssim": 0.66},
        "all_zeros": {"mse": 175.0, "mae": 202.0, "ssim": 0.77, "psnr": None},
        "mean_of_context": {"mse": 160.0, "mae": 400.0, "ssim": 0.3},
    }
    uniform, normal, hybrid = experiment.variants
    for seed in range(5):
        record_run(experiment, uniform, seed, trivial=trivial, mse=159.0, mae=195.0, ssim=0.78)
        record_run(experiment, hybrid, seed, trivial=trivial, mse=158.0, mae=210.0, ssim=0.7 if seed else 0.9)
    values = values_of(experiment)
    told = ("mse", "mse_x100", "mae", "ssim", "dispersion", "late_loss_dispersion")
    # 159 is better than 160, but not by 1 %.
    assert [values.learnt(uniform, metric) for metric in told] == [False, False, True, True, False, False]
    assert [values.learnt(hybrid, metric) for metric in told] == [True, True, False, False, True, True]
    assert values.best_trivial(uniform, "mse_x100") == ("mean_of_context", 16000)
    # There are no runs; nobody scored trivial predictions; counts and seconds are learnt by nobody.
    for variant, metric in ((normal, "mse"), (hybrid, "psnr"), (hybrid, "num_params"), (hybrid, "seconds")):
        assert values.learnt(variant, metric) is None
    assert cell(values.cells, initialization="hybrid", metric="mse")["learnt"] is True
    assert cell(values.cells, initialization="kaiming_normal", metric="mse")["learnt"] is None
    # Diverged seeds take no part, and a cell of which all diverged is told by that.
    record_run(experiment, uniform, 0, status="diverged", trivial=trivial, mse=1e9, mae=0.0)
    assert values_of(experiment).learnt(uniform, "mse") is False
    assert values_of(experiment).finished_mean(uniform, "mae") == 195
    for seed in range(5):
        record_run(experiment, normal, seed, status="diverged", trivial=trivial, mse=1.0)
    assert values_of(experiment).learnt(normal, "mse") is None


def test_derived_metrics(demo, record_run, values_of):
    experiment = demo.experiment("table1_literature")
    record_run(experiment, next(v for v in experiment.variants if v.dataset == "taxibj"), mse=0.5)
    assert cell(values_of(experiment).cells, model="STLight-L", dataset="taxibj", metric="mse_x100")["measured"] == 50
    experiment = demo.experiment("figure2_decoder_order")
    record_run(experiment, variant(experiment, "dim=800+depth=26+overlap=2+k1=5+lr=0.001"), losses=(5.0, 3.0, 2.0, 2.0))
    place = {"decoder": "shuffle_reassemble", "hidden_dim": 800, "depth": 26, "metric": "dispersion"}
    assert cell(values_of(experiment).cells, **place)["measured"] == pytest.approx(100.0)


def test_the_best_variant_is_the_one_with_the_lowest_mse(demo, record_run, values_of):
    experiment = demo.experiment("table3_kernel_sizes")
    assert values_of(experiment).best_variants() == {}
    for v in experiment.variants:
        record_run(experiment, v, mse=math.nan if v.name == "k1=9+lr=0.001" else abs(v.axes["k1"] - 5) + abs(v.axes["k2"] - 9))
    assert values_of(experiment).best_variants()["mmnist"].name == "k1=5+k2=9+lr=0.001"


def test_costs_are_shown_and_never_ranked(demo, record_run, values_of, tmp_path):
    metrics = {"mmnist": ["epoch_seconds", "mse", "peak_memory", "num_params"]}
    experiment = dataclasses.replace(demo.experiment("figure1_initialization"), metrics=metrics)
    row = cell(values_of(experiment).cells, initialization="hybrid", metric="epoch_seconds")
    assert (row["status"], row["n"], math.isnan(row["measured"])) == ("waiting", 0, True)
    for number, v in enumerate(experiment.variants):
        for seed in range(experiment.seeds_of(v)):
            record_run(experiment, v, seed, mse=100.0 * number + seed)
    # The first metric is a time, and the fastest is not the best.
    best, *others = experiment.variants
    write_timings(experiment, tmp_path, {best.name: {"epoch_seconds": 7.5}})
    write_counts(experiment, tmp_path)
    values = values_of(experiment)
    row = cell(values.cells, variant=best.name, metric="epoch_seconds")
    assert (row["measured"], row["status"], row["n"], row["selection"]) == (7.5, "measured", 1, "-")
    assert cell(values.cells, variant=others[0].name, metric="epoch_seconds")["measured"] == 2.5
    assert cell(values.cells, variant=best.name, metric="num_params")["status"] == "counted"
    assert set(values.cells.loc[values.cells["metric"] != "mse", "standing"]) == {""}
    assert list(values.rankings) == [("mmnist", "mse")]
    assert values.best_variants()["mmnist"] is best


def test_the_audit_compares_the_choices_of_the_epoch(demo, record_run, values_of, tmp_path):
    experiment = demo.experiment("table2_openstl")
    record_run(experiment, experiment.variants[0], mse=20.0)
    path = tmp_path / "runs" / experiment.run_names[0] / "record.json"
    record = read_record(path)
    picked = {"last": 20.0, "best_on_validation": 19.0, "best_on_test": 17.5}
    metrics = {selection: record.metrics["last"] | {"mse": mse, "ssim": mse / 100} for selection, mse in picked.items()}
    write_record(path, record.model_copy(update={"metrics": metrics}))
    audit = selection_audit(values_of(experiment))
    row = audit[audit["metric"] == "mse"].iloc[0]
    assert [row[name] for name in picked] == list(picked.values())
    assert row["optimism"] == 1.5
    # A higher SSIM is better.
    assert audit.loc[audit["metric"] == "ssim", "optimism"].iloc[0] == pytest.approx(-0.015)


def test_steps_to_learn_compare_the_loss_with_the_best_trivial_error_in_its_unit(demo, record_run, values_of):
    experiment = demo.experiment("table4_learning_rate_epochs")
    fast, slow, never, early = experiment.variants[:4]
    # A black frame's error is 175, in these units 1.75.
    for run, losses in ((fast, (1.7, 1.0)), (slow, (1.8, 1.7)), (never, (1.8, 1.76)), (early, (math.nan, math.nan))):
        record_run(experiment, run, losses=losses)
    values = values_of(experiment)
    steps = fast.config.num_steps // 2
    assert values.mean(fast, "steps_to_learn") == steps
    assert values.mean(slow, "steps_to_learn") == 2 * steps
    assert values.mean(never, "steps_to_learn") == math.inf
    assert math.isnan(values.mean(early, "steps_to_learn"))


def test_steps_to_learn_of_another_loss_are_unknown(demo, record_run, values_of):
    experiment = demo.experiment("table2_openstl")
    found = {}
    for model in ("STLight-L", "SimVP+IncepU", "PhyDNet", "PredNet", "TAU", "PredRNN"):
        run = next(v for v in experiment.variants if v.axes["model"] == model)
        record_run(experiment, run, losses=(1.0, 1.0))
        found[model] = not math.isnan(values_of(experiment).mean(run, "steps_to_learn"))
    assert [model for model, known in found.items() if known] == ["STLight-L", "SimVP+IncepU"]
