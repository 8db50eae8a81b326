"""The verbs that write tables, figures and the report."""

import sys
from collections import Counter

import pytest

from stlight.cli import main
from stlight.experiments import load_plan
from tests.analysis.conftest import write_examples, write_timings
from tests.analysis.report.conftest import record_all
from tests.tiny_runs import record_untrained, write_experiment


@pytest.fixture
def verb(tmp_path):
    """Run a verb on the results of scale demo in the test's folder and return its exit status."""

    def run(*arguments):
        return main([*arguments, "--results", str(tmp_path), "--data-root", "nowhere"])

    return run


OPENED = Counter()
COUNTING = []


def _count_opens(event, arguments):
    if COUNTING and event == "open" and str(arguments[0]).startswith(COUNTING[0]):
        OPENED[str(arguments[0])] += 1


def test_the_report_opens_every_file_once_however_many_experiments_share_a_run(demo, verb, tmp_path):
    folder = tmp_path / "demo"
    record_all(demo, folder, skip=())
    # An audit hook sees every way of opening a file. It cannot be removed, only told to count no more.
    sys.addaudithook(_count_opens)
    COUNTING.append(str(folder))
    assert verb("report") == 0
    COUNTING.clear()
    files = [path for name in ("record.json", "history.csv") for path in folder.glob(f"runs/*/*/*/{name}")]
    files += [*folder.glob("complexity/*.json"), *folder.glob("speed/*.json")]
    assert len(files) > 2 * len(demo.runs)
    assert {path: OPENED[str(path)] for path in files} == dict.fromkeys(files, 1)


def test_runs_whose_data_is_missing_have_not_begun(verb, capsys):
    assert verb("waiting", "--scale", "paper") == 0
    out = capsys.readouterr().out
    assert "table3_kernel_sizes: 25 of its 25 runs are not there (25 waiting)" in out
    assert "/seed0: waiting: mmnist waits for nowhere" in out


def test_complete_refuses_what_is_missing_and_the_rest_is_written_apart(scales, tmp_path, verb, capsys):
    write_experiment(scales, metrics=["mse", "epoch_seconds"])
    arguments = ("--workflow", str(scales))
    experiment = load_plan(scales, "demo").experiment("mine")
    first, last = experiment.variants
    folder = tmp_path / "demo"

    def record(variant):
        record_untrained(folder, variant.run_name(0), variant.run_config(0))
        write_examples(experiment, folder, variant)

    record(first)
    assert verb("analyse", "mine", "--complete", *arguments) == 1
    assert f"stlight: mine: 1 of its 2 runs have no record: {last.run_name(0)}: waiting" in capsys.readouterr().err
    assert not (folder / "tables").exists()

    assert verb("waiting", *arguments) == 0
    out, unfinished = capsys.readouterr().out, folder / "unfinished" / "tables" / "mine.md"
    assert "mine: 1 of its 2 runs are not there (1 waiting)" in out
    assert f"mine: {folder}/speed/mine.json is missing: python -m stlight measure mine" in out
    assert f"its other cells: {unfinished}" in out
    assert "(waiting)" in unfinished.read_text()
    assert (folder / "report.html").is_file()

    record(last)
    assert verb("analyse", "mine", "--complete", *arguments) == 1
    assert "python -m stlight measure mine" in capsys.readouterr().err
    write_timings(experiment, folder)
    assert verb("analyse", "mine", "--complete", *arguments) == 0
    assert (folder / "tables" / "mine.md").is_file()
    assert not list((folder / "unfinished").glob("*/mine.*"))
