"""Whatever lies beside the experiments, loading it ends in a plan or in one line that names file and field."""

import os
import re

import pytest
from hypothesis import HealthCheck, given, settings

from stlight.experiments import ExperimentError, load_plan
from stlight.experiments.loading import MAX_RUNS
from tests.experiments.hostile_files import FILES, GOOD, loads_or_answers, small_workflow
from tests.tiny_runs import write_experiment


@pytest.fixture(scope="module")
def empty(tmp_path_factory):
    return small_workflow(tmp_path_factory.mktemp("hostile") / "workflow")


@given(FILES)
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_any_file_loads_or_is_answered_in_one_line(empty, content):
    loads_or_answers(empty, content)


def test_the_file_that_others_are_made_from_is_valid(empty):
    assert loads_or_answers(empty, GOOD.encode()) == "loaded"


def bomb(levels):
    lines = ["  - &x0 [a, a, a, a, a, a, a, a, a]"]
    lines += [f"  - &x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, levels)]
    return "title:\n" + "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (bomb(9), "more than 50 levels or 100000 values, aliases written out"),
        ("title: &a [*a]", "more than 50 levels"),
        ("title: " + "[" * 5000 + "]" * 5000, "more than 50 levels"),
        ("[" * 100_000, "more than 50 levels"),
        (GOOD.replace("seeds: 2", "seeds: 1" + "0" * 400), "an integer is beyond 2[*][*]53 in line 4"),
        (GOOD.replace("seeds: 2", "seeds: 1" + "0" * 5000), "is no int in line 4"),
        (GOOD.replace("depth: [8, 16]", '"a\\x85b\\u2028c": 2020-01-01'), "grid.a b c: input should be a valid list"),
        (GOOD.replace("depth: [8, 16]", f"decoder: [{'x' * 5000}]"), "at decoder = xxx"),
        (GOOD.replace("seeds: 2", "seeds: 0x" + "f" * 5000), "an integer is beyond"),
        (GOOD.replace("21.80", "'1" + "0" * 400 + "'"), r"published\[0\].mse: must be a finite number"),
        (GOOD.replace("demo: 0.5", "demo: .nan"), "shorter.demo: input should be a finite number, got nan"),
        (GOOD.replace("Words.", "2020-13-45", 1), "'2020-13-45' is no timestamp in line 3"),
        (GOOD.replace("Words.", "!!map x", 1), "expected a mapping node"),
        (GOOD + "# " + "x" * 2_000_000, "holds more than 1000000 bytes"),
    ],
)
def test_what_would_hang_or_break_the_parser_is_refused(empty, text, words):
    (empty / "experiments" / "mine.yaml").write_text(text)
    with pytest.raises(ExperimentError, match=rf"mine\.yaml: .*{words}") as caught:
        load_plan(empty, "demo")
    assert len(str(caught.value)) < 2000


def test_aliases_of_ordinary_size_are_written_out(empty):
    text = GOOD.replace("better: {this: {depth: 8}", "better: {this: &ours {depth: 8}").replace("base: {", "base: &base {")
    assert loads_or_answers(empty, text.encode()) == "loaded"
    twice = text.replace("trend: {axis: depth, becomes: better}", "optimum_in: *ours")
    assert loads_or_answers(empty, twice.encode()) == "loaded"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (os.mkfifo, "is not a file"),
        (os.mkdir, "is not a file"),
        (lambda path: path.symlink_to("/dev/zero"), "is not a file"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read: No such file"),
        (lambda path: path.symlink_to(path.name), "cannot be read: Too many levels of symbolic links"),
    ],
)
def test_what_is_no_file_is_refused(scales, make, words):
    make(scales / "experiments" / "mine.yaml")
    with pytest.raises(ExperimentError, match=rf"mine\.yaml: {words}"):
        load_plan(scales, "demo")


def test_a_cell_of_a_published_file_that_is_no_value_is_refused(scales):
    (scales / "published").mkdir()
    (scales / "published" / "mine.csv").write_text('depth,mse\n"[",21\n')
    write_experiment(scales, published_points={"file": "mine.csv", "source": "A figure."})
    with pytest.raises(ExperimentError, match=r"mine\.csv: line 2: not valid YAML"):
        load_plan(scales, "demo")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"seeds": 1_000_000}, f"asks for 2000000 runs, all experiments for 2000000; at most {MAX_RUNS} are possible"),
        (
            {"grid": {"max_lr": [i / 1e6 for i in range(1, 2001)], "final_div_factor": list(range(1, 1001))}},
            f"grid: has 2000000 points; at most {MAX_RUNS} are possible",
        ),
    ],
)
def test_the_number_of_runs_is_bounded(scales, content, words):
    write_experiment(scales, **content)
    with pytest.raises(ExperimentError, match=rf"mine\.yaml: {words}"):
        load_plan(scales, "demo")


def test_the_seeds_of_a_scale_are_bounded_too(scales):
    path = scales / "scales" / "paper.yaml"
    path.write_text(re.sub("^seeds: .*", "seeds: 1000000", path.read_text(), flags=re.MULTILINE))
    write_experiment(scales)
    with pytest.raises(ExperimentError, match="asks for 2000000 runs"):
        load_plan(scales, "paper")


def test_names_that_no_folder_can_have_are_refused(scales):
    fields = {
        "warmup_lr": [1.23456789012e-7],
        "min_lr": [1.23456789012e-7],
        "max_lr": [0.00123456789012],
        "schedule": ["cosine"],
    }
    fields |= {"final_div_factor": [12345.678901], "decoder": ["reassemble_shuffle"], "initialization": ["kaiming_uniform"]}
    fields |= {
        "sampling_steps": [12345],
        "num_epochs": [123],
        "batch_size": [7],
        "precision": ["bfloat16"],
        "deterministic": [True],
    }
    write_experiment(scales, grid=fields)
    with pytest.raises(
        ExperimentError, match=r"mine\.yaml: at .*: the name of its runs has \d+ bytes, at most 200 are possible"
    ):
        load_plan(scales, "demo")
    (scales / "experiments" / "mine.yaml").rename(scales / "experiments" / f"{'m' * 240}.yaml")
    with pytest.raises(ExperimentError, match="the file's name has 240 bytes, at most 200"):
        load_plan(scales, "demo")
    with pytest.raises(ExperimentError, match="no scale 'ssss"):
        load_plan(scales, "s" * 300)
