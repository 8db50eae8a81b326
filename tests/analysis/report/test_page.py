"""The page: whole in itself, every number leads to its runs, and what is missing is said."""

import re
from html.parser import HTMLParser

import pandas as pd

from stlight.experiments import load_plan
from stlight.runs.record import read_record, write_record
from tests.analysis.report.conftest import LEFT_OUT, record_all, write
from tests.tiny_runs import record_untrained, write_experiment


class Page(HTMLParser):
    """Identifiers, links and sources of a page."""

    def __init__(self, text):
        super().__init__()
        self.ids, self.links, self.sources, self.link_texts, self._link = [], [], [], {}, None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.sources += [attributes[name] for name in ("src", "srcset") if name in attributes]
        if "href" in attributes:
            self._link = attributes["href"]
            self.links.append(self._link)

    def handle_endtag(self, tag):
        self._link = None if tag == "a" else self._link

    def handle_data(self, data):
        if self._link:
            self.link_texts.setdefault(self._link, []).append(data)


def test_the_page_is_whole_in_itself(reported):
    text = (reported / "report.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "data:,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not re.search(
        r"<(link(?! rel=\"icon\")|iframe|object|embed|script src)|srcset|sendBeacon|XMLHttpRequest|import\(", text
    )
    assert not re.search(r"@import|url\(|fetch\(|https?://", text.partition("<main>")[0] + text.partition("</main>")[2])


def test_every_number_leads_to_its_runs(reported, demo):
    page = Page((reported / "report.html").read_text())
    cells = {name for name in page.ids if name.startswith("cell-")}
    # Every cell is reached from a table.
    assert cells == {link[1:] for link in page.links if link.startswith("#cell-")}
    runs = {link for link in page.links if link.startswith("#run-")}
    assert len(runs) == len(demo.runs) - 1
    base = (reported / "report.html").read_text().partition('id="run-mmnist-stlight_l-seed0"')[2].partition("</details>")[0]
    config = demo.run("mmnist/stlight_l/seed0")
    for fact in ("python -m stlight train mmnist/stlight_l/seed0 --scale demo", config.hash, "hidden_dim 24,", "polyline"):
        assert fact in base, fact


def test_what_waits_is_said_and_never_blank(reported, demo):
    text = (reported / "report.html").read_text()
    assert f"{LEFT_OUT}: waiting" in text
    assert f"{len(demo.runs) - 1} of {len(demo.runs)} runs are there" in text
    assert "– (waiting)" in text


def test_the_files_beside_it(reported, demo):
    claims = pd.read_csv(reported / "claims.csv")
    assert len(claims) == 2 * sum(len(e.claims) for e in demo.experiments.values())
    floor = pd.read_csv(reported / "noise_floor.csv")
    assert {"figure1_initialization", "extra_ambiguities", "table3_kernel_sizes"} <= set(floor["experiment"])
    audit = pd.read_csv(reported / "selection_audit.csv")
    assert set(audit.columns) >= {"last", "best_on_validation", "best_on_test", "optimism"}
    assert (reported / "errata.md").read_text().count("\n### ") > 20


def test_verdicts_are_told_by_what_they_rest_on(reported, demo):
    text = (reported / "report.html").read_text()
    boxes = re.findall(r"<div><p>(?:On|Counted) [^<]*</p>(.*?)</div>", text, re.DOTALL)
    sums = [sum(map(int, re.findall(r">(\d+) ", box))) for box in boxes]
    claims = [claim for e in demo.experiments.values() for claim in e.claims if claim.section != "-"]
    trained = sum(claim.statistical for claim in claims)
    untestable = sum(claim.kind == "untested" for claim in claims)
    assert sums == [len(claims), len(claims) - trained - untestable, trained]
    assert f"Of the readings, {untestable} can be tested by neither" in text
    assert f"count {len(claims)} readings of {len({claim.sentence for claim in claims})} sentences" in text
    own = sum(claim.statistical for e in demo.experiments.values() for claim in e.claims if claim.section == "-")
    assert f"{trained} of the readings need trained runs; {trained + own} do with the {own} of our own" in text
    assert "our runs, stand-in" in text
    assert "counted here <span" in text
    table = pd.read_csv(reported / "claims.csv")
    runs = table[(table["source"] == "measured") & table["protocol"].isin(["reduced", "stand-in"])]
    assert not runs["verdict"].isin(["reproduced", "contradicted"]).any()
    assert set(table.loc[table["source"] == "published", "protocol"]) == {"exact"}


def test_nothing_there_yet_is_a_page_too(paper, tmp_path):
    text = write(paper, tmp_path)
    assert "0 of 171 runs are there" in text
    assert "The figure waits" in text


def test_a_damaged_file_costs_its_own_place_only(demo, tmp_path):
    record_all(demo, tmp_path, skip=())
    runs = tmp_path / "runs" / "mmnist"
    (runs / "k1=5+lr=0.001" / "seed0" / "history.csv").unlink()
    (tmp_path / "complexity" / "table2_openstl.json").write_text("{")
    (tmp_path / "complexity" / "section_b_complexity.json").write_text("[]")
    text = write(demo, tmp_path)
    assert re.search(r"mmnist/k1=5\+lr=0.001/seed0: damaged: .*history.csv cannot be read", text)
    assert f"{len(demo.runs) - 1} of {len(demo.runs)} runs are there" in text
    assert "aiting for the counts" in text


def test_a_record_of_another_configuration_waits_and_says_so(demo, tmp_path):
    record_untrained(tmp_path, "mmnist/k1=5+lr=0.001/seed0", demo.run("mmnist/k1=7+lr=0.001/seed0"))
    assert "mmnist/k1=5+lr=0.001/seed0: waiting: its record is of another configuration" in write(demo, tmp_path)


def test_a_workflow_without_errata_has_a_page(workflow, tmp_path):
    for name in ("errata.yaml", "quoted_sources.yaml"):
        (workflow / name).unlink()
    assert "Errata" in write(load_plan(workflow, "demo"), tmp_path, workflow)


def test_mixed_and_uncommitted_versions_are_flagged(demo, reported, tmp_path):
    assert "Mixed versions" not in (reported / "report.html").read_text()
    record_all(demo, tmp_path, skip=())
    path = tmp_path / "runs" / "mmnist" / "stlight_l" / "seed0" / "record.json"
    record = read_record(path)
    write_record(path, record.model_copy(update={"provenance": {"source": "other", "code": "abc+changes"}}))
    text = write(demo, tmp_path)
    assert "come from 2 versions of the code" in text
    assert f"1 of {len(demo.runs)} records were made by code with uncommitted changes" in text


def test_words_from_files_are_text(workflow, tmp_path):
    sentence = "<script>alert(1)</script> & more"
    claim = {"id": "mine", "sentence": sentence, "untested": "<b>no</b>"}
    write_experiment(workflow, title="<i>Mine</i>", claims=[claim])
    text = write(load_plan(workflow, "demo"), tmp_path, workflow)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "<i>Mine" not in text


def test_spikes_stand_in_the_table_of_runs(demo, tmp_path):
    record_untrained(
        tmp_path, "mmnist/k1=5+lr=0.001/seed0", demo.run("mmnist/k1=5+lr=0.001/seed0"), losses=(99.0, 4.0, 98.0, 1.0)
    )
    assert "mmnist/k1=5+lr=0.001/seed0: done, 2 spikes on the way" in write(demo, tmp_path)
