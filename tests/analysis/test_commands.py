"""The verbs that write tables, figures and the report."""

import sys
from collections import Counter

import pytest

from stlight.cli import main
from tests.analysis.conftest import write_examples
from tests.analysis.report.conftest import record_all
from tests.tiny_runs import record_untrained


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
    assert max(OPENED[str(path)] for path in folder.glob("runs/*/*/*/examples.npz")) == 1


def test_complete_refuses_what_is_missing_and_the_rest_is_written_apart(demo, verb, tmp_path, capsys):
    folder, name = tmp_path / "demo", "table5_final_div_factor"
    experiment = demo.experiment(name)
    *variants, last = experiment.variants
    for variant in variants:
        record_untrained(folder, variant.run_name(0), variant.run_config(0))
        write_examples(experiment, folder, variant)
    assert verb("analyse", name, "--complete") == 1
    words = f"stlight: {name}: 1 of its {len(experiment.variants)} runs have no record: {last.run_name(0)}: waiting"
    assert words in capsys.readouterr().err
    assert not (folder / "tables").exists()

    assert verb("waiting") == 0
    out = capsys.readouterr().out
    assert f"{name}: 1 of its {len(experiment.variants)} runs are not there (1 not begun)" in out
    assert "table2_openstl.json is missing: python -m stlight measure table2_openstl" in out
    unfinished = folder / "unfinished" / "tables" / f"{name}.md"
    assert f"its other cells: {unfinished}" in out
    assert "(waiting)" in unfinished.read_text()
    assert (folder / "report.html").is_file()

    record_untrained(folder, last.run_name(0), last.run_config(0))
    assert verb("analyse", name, "--complete") == 0
    assert (folder / "tables" / f"{name}.md").is_file()
    assert not list((folder / "unfinished").glob(f"*/{name}.*"))
