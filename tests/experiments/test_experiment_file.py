"""Mistakes in an experiment's file are answered in one line that names file, field and value, before anything runs."""

import math
import re
from typing import get_args

import pytest

from stlight.config import TrainingConfig
from stlight.experiments import ExperimentError, load_plan
from tests.experiments.test_scaling import BALLS
from tests.tiny_runs import write_experiment

SCHEDULES = get_args(TrainingConfig.model_fields["schedule"].annotation)
TWO_AXES = {"depth": [8, 16], "skip": [True, False]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"colour": "red"}, r"the file: unknown key 'colour'; known are"),
        ({"sumary": "Words."}, r"the file: unknown key 'sumary'; did you mean 'summary'"),
        ({"paper": {"section": "A"}}, r"paper\.item: is missing"),
        ({"title": 3}, r"title: input should be a valid string, got 3"),
        ({"seeds": 2.5}, r"seeds: .*got 2\.5"),
        ({"seeds": True}, r"seeds: .*got True"),
        ({"seeds": 0}, r"seeds: .*greater than or equal to 1, got 0"),
        ({"shorter": {"dmeo": 0.5}}, r"shorter: no scale 'dmeo'; did you mean 'demo'"),
        ({"scales": ["papre"]}, r"scales: no scale 'papre'; did you mean 'paper'"),
        ({"grid": {"model": ["STLight-XS"], "dataset": ["taxibj"]}}, r"model must be one of STLight-L, .*got 'STLight-XS'"),
        ({"grid": {"k3": [3]}}, r"grid: unknown field 'k3'; did you mean 'k[12]'"),
        ({"grid": [{"k1": [3]}, {"k3": [3]}]}, r"grid\[1\]: unknown field 'k3'"),
        ({"grid": {"k1": []}}, r"grid\.k1: .*at least 1 item"),
        ({"grid": {"k1": [3, 3]}}, r"grid\.k1: 3 is given twice"),
        ({"grid": {"k1": [3, 4]}}, r"at k1 = 4: kernel_sizes \(k1\) must be odd, got 4"),
        ({"grid": {"k1": [True]}}, r"k1 must be like 3, got True"),
        ({"grid": {3: [3]}}, r"the key '3' is not text"),
        ({"grid": {"max_lr": [0.0]}}, r"at max_lr = 0: max_lr: input should be greater than 0, got 0"),
        ({"grid": {"max_lr": [math.inf]}}, r"grid\.max_lr\[0\]: input should be a finite number, got inf"),
        ({"grid": {"decoder": ["both"]}}, r"at decoder = both: decoder: .*'shuffle_reassemble'.*got 'both'"),
        ({"grid": {"clips_per_epoch": [5]}}, r"clips_per_epoch is set by the scale"),
        ({"base": {"hiden_dim": 700}}, r"base: unknown field 'hiden_dim'; did you mean 'hidden_dim'"),
        ({"base": {"hidden_dim": "1400"}}, r"hidden_dim must be like 1400, got '1400'"),
        ({"base": {"source": "files"}}, r"base: source is set by the scale"),
        ({"base": {"schedule": "linear"}}, rf"schedule: input should be '{SCHEDULES[0]}'.* '{SCHEDULES[-1]}', got 'linear'"),
        ({"base": {"warmup_epochs": 200}}, r"warmup_epochs must be fewer than num_epochs 200, got 200"),
        ({"base": {"dataset": "taxibj", "lpips": True}}, r"lpips needs frames of 1 or 3 channels, taxibj has 2"),
        ({"metrics": ["mes"]}, r"metrics\[0\]: unknown metric 'mes'; did you mean 'mse'"),
        ({"metrics": ["mse", "mse"]}, r"metrics: 'mse' is given twice"),
        ({"metrics": {"kth": ["mse"]}}, r"metrics: given for kth, the grid has mmnist"),
        ({"metrics": ["lpips"]}, r"lpips is measured only with base: \{lpips: true\}"),
        ({"selection": "best"}, r"selection: .*'best_on_validation'.*got 'best'"),
    ],
)
def test_mistakes_in_fields_are_named(scales, content, words):
    assert_refused(scales, content, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"base": {"dataset": "balls"}}, r"dataset must be one of .*, or one under data_sets, got 'balls'"),
        ({"base": {"dataset": "balls"}, "data_sets": {"balls": {"height": 16}}}, r"data_sets\.balls\.\w+: is missing"),
        ({"base": {"dataset": "balls"}, "data_sets": {"balls": BALLS | {"height": 4}}}, r"height must be .* at least 7"),
        ({"base": {"dataset": "balls"}, "data_sets": {"balls": BALLS | {"width": 9}}}, r"frame size must be divisible"),
        ({"base": {"dataset": "kth"}, "data_sets": {"kth": BALLS}}, r"needs a new name of small letters.*got 'kth'"),
        ({"data_sets": {"My Balls": BALLS}}, r"data_sets: .*got 'My Balls'"),
        ({"base": {"custom_shape": "big"}}, r"custom_shape is set by the scale or under data_sets"),
    ],
)
def test_mistakes_in_custom_data_sets_are_named(scales, content, words):
    assert_refused(scales, content, words)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"figure": {"kind": "pie"}}, r"figure\.kind: must be one of 'heatmap', .*, got 'pie'"),
        ({"figure": "pie"}, r"figure: .*'pie'"),
        ({"figure": {}}, r"figure\.kind: is missing"),
        ({"figure": {"kind": "lines", "x": "depth"}}, r"figure: unknown key 'x'"),
        ({"figure": {"kind": "heatmap"}}, r"figure\.x: is missing"),
        (
            {"figure": {"kind": "heatmap", "x": "k2", "y": "depth", "metric": "mse"}},
            r"figure\.x: unknown axis 'k2'; known are depth",
        ),
        ({"figure": {"kind": "curves", "hue": "depth", "y": "mae"}}, r"figure\.y: unknown metric 'mae'; did you mean 'mse'"),
        ({"figure": {"kind": "scatter", "x": "mse", "y": "mse", "hue": "depth"}}, r"figure\.x: .*'num_params', got 'mse'"),
        ({"figure": {"kind": "bars"}}, r"the grid must have an axis dataset"),
        ({"figure": {"kind": "tradeoff", "y": "mse"}}, r"the grid must have an axis model"),
        ({"train": False, "metrics": ["num_params"]}, r"figure: kind growth is for experiments with train: false"),
        ({"figure": {"kind": "growth"}}, r"figure: kind growth is for experiments with train: false"),
        ({"train": False, "figure": {"kind": "growth"}}, r"metrics: train: false can only have benchmark_flops, num_params"),
        ({"table": {"rows": "depth"}}, r"table\.columns: is missing"),
        ({"table": {"rows": "depth", "columns": "k1"}}, r"table\.columns: unknown axis 'k1'; known are depth"),
        (
            {"grid": TWO_AXES | {"k1": [3, 5]}, "table": {"rows": "depth", "columns": "skip"}},
            r"table: several points of the grid share one cell of depth × skip",
        ),
    ],
)
def test_mistakes_in_figures_and_tables_are_named(scales, content, words):
    assert_refused(scales, content, words)


