"""Figures of cells: Table 1's bars of one metric, and heatmaps that stay readable if runs explode."""

import pytest

from stlight.analysis.figures.cells import draw_bars, draw_heatmap
from stlight.registry.metric_specs import METRICS
from tests.analysis.conftest import write_counts, write_timings


def test_models_that_are_trained_have_a_bar_of_each_kind(demo, record_run, values_of, tmp_path):
    experiment = demo.experiment("table1_literature")
    # Parameters, FLOPs and seconds of every model are no bars beside its SSIM.
    write_counts(experiment, tmp_path)
    write_timings(experiment, tmp_path)
    for variant in experiment.variants:
        if variant.dataset == "kth" and variant.axes["model"] in ("STLight-L", "TAU"):
            record_run(experiment, variant, ssim=0.95 if variant.axes["model"] == "TAU" else 0.9)
    kth = draw_bars(experiment.figure, values_of(experiment)).axes[2]
    names = [label.get_text() for label in kth.get_yticklabels()]
    bars = dict(zip(names, (bar.get_width() for bar in kth.patches), strict=True))
    assert (bars["TAU, published"], bars["TAU, measured (stand-in)"]) == (0.911, 0.95)
    assert (bars["STLight-L, published"], bars["STLight-L, measured (stand-in)"]) == (0.9113, 0.9)
    assert bars["VPTR-FAR, published"] == 0.879
    # The best is on top; a model that this scale does not train has its printed number alone.
    assert names[-1] == "TAU, measured (stand-in)"
    assert [name for name in names if name.startswith("E3D-LSTM")] == ["E3D-LSTM, published"]


def test_a_cell_of_a_heatmap_has_few_digits_however_large_its_mean(demo, record_run, values_of):
    experiment = demo.experiment("table5_final_div_factor")
    for variant in experiment.variants:
        record_run(experiment, variant, mse=2.995e56 if variant.axes["max_lr"] == 0.01 else 22.084)
    measured = draw_heatmap(experiment.figure, values_of(experiment)).axes[1]
    texts = {text.get_text().split()[0] for text in measured.texts}
    assert texts == {"3e+56", "22.08"}


@pytest.mark.parametrize(("value", "text"), [(-0.5, "-0.50"), (1234.5, "1234.50"), (2.5e6, "2.5e+06"), (-3e9, "-3e+09")])
def test_errors_are_written_with_their_digits_unless_they_are_huge(value, text):
    assert METRICS["mse"].format(value) == text
