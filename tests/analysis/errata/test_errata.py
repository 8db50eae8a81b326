"""The list of all errata, and the files that state some of them."""

import pytest
import yaml

from stlight.analysis.errata import as_markdown, errata, stated
from stlight.analysis.escaping import markdown
from stlight.experiments import ExperimentError
from tests.analysis.errata import test_listings, test_main_paper, test_numbers, test_text
from tests.analysis.errata.support import SHOWN, found_in


def test_every_erratum_has_a_test_that_shows_it(paper):
    ids = [e.id for e in found_in(paper)]
    assert len(set(ids)) == len(ids)
    assert set(ids) == SHOWN.keys()
    tests = [test for module in (test_listings, test_main_paper, test_numbers, test_text) for test in vars(module).values()]
    assert all(test.__name__.startswith("test_") and test in tests for test in SHOWN.values())


def test_markdown_holds_every_erratum(found):
    text = as_markdown(list(found.values()))
    assert text.count("\n### ") == len(found)
    for number, entry in enumerate(found.values(), 1):
        heading = text.index(f"\n### {number}. {entry.place}\n")
        rest = text[heading:]
        texts = map(markdown, (entry.kinder, entry.says, entry.should, entry.here))
        parts = [rest.index(words) for words in (*texts, f"`{entry.id}`")]
        assert parts == sorted(parts)


ENTRY = {"id": "mine", "weight": "slips", "place": "Table 1", "quote": "q", "says": "a", "should": "b", "here": "c"}
SOURCE = {"experiment": "table2_openstl", "where": "a page", "cited": True, "rows": [{"model": "TAU", "mse": 15.69}]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([ENTRY, {k: v for k, v in ENTRY.items() if k != "here"}], r"\[1\] \(mine\)\.here: is missing"),
        ([ENTRY | {"fix": "d"}], r"\[0\] \(mine\): unknown key 'fix'; known are"),
        ([ENTRY | {"weight": "heavy"}], r"\[0\] \(mine\)\.weight: .*'results', 'numbers' or 'slips'.*'heavy'"),
        ([ENTRY | {"says": 3}], r"\[0\] \(mine\)\.says: input should be a valid string, got 3"),
        ([ENTRY, ENTRY], r"\[1\]\.id: 'mine' is given twice"),
        ({"errata": []}, r"the file: input should be a valid list"),
    ],
)
def test_a_wrong_entry_is_answered_in_one_line(workflow, content, words):
    (workflow / "errata.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=rf"errata\.yaml: {words}") as caught:
        stated(workflow)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{k: v for k, v in SOURCE.items() if k != "cited"}], r"\[0\]\.cited: is missing"),
        ([SOURCE | {"page": 3}], r"\[0\]: unknown key 'page'"),
        ([SOURCE | {"rows": [{"model": "TAU", "mse": "15,69"}]}], r"\[0\]\.rows\[0\]\.mse: must be a number.*got '15,69'"),
        ([SOURCE | {"rows": [{"model": "TAO", "mse": 1}]}], r"\[0\]\.rows\[0\]\.mse: table2_openstl quotes no mse of 'TAO'"),
        ([SOURCE | {"rows": [{"model": "TAU", "mze": 1}]}], r"\[0\]\.rows\[0\]\.mze: table2_openstl quotes no mze of 'TAU'"),
    ],
)
def test_a_wrong_source_is_answered_in_one_line(paper, workflow, content, words):
    (workflow / "quoted_sources.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=rf"quoted_sources\.yaml: {words}") as caught:
        errata(paper, workflow)
    assert "\n" not in str(caught.value)
