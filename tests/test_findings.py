"""The findings in README and docs are those of the kept results."""

import importlib.util

import pytest

from tests.conftest import REPOSITORY

spec = importlib.util.spec_from_file_location("write_findings", REPOSITORY / "docs" / "write_findings.py")
writing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(writing)


@pytest.fixture(scope="module")
def findings():
    return writing.Findings()


@pytest.mark.parametrize("page", writing.PAGES)
def test_pages_hold_the_numbers_of_the_kept_results(page, findings):
    text = (REPOSITORY / page).read_text()
    assert "<!-- findings: " in text
    assert findings.written(page) == text, "write them again with `python docs/write_findings.py`"


def test_each_trained_sentence_is_in_one_group(findings):
    for source in writing.SOURCES:
        table = findings.of(source)
        assert table["id"].is_unique
        groups = [set(table.loc[table["verdict"].isin(names), "id"]) for names in writing.OUTCOMES.values()]
        assert sum(map(len, groups)) == len(table)


def test_links_lead_to_entries_of_the_kept_pages(findings):
    for page in writing.PAGES:
        folder = (REPOSITORY / page).parent
        links = {link for link in writing.re.findall(r"\(([^()]*report\.html#[^()]*)\)", findings.written(page))}
        assert links
        for link in links:
            path, anchor = link.split("#")
            assert f'id="{anchor}"' in (folder / path).read_text(), link
