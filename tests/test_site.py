"""The documentation: links lead somewhere, pages are listed, tables are right. `.ci/run` builds the site itself."""

import importlib.util
import re

import pytest

from stlight import cli
from stlight.config import RunConfig
from stlight.experiments import load_plan
from tests.conftest import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [*REPOSITORY.glob("*.md"), *DOCS.rglob("*.md"), REPOSITORY / "results" / "README.md"]

spec = importlib.util.spec_from_file_location("site_reference", DOCS / "site_reference.py")
site_reference = importlib.util.module_from_spec(spec)
spec.loader.exec_module(site_reference)


def without_code(text):
    return re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)


def anchors_of(text):
    """Return the anchors that GitHub and MyST give to headings, or those of an HTML page."""
    if text.startswith("<!doctype html>"):
        return set(re.findall(r' id="([^"]+)"', text))
    headings = re.findall(r"^#+ (.*)$", without_code(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_lead_to_a_file_and_a_heading(page):
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", without_code(page.read_text())):
        file = (page.parent / target) if target else page
        assert file.exists(), target
        assert not anchor or anchor in anchors_of(file.read_text()), f"{target}#{anchor}"


def test_the_navigation_lists_every_page():
    trees = re.findall(r"```\{toctree\}(.*?)```", (DOCS / "index.md").read_text(), re.S)
    lines = (line for tree in trees for line in tree.splitlines() if line and not line.startswith(":"))
    listed = [line.partition("<")[2].rstrip(">") or line for line in lines]
    pages = {str(path.relative_to(DOCS).with_suffix("")) for path in DOCS.rglob("*.md")} - {"index"}
    assert sorted(listed) == sorted(pages)


def test_the_readme_is_short():
    assert len((REPOSITORY / "README.md").read_text().splitlines()) < 150


@pytest.mark.parametrize("scale", ["smoke", "demo", "small", "gpu", "paper"])
def test_tables_of_scales_have_the_numbers_of_runs(scale, tmp_path):
    runs = len(load_plan(REPOSITORY / "workflow", scale, tmp_path).runs)
    for page in ("README.md", "docs/scales.md"):
        rows = re.findall(rf"^\| `{scale}`(?: \(default\))? \|.*$", (REPOSITORY / page).read_text(), re.M)
        assert rows, page
        assert str(runs) in rows[0].replace(" ", "").split("|"), page


def test_the_readme_lists_every_experiment():
    section = (REPOSITORY / "README.md").read_text().partition("## Experiments")[2]
    files = {path.stem for path in (REPOSITORY / "workflow" / "experiments").glob("*.yaml")}
    assert set(re.findall(r"^\| [^|]* \| `(\w+)` \|", section, re.M)) == files


def test_the_reference_has_every_verb_and_option():
    text = site_reference.command_line()
    for verb, parser in site_reference.verb_parsers().items():
        assert f"## stlight {verb}\n" in text
        for action in parser._actions:
            names = action.option_strings or [action.metavar or action.dest]
            assert f"`{', '.join(names)}" in text or action.dest == "help"
    assert text.index("## Options of every verb") < text.index("`--data-root")
    assert set(cli.VERBS) == site_reference.verb_parsers().keys()


def test_the_reference_has_every_field_with_its_default():
    text = site_reference.run_fields()
    for name, value in RunConfig().fields.items():
        if name != "custom_shape":
            assert re.search(rf"^\| `{name}` \| [^|]+ \| {re.escape(site_reference.code(value))} \| \S", text, re.M), name


@pytest.mark.parametrize("page", ["reference/experiment-file", "reference/scale-file"])
def test_types_of_keys_have_sections(page):
    text = site_reference.GENERATED[page]()
    assert set(re.findall(r"\]\(#([^)]*)\)", text)) <= anchors_of(text)


def test_links_on_pages_from_elsewhere_lead_to_pages_of_the_site():
    text = "[a](docs/data.md#x) [b](SECURITY.md) [c](https://example.org/d) ![e](figure.png)"
    moved = site_reference.relinked(text, REPOSITORY, DOCS / "reference")
    assert moved == "[a](../data.md#x) [b](../security.md) [c](https://example.org/d) ![e](../../figure.png)"
