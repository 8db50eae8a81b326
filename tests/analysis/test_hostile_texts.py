"""An experiment whose every text is hostile is written in every form, and each form is well-formed."""

import csv
import dataclasses
import itertools
import re
import xml.etree.ElementTree as ElementTree

import matplotlib.pyplot as plt
import pytest

from stlight.analysis.escaping import plain
from stlight.analysis.figures import draw, write_figures
from stlight.analysis.tables import write_tables
from tests.analysis.conftest import write_examples
from tests.analysis.hostile_texts import TITLES

# Without letters that Matplotlib's font lacks, about which it warns.
NAMES = [title for title in TITLES if "漢" not in title]
TITLE = "$\\foo$ | <b>\x07 \ufffe --> & \n\n# ^_{"


@pytest.fixture
def hostile(demo, record_run, values_of, tmp_path):
    """The values of Table 1, of which each text is hostile: title, item, summary, and the names of the quoted models."""
    base = demo.experiment("table1_literature")
    quoted = []
    for name, entry in zip(NAMES, itertools.cycle(base.quoted)):
        quoted.append(entry.model_copy(update={"model": name, "coordinates": entry.coordinates | {"model": name}}))
    experiment = dataclasses.replace(base, title=TITLE, item=TITLE, summary=TITLE, quoted=quoted)
    for variant in experiment.variants:
        record_run(experiment, variant, 0, mse=50.0)
        write_examples(experiment, tmp_path, variant)
    return values_of(experiment)


def test_tables_keep_their_rows_and_columns(hostile, tmp_path):
    write_tables(hostile, tmp_path)
    base = tmp_path / "tables" / hostile.experiment.name
    text = base.with_suffix(".md").read_text()
    title, _, summary, _, *_ = lines = text.split("\n")
    assert title.startswith("# \\$\\foo\\$ \\| \\<b> --> & # ^\\_{: ")
    assert summary.startswith("\\$\\foo")
    rows = [line for line in lines if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", row)) for row in rows}) == 1
    assert len(rows) == 2 + len(set(hostile.cells["model"]))
    with base.with_suffix(".csv").open(newline="") as file:
        models = [row["model"] for row in csv.DictReader(file)]
    assert len(models) == len(hostile.cells)
    assert not [model for model in models if model.startswith(("=", "+", "-", "@"))]
    # A comment of one line, then the table.
    comment, _, table, *_ = base.with_suffix(".tex").read_text().split("\n")
    assert comment.startswith("% $\\foo$ | <b>")
    assert table.startswith("\\begin{tabular}")


def test_figures_show_names_as_they_are(hostile, tmp_path):
    write_figures(hostile, tmp_path)
    for folder in ("figures", "examples"):
        ElementTree.parse(tmp_path / folder / f"{hostile.experiment.name}.svg")
    figure = draw(hostile)
    figure.draw_without_rendering()
    shown = {text.get_text() for text in figure.findobj(plt.Text)}
    plt.close(figure)
    assert {plain(str(entry.model)) for entry in hostile.experiment.quoted} <= shown
    assert not [text for text in shown if "mathdefault" in text]
