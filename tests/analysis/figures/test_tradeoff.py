"""The figure that sets a metric against what models cost."""

import dataclasses
import json
import math

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stlight.analysis.evidence import key
from stlight.analysis.figures import draw
from stlight.analysis.figures.tradeoff import COSTS, pareto_front
from stlight.experiments.figure_types import TradeoffFigure
from stlight.runs.record import read_record, write_record

# Few values, so that there are ties, and all that is no number.
AMOUNTS = st.sampled_from([0.0, 1.0, 2.0, 3.0, 2.5, math.inf, -math.inf, math.nan])
POINTS = st.lists(st.tuples(AMOUNTS, AMOUNTS), max_size=12)


def beats(one, other):
    return one[0] <= other[0] and one[1] <= other[1] and (one[0] < other[0] or one[1] < other[1])


@given(POINTS)
def test_on_the_front_is_what_no_other_beats(points):
    costs, losses = np.array(points, float).reshape(-1, 2).T
    expected = [not any(map(math.isnan, point)) and not any(beats(other, point) for other in points) for point in points]
    assert pareto_front(costs, losses).tolist() == expected
    assert pareto_front(costs, -losses, higher_is_better=True).tolist() == expected


@given(st.permutations(range(6)), POINTS.filter(lambda points: len(points) >= 6))
def test_the_order_of_the_points_says_nothing(order, points):
    costs, losses = np.array(points[:6]).T
    order = np.array(order)
    assert pareto_front(costs[order], losses[order]).tolist() == pareto_front(costs, losses)[order].tolist()


@pytest.fixture
def models(demo, record_run, tmp_path):
    """Table 2, with its last two models quoted."""
    base = demo.experiment("table2_openstl")
    published = base.published
    grid = demo.experiment("table3_kernel_sizes").variants
    variants = [dataclasses.replace(v, axes={"model": e.model}) for v, e in zip(grid, published[:-2], strict=False)]
    experiment = dataclasses.replace(
        base,
        axes=["model"],
        variants=variants,
        published=published[:-2],
        quoted=published[-2:],
        figure=TradeoffFigure(kind="tradeoff", y="mse"),
        metrics={"mmnist": ["num_params", "benchmark_flops", "mse"]},
    )
    counts = {}
    for number, (variant, entry) in enumerate(zip(variants, published, strict=False)):
        printed = {metric: number.value for metric, number in entry.numbers.items()}
        counts[key(variant)] = {
            "parameters": {"total": printed["num_params"]},
            "benchmark_flops": printed["benchmark_flops"],
        }
        record_run(experiment, variant, mse=4 * printed["mse"])
        path = tmp_path / "runs" / variant.run_name(0) / "record.json"
        write_record(path, read_record(path).model_copy(update={"seconds": {"training": 10.0 + number}}))
    (tmp_path / "complexity").mkdir()
    (tmp_path / "complexity" / "table2_openstl.json").write_text(json.dumps(counts))
    return experiment


@pytest.fixture
def panels(models, values_of):
    """Draw the figure and return its panels by source and cost, without those that are hidden."""

    def drawn(experiment=models):
        figure = draw(values_of(experiment))
        figure.canvas.draw()
        places = [(source, cost) for source in ("published", "measured") for cost in COSTS]
        shown = {place: ax for place, ax in zip(places, figure.axes, strict=True) if ax.get_visible()}
        plt.close(figure)
        return shown

    return drawn


def points(ax):
    return {text.get_text(): (text.xy, text.get_fontweight()) for text in ax.texts}


def test_each_panel_has_every_model_with_both_numbers(panels):
    shown = panels()
    # The paper prints no training time.
    assert set(shown) == {(s, c) for s in ("published", "measured") for c in ("num_params", "benchmark_flops", "seconds")} - {
        ("published", "seconds")
    }
    assert points(shown["published", "num_params"])["TAU"][0] == (44.7e6, 15.69)
    # The FLOPs printed for STLight-L are its parameters.
    assert len(points(shown["published", "benchmark_flops"])) == 11
    assert len(points(shown["measured", "benchmark_flops"])) == 10
    assert points(shown["measured", "seconds"])["ConvLSTM-S"][0] == (11.0, pytest.approx(4 * 22.41))
    assert all(ax.get_xscale() == "log" for ax in shown.values())


def test_the_front_s_models_are_the_ones_that_stand_out(panels):
    ax = panels()["published", "num_params"]
    bold = {name for name, (_, weight) in points(ax).items() if weight == "bold"}
    assert bold == {"PhyDNet", "PredRNN.V2", "STLight-L", "MIM", "PredRNN++"}
    line = ax.lines[0].get_xydata()
    assert line[:, 0].tolist() == [3.1e6, 23.9e6, 32.9e6, 38.0e6, 38.6e6]
    assert line[:, 1].tolist() == [20.35, 17.26, 14.77, 14.73, 14.07]


def test_a_diverged_model_is_neither_on_the_front_nor_beats_others(models, panels, record_run):
    def front():
        named = points(panels()["measured", "num_params"])
        return named, {name for name, (_, weight) in named.items() if weight == "bold"} - {"STLight-L"}

    _, before = front()
    variant = models.variants[1]
    model = variant.axes["model"]
    # Its last metrics are the best of all.
    record_run(models, variant, status="diverged", mse=0.1)
    named, after = front()
    assert model not in named
    assert after == before - {model}
    record_run(models, variant, mse=0.1)
    assert front()[1] == {model}


def test_names_do_not_cover_each_other(panels):
    for ax in panels().values():
        boxes = [text.get_window_extent() for text in ax.texts]
        assert sum(box.count_overlaps(boxes) for box in boxes) == len(boxes)


def test_nothing_measured_yet_still_makes_a_figure(models, panels, tmp_path):
    bare = dataclasses.replace(models, published=[], quoted=[], metrics={"mmnist": ["mse"]})
    for path in tmp_path.glob("runs/*/*/seed0/record.json"):
        path.unlink()
    (ax,) = panels(bare).values()
    assert "no model" in ax.texts[0].get_text()