@pytest.mark.parametrize(
    ("published", "words"),
    [
        ([{"depth": 8}], r"published\[0\]: gives none of the metrics mse"),
        ([{"depth": 8, "mae": 1}], r"published\[0\]: 'mae' is neither an axis of the grid nor one of the metrics"),
        ([{"depth": 8, "mse": 1}, {"depth": 8, "mse": 2}], r"published\[1\]\.mse: this cell is published twice"),
        ([{"depth": 8, "mse": 1}, {"depth": 8.0, "mse": 2}], r"published\[1\]\.mse: this cell is published twice"),
        ([{"depth": 8, "mse": 1}, {"model": "STLight-L", "depth": 8, "mse": 2}], r"published\[1\]\.mse: .* published twice"),
        ([{"depth": 4, "mse": 1}], r"published\[0\]: no point of the grid has depth = 4"),
        ([{"depth": 8, "mse": "nan"}], r"published\[0\]\.mse: must be a number.*got 'nan'"),
        ([{"depth": 8, "mse": "1,5"}], r"published\[0\]\.mse: must be a number.*got '1,5'"),
    ],
)
def test_mistakes_in_published_numbers_are_named(scales, published, words):
    assert_refused(scales, {"published": published}, words)


def test_a_cell_that_is_published_twice_in_other_words_is_refused(scales):
    grid = {"skip": [True, False], "k1": [1]}
    for other in ({"skip": True, "k1": 1}, {"skip": True}, {"skip": 1, "k1": True}):
        published = [{"skip": True, "k1": 1, "mse": 1}, other | {"mse": 2}]
        assert_refused(scales, {"grid": grid, "published": published}, r"published\[1\]\.mse: this cell is published twice")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"grid": {"max_lr": [0.002, 0.0020000000000001]}}, r"max_lr = 0\.002 and max_lr = 0\.0020000000000001 .*'lr=0\.002'"),
        (
            {"grid": {"num_epochs": [100, 110, 200]}, "shorter": {"paper": 0.001}},
            "grid: num_epochs = 100 and num_epochs = 110 would both be called 'epochs=1'",
        ),
    ],
)
def test_two_variants_of_one_name_are_refused(scales, content, words):
    assert_refused(scales, content, words)


def test_a_point_in_two_grids_is_one_variant(scales):
    write_experiment(scales, grid=[{"depth": [8, 16]}, {"depth": [16, 24]}])
    assert len(load_plan(scales, "paper").experiment("mine").variants) == 3


def test_a_published_number_must_name_every_axis(scales):
    words = r"published\[0\]: 2 points of the grid have depth = 8: name every axis"
    assert_refused(scales, {"grid": TWO_AXES, "published": [{"depth": 8, "mse": 1}]}, words)


@pytest.mark.parametrize("name", ["Z.YAML", "z.yaml.txt", "z.Yml", "z.yaml~", "more/z.yaml"])
def test_a_file_that_looks_like_an_experiment_is_not_left_out(scales, name):
    write_experiment(scales)
    path = scales / "experiments" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("title: Z")
    found = path.parent if "/" in name else path
    with pytest.raises(ExperimentError, match=re.escape(f"{found}: an experiment's file is named") + ".* ends in .yaml"):
        load_plan(scales, "demo")


def test_hidden_files_and_notes_beside_experiments_are_left_out(scales):
    write_experiment(scales)
    for name in (".z.yaml.swp", ".DS_Store", "README.md"):
        (scales / "experiments" / name).write_text("no experiment")
    assert list(load_plan(scales, "demo").experiments) == ["mine"]


@pytest.mark.parametrize("name", ["$(touch x)", "a;b", "a b", "ä+b", "-n"])
def test_an_experiment_s_name_is_plain(scales, name):
    write_experiment(scales, name)
    with pytest.raises(ExperimentError, match="is named with letters, digits, _ and -"):
        load_plan(scales, "demo")


def assert_refused(workflow, content, words):
    write_experiment(workflow, **content)
    with pytest.raises(ExperimentError, match=rf"mine\.yaml: .*{words}") as caught:
        load_plan(workflow, "paper")
    assert "\n" not in str(caught.value)
