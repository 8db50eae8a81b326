"""The numbers behind the page's plots and tables, apart from how they are drawn."""

import math

import numpy as np
import pytest
from scipy import stats

from stlight.analysis.report.forest import WIDTH, Axis, effects
from stlight.analysis.report.pairs import MOST_POINTS, comparisons, curve, difference
from stlight.analysis.report.rows import learnt, other_scales, recipe_rows, scale_rows, spark
from stlight.analysis.verdicts.measured import all_findings
from stlight.runs.record import read_record

UNIFORM, NORMAL, HYBRID = range(3)


@pytest.fixture
def initialization(demo, record_run, values_of):
    """Record the seeds of Figure 1's cells with the given MSE (and SSIM a hundredth of it), and load them."""

    def load(*cells, **told):
        experiment = demo.experiment("figure1_initialization")
        for variant, values in zip(experiment.variants, cells, strict=True):
            for k, mse in enumerate(values):
                record_run(experiment, variant, k, mse=mse, ssim=mse / 100, **told)
        return values_of(experiment)

    return load


def test_cells_that_share_seeds_are_compared_in_pairs(initialization):
    first, second = np.array([30.0, 31.0, 33.0, 36.0, 40.0]), np.array([31.0, 32.5, 33.5, 37.5, 41.0])
    values = initialization(first, second, first)
    one, other, _ = values.experiment.variants
    found = difference(values, one, other, "mse")
    low, high = stats.ttest_rel(second, first).confidence_interval()
    assert found == pytest.approx({"estimate": 1.1, "low": low, "high": high, "n": 5, "paired": True})
    # A higher SSIM is better: the difference is still the second minus the first.
    assert difference(values, one, other, "ssim") == pytest.approx(
        {"estimate": 0.011, "low": low / 100, "high": high / 100, "n": 5, "paired": True}
    )


def test_independent_cells_are_compared_by_welch(demo, record_run, values_of):
    experiment = demo.experiment("table3_kernel_sizes")
    one, other = experiment.variants[:2]
    for variant, values in ((one, [30.0, 31.0, 35.0]), (other, [40.0, 48.0, 50.0])):
        for k, mse in enumerate(values):
            record_run(experiment, variant, k, mse=mse)
    runs = {v.cell: 3 for v in (one, other)}
    values = values_of(demo.with_seeds(demo.seeds | runs).experiment(experiment.name))
    found = difference(values, one, other, "mse")
    low, high = stats.ttest_ind([40.0, 48.0, 50.0], [30.0, 31.0, 35.0], equal_var=False).confidence_interval()
    assert found == pytest.approx({"estimate": 14.0, "low": low, "high": high, "n": 3, "paired": False})


def test_a_diverged_side_has_no_difference(initialization, demo, record_run, values_of):
    initialization([30.0, 31.0, 32.0, 33.0, 34.0], [31.0, 32.0, 33.0, 34.0, 35.0], [31.0, 32.5, 33.0, 34.5, 35.0])
    experiment = demo.experiment("figure1_initialization")
    record_run(experiment, experiment.variants[NORMAL], 1, status="diverged", mse=1e9)
    values = values_of(experiment)
    shown = comparisons([values])["sets"][0]["metrics"][0]
    assert shown["estimate"][0] is None
    assert shown["low"][0] is None
    assert shown["estimate"][1] == 1.2
    assert shown["low"][1] < 1.2 < shown["high"][1]


def test_pairs_are_in_the_order_that_the_page_reads(initialization):
    values = initialization([30.0] * 5, [33.0] * 5, [39.0] * 5)
    (one,) = comparisons([values])["sets"]
    mse = next(metric for metric in one["metrics"] if metric["name"] == "mse")
    assert mse["estimate"] == [3.0, 9.0, 6.0]
    assert mse["paired"] == [1, 1, 1]


def test_a_cell_has_the_curve_of_the_seeds_that_its_item_uses(demo, record_run, values_of):
    many, one = demo.experiment("figure1_initialization"), demo.experiment("table3_kernel_sizes")
    shared = next(v for v in many.variants if v.cell in {w.cell for w in one.variants})
    for k in range(5):
        record_run(many, shared, k, losses=(4.0 + k, 3.0))
    for experiment in (one, many):
        record_run(experiment, next(v for v in experiment.variants if v.cell != shared.cell))
    found = comparisons([values_of(one), values_of(many)])
    cells = [next(c for c in found_set["cells"] if c["runs"].startswith(f"{shared.cell} ")) for found_set in found["sets"]]
    curves = [found["curves"][cell["runs"]]["test_mse"] for cell in cells]
    assert [curve["mean"] for curve in curves] == [[400.0, 300.0], [600.0, 300.0]]


