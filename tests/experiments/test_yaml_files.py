"""YAML is read strictly, and numbers keep the digits that they were written with."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stlight.experiments import ExperimentError, load_plan
from stlight.experiments.field_types import PrintedNumber
from stlight.experiments.yaml_files import read_file


def test_numbers_mean_the_same_however_they_are_written(workflow, demo):
    path = workflow / "experiments" / "table5_final_div_factor.yaml"
    text = path.read_text()
    path.write_text(text.replace("[1000, 3000, 10000]", "[1e3, 3E+3, 1.0e4]"))
    assert "1.0e4" in path.read_text()
    assert load_plan(workflow, "demo").runs == demo.runs


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"title: [", "not valid YAML"),
        (b"title: a\ntitle: b\n", "the key 'title' is given twice"),
        (b"1: a", "the key '1' is not text"),
        (b"title: \xff", "not valid YAML: 'utf-8' codec can't decode byte 0xff"),
        (b"title: !!python/object:os.system {}", "not valid YAML"),
        (b"[1, 2", "not valid YAML"),
        (b"- 1", r"the file: input should be a valid dictionary, got \[1\]"),
    ],
)
def test_what_is_not_plain_yaml_is_refused(tmp_path, content, words):
    path = tmp_path / "file.yaml"
    path.write_bytes(content)
    with pytest.raises(ExperimentError, match=rf"file\.yaml: .*{words}") as caught:
        read_file(path, dict[str, str])
    assert "\n" not in str(caught.value)


def test_a_file_that_would_be_ignored_is_refused(workflow):
    (workflow / "experiments" / "mine.yml").touch()
    with pytest.raises(ExperimentError, match=r"mine\.yml: .* ends in \.yaml"):
        load_plan(workflow, "demo")


@pytest.mark.parametrize(
    ("text", "value", "half_unit"),
    [("32.9M", 32.9e6, 5e4), ("116.0G", 116e9, 5e7), ("21.80", 21.8, 0.005), ("23", 23, 0.5), ("-1.5K", -1500, 50)],
)
def test_a_printed_number_keeps_its_digits_and_unit(tmp_path, text, value, half_unit):
    (tmp_path / "file.yaml").write_text(f"[{text}]")
    (number,) = read_file(tmp_path / "file.yaml", list[PrintedNumber])
    assert str(number) == text
    assert number.value == pytest.approx(value)
    assert number.half_unit == pytest.approx(half_unit)


@given(st.integers(0, 10**6), st.integers(0, 3), st.integers(0, 3))
def test_roundings_of_one_number_do_not_differ(digits, first, second):
    value = digits / 1000
    a, b = (PrintedNumber(f"{value:.{places}f}") for places in (first, second))
    assert not a.differs(b)
    assert a.differs(PrintedNumber(f"{a.value + 1.4 * a.half_unit:.4f}"))
