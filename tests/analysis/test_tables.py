"""Tables as readers see them, and figures as files."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from stlight.analysis.evidence import IncompleteError
from stlight.analysis.figures import write_figures
from stlight.analysis.tables import write_tables
from tests.analysis.conftest import write_counts, write_examples, write_timings


@pytest.fixture
def make(demo, record_run, values_of, tmp_path):
    """Record every run of an experiment, with MSE by a rule, and return the Markdown table that is written from them."""

    def write(name, mse=lambda variant, seed: 100.0 + seed, seeds=None, figures=False):
        experiment = demo.experiment(name)
        variants = [
            dataclasses.replace(variant, seeds=variant.seeds and (seeds or variant.seeds)) for variant in experiment.variants
        ]
        experiment = dataclasses.replace(experiment, variants=variants)
        for variant in experiment.variants:
            for seed in range(experiment.seeds_of(variant)):
                record_run(experiment, variant, seed, mse=mse(variant, seed))
            if experiment.seeds_of(variant):
                write_examples(experiment, tmp_path, variant)
        if experiment.counts:
            write_counts(experiment, tmp_path, prediction_flops=1)
        values = values_of(experiment)
        write_tables(values, tmp_path)
        if figures:
            write_figures(values, tmp_path)
        return (tmp_path / "tables" / f"{name}.md").read_text()

    return write


# One experiment for each kind of figure, but for tradeoff and growth.
DRAWN = ["table1_literature", "table3_kernel_sizes", "table4_learning_rate_epochs", "figure1_initialization"]
DRAWN += ["figure2_decoder_order", "extra_ambiguities"]


@pytest.mark.parametrize("name", DRAWN)
def test_every_item_is_written_in_every_form(make, tmp_path, name):
    make(name, figures=True)
    for file in (
        [f"tables/{name}.{s}" for s in ("csv", "md", "tex")]
        + [f"{f}/{name}.{s}" for f in ("figures", "examples") for s in ("png", "svg")]
        + [f"figures/{name}.pdf"]
    ):
        assert (tmp_path / file).stat().st_size > 200, file
    tidy = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
    tail = ["data", "metric", "printed", "published", "measured", "low", "high", "n", "selection", "status", "runs"]
    assert list(tidy.columns)[-15:] == [*tail, "values", "standing", "p_best", "learnt"]


def test_the_best_cell_is_marked_in_both_grids(make, tmp_path):
    def mse(variant, seed):
        return 50.0 + abs(variant.axes["k1"] - 7) + abs(variant.axes["k2"] - 9) + (seed - 1) * 0.01

    text = make("table3_kernel_sizes", mse, seeds=3)
    published, measured = text.split("## MSE ↓, measured")
    # The supplement's lowest value is printed twice: both cells are best.
    assert published.count("**") == 2 * 2
    assert next(line for line in published.splitlines() if "**22.33**" in line).split("|")[1].strip() == "3"
    assert measured.count("**") == 2
    assert "**50.00 ± 0.02**" in next(line for line in measured.splitlines() if line.startswith("| 7"))
    assert r"\textbf{50.00 $\pm$ 0.02}" in (tmp_path / "tables" / "table3_kernel_sizes.tex").read_text()


def test_published_numbers_are_shown_as_printed(make):
    rows = {
        line.split("|")[1].strip(): line for line in make("table4_learning_rate_epochs").splitlines() if line.startswith("| 0.")
    }
    assert "64.90" in rows["0.003"]
    assert "0.951 " in rows["0.003"]
    text = make("table2_openstl")
    assert [cell.strip() for cell in next(line for line in text.splitlines() if "PhyDNet" in line).split("|")][3:6:2] == [
        "3.1M",
        "15.3G",
    ]


def test_intervals_and_seeds_are_stated(make):
    text = make("figure1_initialization")
    assert "102.00 ± 1.96" in text
    assert "Seeds: 5" in text
    assert "so no interval can be given" in make("table5_final_div_factor", seeds=1)


def test_stand_ins_are_labelled_wherever_their_numbers_appear(make, tmp_path):
    row = next(line for line in make("table1_literature").splitlines() if line.startswith("| STLight-L"))
    assert row.count("(stand-in)") == 2
    assert "(stand-in)" in (tmp_path / "tables" / "table1_literature.tex").read_text()
    assert "stand-in" in (tmp_path / "tables" / "table1_literature.csv").read_text()


def test_whole_numbers_stay_whole_beside_quoted_rows(make, tmp_path):
    make("table1_literature")
    text = (tmp_path / "tables" / "table1_literature.csv").read_text()
    assert ",2000," in text
    assert "2000.0" not in text


def test_latex_is_escaped(make, tmp_path):
    make("table4_learning_rate_epochs")
    text = (tmp_path / "tables" / "table4_learning_rate_epochs.tex").read_text()
    assert "↓" not in text
    assert r"$\downarrow$" in text


def test_a_diverged_grid_can_still_be_drawn(make):
    text = make("table3_kernel_sizes", lambda v, _: None if v.axes["k1"] == 11 else 60.0 + v.axes["k2"], figures=True)
    assert text.count("–") >= 5
    assert "–" in make("table5_final_div_factor", lambda v, _: None, figures=True)


def test_grids_with_holes_keep_their_columns(demo, record_run, values_of, tmp_path):
    whole = demo.experiment("table3_kernel_sizes")
    places = [(3, 5), (3, 7), (5, 3), (5, 5), (5, 7)]
    holed = dataclasses.replace(whole, variants=[v for v in whole.variants if (v.axes["k1"], v.axes["k2"]) in places])
    for variant in holed.variants:
        record_run(holed, variant, mse=10.0 * variant.axes["k1"] + variant.axes["k2"])
    write_tables(values_of(holed), tmp_path)
    measured = (tmp_path / "tables" / "table3_kernel_sizes.md").read_text().split("measured")[1].splitlines()
    cells = {
        row[1].strip(): [cell.strip(" *≈") for cell in row[2:-1]]
        for row in (line.split("|") for line in measured)
        if len(row) > 2
    }
    header = next(cells[key] for key in cells if key.startswith("k1"))
    assert dict(zip(header, cells["5"], strict=True)) == {"3": "53.00", "5": "55.00", "7": "57.00"}
    assert dict(zip(header, cells["3"], strict=True)) == {"3": "", "5": "35.00", "7": "37.00"}


def test_cells_that_cannot_be_told_from_the_best_are_ties(make, tmp_path):
    rng = np.random.default_rng(0)
    # The last two rates differ by a tenth of what the seeds do.
    levels = {0.0003: 80.0, 0.001: 70.0, 0.003: 50.0, 0.01: 50.1}
    measured = make("table5_final_div_factor", lambda v, _: levels[v.axes["max_lr"]] + rng.normal(), seeds=5)
    measured = measured.split("## MSE ↓, measured")[1]
    assert measured.count("≈ ") == 6
    assert "**" not in measured
    table = pd.read_csv(tmp_path / "tables" / "table5_final_div_factor.csv")
    assert set(table.loc[table["max_lr"] >= 0.003, "standing"]) == {"tie"}
    assert set(table.loc[table["max_lr"] < 0.003, "standing"]) == {"worse"}
    assert table["p_best"].sum() == pytest.approx(1)
    assert table.loc[table["max_lr"] < 0.003, "p_best"].max() == 0
    seeds = [float(text) for text in table["values"].iloc[0].split(";")]
    assert np.mean(seeds) == pytest.approx(table["measured"].iloc[0])
    assert len(seeds) == 5


def test_unlearnt_cells_are_marked_and_never_the_best(make, tmp_path):
    # No cell is better than the 175 of a black frame but one, and the best of the others is not told from it.
    text = make("table5_final_div_factor", lambda v, seed: 174.5 + seed if v.axes["max_lr"] > 0.001 else 170.0 + seed, seeds=3)
    measured = text.split("## MSE ↓, measured")[1]
    assert measured.partition("- ")[0].count("†") == 6
    assert "6 of 12 cells are no better than the best trivial predictor" in text
    assert "Protocol: reduced (mmnist)" in text
    latex = (tmp_path / "tables" / "table5_final_div_factor.tex").read_text()
    assert latex.count(r"$^\dagger$") == 6
    tidy = pd.read_csv(tmp_path / "tables" / "table5_final_div_factor.csv")
    assert list(tidy["learnt"]) == list(tidy["max_lr"] <= 0.001)
    text = make("table5_final_div_factor", lambda v, seed: 175.0 + v.axes["max_lr"] * 1000 + seed / 100, seeds=3)
    assert "**" not in text.split("## MSE ↓, measured")[1]
    assert "≈" not in text.split("## MSE ↓, measured")[1].partition("- ")[0]


def test_one_seed_ranks_nothing(make):
    text = make("table5_final_div_factor", lambda v, _: v.axes["max_lr"] * 1000, seeds=1)
    assert text.split("measured")[1].count(" ≈ ") == 12
    assert "one seed, so no cell can be told from another" in text


def test_a_table_of_counts_is_written_with_its_closed_forms_and_never_without_counts(demo, values_of, tmp_path):
    experiment = demo.experiment("section_b_complexity")
    with pytest.raises(IncompleteError, match="python -m stlight count section_b_complexity"):
        write_tables(values_of(experiment), tmp_path)
    write_counts(experiment, tmp_path)
    write_tables(values_of(experiment), tmp_path)
    write_figures(values_of(experiment), tmp_path)
    tidy = pd.read_csv(tmp_path / "tables" / "section_b_complexity.csv")
    assert len(tidy) == 2 * len(experiment.variants)
    assert set(tidy["closed_form_mixers"]) == {100}
    assert "| 33.687G |" in " ".join((tmp_path / "tables" / "section_b_complexity.md").read_text().split())


def test_trivial_predictors_are_given_for_each_data_set_and_metric(make):
    text = make("table1_literature")
    for dataset in ("mmnist", "taxibj", "kth"):
        assert f"Trivial predictors on {dataset}: repeat last frame" in text
    # In the column's own unit.
    assert "Trivial predictors on taxibj: repeat last frame MSE × 100 28800.00" in text


def test_timings_say_where_they_were_taken_and_of_which_size(demo, record_run, values_of, tmp_path):
    whole = demo.experiment("table2_openstl")
    metrics = {"mmnist": ["num_params", "mse", "epoch_seconds", "clips_per_second", "peak_memory"]}
    variant = whole.variants[-1]
    experiment = dataclasses.replace(whole, metrics=metrics, variants=[variant])
    for seed in range(variant.seeds):
        record_run(experiment, variant, seed, mse=100.0)

    def written():
        write_tables(values_of(experiment), tmp_path)
        text = (tmp_path / "tables" / "table2_openstl.md").read_text()
        return text, next(line for line in text.splitlines() if line.startswith("| STLight-L"))

    text, row = written()
    assert row.count("(waiting)") == 4
    assert "Not there yet: " in text
    assert "python -m stlight measure table2_openstl." in text
    assert "side by side in one process" not in text
    write_timings(experiment, tmp_path)
    write_counts(experiment, tmp_path)
    text, row = written()
    assert [cell.strip(" *") for cell in row.split("|")][-4:-1] == ["2.5", "40", "3.0 MiB"]
    assert "s per epoch measured" in text
    assert "s per epoch published" not in text
    assert "measured side by side in one process on A GPU (cuda, 2 threads): medians of 7 rounds" in text
    assert "of the sizes of scale demo, while parameters and FLOPs are of the paper's" in text
    assert "Not there yet" not in text
    # Trivial predictors take no time.
    trivial = next(line for line in text.splitlines() if "Trivial predictors" in line)
    assert "epoch" not in trivial
    assert "memory" not in trivial


def test_spikes_are_named_below_the_table_of_the_runs_that_had_them(demo, record_run, values_of, make, tmp_path):
    assert "Spikes" not in make("table5_final_div_factor")
    experiment = demo.experiment("table5_final_div_factor")
    run = experiment.variants[0]
    record_run(experiment, run, losses=(4.0, 99.0, 1.0))
    write_tables(values_of(experiment), tmp_path)
    text = (tmp_path / "tables" / "table5_final_div_factor.md").read_text()
    assert f"ten times that of the worst trivial predictor: {run.run_name(0)} 1." in text


def test_curves_are_shown_beside_the_trivial_predictors_test_error(make):
    assert "Trivial predictors on mmnist: repeat last frame MSE 288.00" in make("figure2_decoder_order")
