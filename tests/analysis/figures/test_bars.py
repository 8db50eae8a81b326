"""Table 1's bars: printed numbers beside those of our runs."""

from stlight.analysis.figures.cells import draw_bars


def test_models_that_are_trained_have_a_bar_of_each_kind(demo, record_run, values_of):
    experiment = demo.experiment("table1_literature")
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
