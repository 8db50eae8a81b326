"""No text breaks a format, whatever it holds, and each reader sees it as it was."""

import csv as standard_csv
import html as standard_html
import io
import re
import shutil
import subprocess
import unicodedata

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tabulate import tabulate

from stlight.analysis.escaping import csv, html, latex, markdown, plain
from stlight.analysis.report import _template
from tests.analysis.hostile_texts import TEXTS, TITLES
from tests.conftest import REPOSITORY

PAGE = _template().environment.from_string("<p>{{ text }}</p>")


@settings(deadline=None)
@given(TEXTS)
def test_plain_text_is_one_line_that_xml_can_hold(text):
    shown = plain(text)
    assert len(shown.splitlines()) <= 1
    assert not {unicodedata.category(c) for c in shown} & {"Cc", "Cs", "Cn"}
    assert plain(shown) == shown
    assert [c for c in text if c.isalnum()] == [c for c in shown if c.isalnum()]


@settings(deadline=None)
@given(TEXTS)
def test_markdown_shows_the_text(text):
    escaped = markdown(text)
    if "`" not in text:
        # As CommonMark reads it: a backslash before punctuation is left out.
        assert re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", escaped) == plain(text)
    # Outside of code, nothing that begins markup stands without a backslash.
    rest = re.sub(r"\\[!-/:-@\[-`{-~]|`[^`|]+`", "·", escaped)
    assert not re.search(r"[`*|$~]|<[A-Za-z/!?]|\]\(", rest)
    assert not re.match(r"[-+=>#]+(\s|$)|>|\d[.)]\s", escaped)


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4))
def test_a_markdown_table_keeps_its_rows_and_columns(rows):
    table = tabulate([[*map(markdown, row)] for row in rows], ["a", "b"], tablefmt="github", disable_numparse=True)
    lines = table.split("\n")
    assert len(lines) == len(rows) + 2
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines} == {3}


def test_ordinary_text_needs_no_backslash():
    for text in ("hidden_dim \\ k1", "5 < 7 & x > 2", "[0, 1]", "-1.5", "`stlight identify` finds", "k_T1 (3, 7)"):
        assert markdown(text) == text


@settings(deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=4))
def test_csv_begins_no_formula_and_reads_back(texts):
    written = csv(pd.DataFrame({"name": texts, "number": range(len(texts))}))
    (_, *rows) = standard_csv.reader(io.StringIO(written, newline=""))
    assert len(rows) == len(texts)
    for (cell, number), text in zip(rows, texts, strict=True):
        assert number.isdigit()
        assert cell[:1] not in ("=", "@", "\t", "\r")
        assert cell[:1] not in ("+", "-") or re.fullmatch(r"[-+]?[\d.eEKMGinfa;+-]*", cell)
        assert "".join(cell.split()).removeprefix("'") == "".join(plain(text).split()).removeprefix("'")


def test_csv_keeps_numbers_and_signs():
    table = pd.DataFrame({"a": [-0.5, 1.0], "b": ["-0.1;2e-05", "-"], "c": ["-1.5K", "+3"]})
    assert csv(table) == table.to_csv(index=False)


@settings(deadline=None)
@given(TEXTS)
def test_html_shows_the_text_and_no_tag(text):
    page = PAGE.render(text=text)
    assert re.findall("<[^>]*>", page) == ["<p>", "</p>"]
    shown = standard_html.unescape(page.removeprefix("<p>").removesuffix("</p>"))
    assert plain(shown) == plain(text)
    assert html(3) == 3


def test_every_writer_of_the_analysis_escapes():
    for path in (REPOSITORY / "stlight" / "analysis").rglob("*.py"):
        if path.name != "escaping.py":
            assert ".to_csv(" not in path.read_text(), path


@pytest.mark.system
def test_latex_compiles(tmp_path):
    if not (compiler := shutil.which("pdflatex")):
        pytest.skip("no pdflatex: apt install texlive-latex-base")
    texts = list(TITLES)

    @settings(deadline=None)
    @given(TEXTS)
    def collect(text):
        texts.append(text)

    collect()
    cells = [latex(text) for text in texts]
    table = tabulate([[cell, cell] for cell in cells], ["a", "b"], tablefmt="latex_raw", disable_numparse=True)
    _, _, _, _, *rows, _, _ = table.split("\n")
    assert len(rows) == len(texts)
    # Short tables, because TeX does not break one over pages. A row is tried alone and after another one.
    groups = [[row] for row in rows] + [rows[i : i + 20] for i in range(0, len(rows), 20)]
    tables = ["\n".join([r"\begin{tabular}{ll}", *group, r"\end{tabular}", ""]) for group in groups]
    page = [r"\documentclass{article}\begin{document}", *tables, r"\end{document}"]
    (tmp_path / "page.tex").write_text("\n".join(page), encoding="utf-8")
    command = [compiler, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "page.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout.decode(errors="replace")[-2000:]
