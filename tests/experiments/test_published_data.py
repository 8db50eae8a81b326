"""Published figures as CSV files: what a file gives an experiment, and what a wrong one answers."""

import pytest

from stlight.experiments import ExperimentError, load_plan
from tests.tiny_runs import write_experiment

CURVES = "depth,bound,epoch,mse\n8,min,0,30\n8,max,0,40\n8,min,1,20.5\n8,max,1,21\n"


def load(workflow, key, text):
    (workflow / "published" / "mine.csv").write_text(text)
    write_experiment(workflow, **{key: {"file": "mine.csv", "source": "A figure."}})
    return load_plan(workflow, "paper", workflow).experiment("mine")


def test_points_are_published_numbers_and_other_columns_are_left_out(workflow):
    experiment = load(workflow, "published_points", "depth,mse,read_as\n8,21.80,x\n16,20.9,y\n")
    printed = {v.axes["depth"]: experiment.all_printed(v)["mse"].text for v in experiment.variants}
    assert printed == {8: "21.80", 16: "20.9"}
    assert [data.source for data in experiment.drawn] == ["A figure."]


def test_curves_are_bands_by_epoch(workflow):
    experiment = load(workflow, "published_curves", CURVES)
    (band,) = experiment.curves
    assert (band.coordinates, band.metric) == ({"depth": 8}, "mse")
    assert (band.low, band.high) == ({0: 30, 1: 20.5}, {0: 40, 1: 21})
    assert [experiment.band(v) is band for v in experiment.variants] == [True, False]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("8,min,0,31", "line 6: min at epoch 0 is published twice"),
        ("0x8,min,0,31", "line 6: min at epoch 0 is published twice"),
        ("8.0,min,0,31", "published_curves: the curve at depth = 8 is published twice"),
    ],
)
def test_a_curve_or_a_point_of_it_that_is_published_twice_is_refused(workflow, row, words):
    with pytest.raises(ExperimentError, match=words):
        load(workflow, "published_curves", f"{CURVES}{row}\n")


def test_points_are_compared_by_value(workflow):
    with pytest.raises(ExperimentError, match=r"published\[1\]\.mse: this cell is published twice"):
        load(workflow, "published_points", "depth,mse\n8,1\n0x8,2\n")


def test_steps_and_error_of_curves_are_stated_together(workflow):
    (workflow / "published" / "mine.csv").write_text(CURVES)
    stated = {"file": "mine.csv", "source": "A figure."}
    write_experiment(workflow, published_curves=stated | {"steps_per_epoch": 625, "common_error": 21.5})
    (band,) = load_plan(workflow, "paper", workflow).experiment("mine").curves
    assert (band.steps_per_epoch, band.common_error) == (625, 21.5)
    write_experiment(workflow, published_curves=stated | {"steps_per_epoch": 625})
    with pytest.raises(ExperimentError, match="steps_per_epoch and common_error must be given together"):
        load_plan(workflow, "paper", workflow)


def test_a_changed_file_changes_the_hash(workflow):
    before = load(workflow, "published_curves", CURVES).hash
    assert load(workflow, "published_curves", CURVES.replace("20.5", "20.6")).hash != before


@pytest.mark.parametrize(
    ("key", "text", "words"),
    [
        ("published_points", "depth,mse\n8,fast\n", "line 2: .*number.*'fast'"),
        ("published_points", "depth,mse\n8\n", "line 2: has another number of columns than the first line"),
        ("published_points", "depth,mes\n8,21\n", "gives none of the metrics mse"),
        ("published_points", "depth,mse\n12,21\n", "no point of the grid has depth = 12"),
        ("published_curves", "depth,bound,mse\n8,min,30\n", "line 2: the columns must be axes, bound, epoch and one metric"),
        ("published_curves", CURVES.replace("8,max,1", "8,mean,1"), "line 5: bound must be min or max.* got 8, mean, 1, 21"),
        ("published_curves", CURVES.replace("0,30", "0,fast"), "line 2: .*mse a number, got 8, min, 0, fast"),
        ("published_curves", CURVES.replace("8,", "12,"), "0 points of the grid have depth = 12"),
    ],
)
def test_a_wrong_file_is_answered_in_one_line(workflow, key, text, words):
    with pytest.raises(ExperimentError, match=words) as caught:
        load(workflow, key, text)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(workflow):
    write_experiment(workflow, published_points={"file": "none.csv", "source": "A figure."})
    with pytest.raises(ExperimentError, match=r"published/none\.csv: cannot be read"):
        load_plan(workflow, "paper", workflow)


def test_a_correction_must_be_of_a_number_that_is_printed(workflow):
    write_experiment(workflow, published=[{"depth": 8, "mse": 21.8, "corrected": {"mes": 20}}])
    with pytest.raises(ExperimentError, match=r"published\[0\]\.corrected: 'mes' is not one of its numbers, mse"):
        load_plan(workflow, "paper", workflow)