def test_the_curve_of_a_cell_is_mean_and_extremes_and_keeps_spikes(demo, record_run, values_of):
    experiment = demo.experiment("figure1_initialization")
    long = np.linspace(4, 1, 200)
    spiky = long.copy()
    spiky[101] = 50.0
    for k, losses in enumerate((long, spiky)):
        record_run(experiment, experiment.variants[HYBRID], k, losses=list(losses))
    found = curve(values_of(experiment), experiment.variants[HYBRID], "test_mse")
    assert len(found["epoch"]) == MOST_POINTS
    assert found["epoch"][-1] == 200
    assert max(found["high"]) == 5000.0
    assert found["low"][-1] == pytest.approx(100.0)
    assert found["mean"][0] == pytest.approx(100 * long[:5].mean(), rel=1e-4)
    # One run of few evaluations: every one, and no spread.
    record_run(experiment, experiment.variants[NORMAL], 0, losses=(4.0, 3.0, 2.0))
    assert curve(values_of(experiment), experiment.variants[NORMAL], "test_mse") == {
        "epoch": [1, 2, 3],
        "mean": [400, 300, 200],
    }


def test_effects_are_shares_of_what_is_compared(demo, values_of, initialization):
    initialization(
        [30.0, 31, 32, 33, 34], [60.0, 62, 64, 66, 68.5], [30.0, 31, 32, 33, 34], trivial={"all_zeros": {"mse": 200.0}}
    )
    values = {name: values_of(experiment) for name, experiment in demo.experiments.items()}
    findings = [measured for _, measured in all_findings(demo, values)]
    found = {one.finding.claim.id: one for one in effects(findings)}
    better = found["hybrid_better_than_normal"]
    assert better.finding.verdict == "reproduced"
    a, b = np.arange(30.0, 35), np.array([60.0, 62, 64, 66, 68.5])
    size = np.concatenate([a, b]).mean()
    assert better.share == pytest.approx((b - a).mean() / size)
    assert (better.low, better.high) == pytest.approx(np.array(stats.ttest_rel(b, a).confidence_interval()) / size)
    assert better.text.startswith(f"+{100 * better.share:.0f} % (+")
    # Without an effect there is no row.
    assert "kernel_optimum" not in found


def test_the_axis_is_symmetric_and_keeps_the_order():
    class Shown:
        share, low, high = -0.4, math.nan, 2.5

    axis = Axis([Shown])
    places = [axis.place(share) for share in (-math.inf, -2.5, -0.1, -0.001, 0.0, 0.001, 0.1, 2.5, math.inf)]
    assert places == sorted(places)
    assert places[4] == WIDTH / 2
    assert places == pytest.approx([WIDTH - place for place in reversed(places)])
    assert [text for _, text in axis.ticks] == ["−100%", "−10%", "", "0", "", "+10%", "+100%"]


def test_a_run_has_learnt_what_it_does_better_than_every_trivial_predictor(tmp_path, demo, record_run):
    experiment = demo.experiment("figure1_initialization")
    trivial = {
        "all_zeros": {"mse": 100.0, "mae": 100.0, "ssim": 0.5},
        "repeat_last_frame": {"mse": 50.0, "mae": 200.0, "ssim": 0.6},
    }

    def of(**told):
        record_run(experiment, experiment.variants[0], trivial=trivial, **told)
        return learnt(read_record(tmp_path / "runs" / experiment.variants[0].run_name(0) / "record.json"))

    assert of(mse=49.0, mae=101.0, ssim=0.61) == ["MSE", "SSIM"]
    # Better, but by less than 1 %.
    assert of(mse=49.6, mae=99.5, ssim=0.605) == []
    assert of(mse=1.0, mae=1.0, ssim=1.0, status="diverged") is None


def test_a_small_curve_keeps_its_spikes():
    long = np.ones(1000)
    long[700] = 9.0
    found = spark(long)
    assert len(found["heights"]) == 60
    assert (found["low"], found["high"]) == (1.0, 9.0)
    assert spark(np.array([3.0, 2.0]))["heights"] == [3.0, 2.0]


def test_the_recipe_of_table_5_stands_beside_the_papers(demo, paper):
    rows = {row["what"]: row for row in recipe_rows(demo.experiment("table5_final_div_factor"))}
    assert rows["learning rate"]["paper"] == "0.0003, 0.001, 0.003, 0.01"
    assert rows["batch"]["paper"] == "16"
    assert rows["steps"]["paper"] == f"{200 * 10_000 // 16:,}"
    config = demo.experiment("table5_final_div_factor").variants[0].config
    assert rows["steps"]["here"] == f"{config.num_steps:,}"
    assert rows["batch"]["here"] == str(config.training.batch_size)
    exact = recipe_rows(paper.experiment("table5_final_div_factor"))
    assert all(row["paper"] == row["here"] for row in exact)
    assert recipe_rows(demo.experiment("section_b_complexity")) == []


def test_verdicts_of_other_scales_are_read_from_beside(tmp_path):
    for scale, verdict in (("demo", "undecided"), ("small", "holds at this scale")):
        (tmp_path / scale).mkdir()
        rows = f"a,published,exact,reproduced\na,measured,reduced,{verdict}\nb,measured,,untested\n"
        (tmp_path / scale / "claims.csv").write_text("id,source,protocol,verdict\n" + rows)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "claims.csv").write_text("no such columns\n")
    others, problems = other_scales(tmp_path / "demo")
    assert others == {"small": {"a": "holds at this scale"}}
    assert len(problems) == 1
    assert "broken: claims.csv cannot be read" in problems[0]
    rows = scale_rows({"a": "undecided", "b": "untested"}, others)
    assert rows == [{"claim": "a", "outcomes": ["undecided", "holds at this scale"], "differs": True}]
