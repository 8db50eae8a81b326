"""The page: whole in itself, every number leads to its runs, and what is missing is said."""

import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd

from stlight.analysis.evidence import load_evidence
from stlight.analysis.report import anchor, write_report
from stlight.analysis.values import Values
from stlight.experiments import load_plan
from stlight.runs.record import read_record, write_record
from stlight.runs.rounds import Outlook, Round
from tests.analysis.report.conftest import DIVERGED, LEFT_OUT, record_all, write
from tests.conftest import REPOSITORY, WORKFLOW
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


def test_the_page_of_the_kept_demo_is_small(demo, tmp_path):
    reference = REPOSITORY / "results" / "reference" / "demo"
    for name in ("runs", "figures", "examples", "complexity", "speed"):
        (tmp_path / name).symlink_to(reference / name)
    text = write(demo, tmp_path)
    assert text.count("data:image/") == 21
    assert len(text.encode()) < 2e6


def test_every_number_leads_to_its_runs(reported, demo):
    page = Page((reported / "report.html").read_text())
    cells = {name for name in page.ids if name.startswith("cell-")}
    # Every cell is reached from a table.
    assert cells == {link[1:] for link in page.links if link.startswith("#cell-")}
    runs = {link for link in page.links if link.startswith("#run-")}
    assert len(runs) == len(demo.runs) - 1
    base = (
        (reported / "report.html")
        .read_text()
        .partition(f'id="run-{anchor("mmnist/stlight_l/seed0")}"')[2]
        .partition("</details>")[0]
    )
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


def test_a_run_says_what_it_learnt_and_a_record_what_the_base_has_not(reported):
    text = (reported / "report.html").read_text()
    rows = re.findall(r'<tr data-name="([^"]+)".*?</th><td>([^<]*)</td>', text)
    found = dict(rows)
    assert found[DIVERGED] == "diverged"
    assert found["mmnist/stlight_l/seed0"] == "MSE"
    assert len(rows) == text.count('<details class="run"')
    place = f'id="run-{anchor("mmnist/init=kaiming_normal+lr=0.001/seed1")}"'
    later = text.partition(place)[2].partition("</details>")[0]
    assert "hidden_dim" not in later
    assert "initialization kaiming_normal" in later
    assert "config_hash" in later
    assert "All else is as in" in later


def test_of_many_runs_the_first_of_each_cell_is_shown_whole(demo, tmp_path, monkeypatch):
    monkeypatch.setattr("stlight.analysis.report.rows.MOST_DETAILED", 10)
    record_all(demo, tmp_path)
    text = write(demo, tmp_path)
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    cells = {name.rpartition("/")[0] for name in demo.runs.keys() - {LEFT_OUT}}
    assert text.count('<details class="run"') == len(cells) < len(demo.runs) - 1


def test_every_tested_sentence_has_its_effect_drawn(reported, demo):
    text = (reported / "report.html").read_text().partition('id="effects"')[2].partition("</section>")[0]
    claims = pd.read_csv(reported / "claims.csv")
    trained = {claim.id for e in demo.experiments.values() for claim in e.claims if claim.statistical}
    tested = claims[(claims["source"] == "measured") & claims["id"].isin(trained) & claims["effect"].notna()]
    assert sorted(re.findall(r'<tr><th scope="row"><a href="#claim-(\w+)"', text)) == sorted(tested["id"])
    assert text.count('class="zero"') == len(tested)
    assert text.count('class="interval"') == np.isfinite(tested["low"]).sum() > 3


def test_where_a_budget_stopped_and_what_another_hour_would_settle_is_said(demo, tmp_path):
    outlooks = [
        Outlook(claim="kernel_optimum", state="open", seeds=3, next_look=5, chance=0.25, seconds=1200.0),
        Outlook(claim="hybrid_best", state="open", seeds=3, next_look=5, chance=0.5, seconds=600.0),
        Outlook(claim="small_lr_worse", state="settled", seeds=3),
        Outlook(claim="large_lr_worse", state="hopeless", seeds=3, why="too dear"),
    ]
    last = Round(
        number=4,
        plan=demo.hash,
        hours=2.0,
        spent_seconds=7000.0,
        expected_seconds=0.0,
        expected_settled=0.0,
        seeds={},
        estimates={},
        claims=outlooks,
        reason="the budget is spent; another core hour is expected to settle 0.8 sentences (hybrid_best)",
        stop="budget",
    )
    values = {name: Values(evidence) for name, evidence in load_evidence(demo, tmp_path).items()}
    write_report(demo, values, WORKFLOW, tmp_path, [], [last])
    page = (tmp_path / "report.html").read_text()
    assert "hours=2</pre>" in page
    text = page.partition('id="rounds"')[2].partition("</section>")[0]
    assert "before round 4" in text
    assert f"with 1.94 of 2 core hours spent: {last.reason}" in " ".join(text.split())
    assert re.findall(r'<a href="#claim-(\w+)"', text) == ["hybrid_best", "kernel_optimum", "large_lr_worse"]
    assert "<td>50%</td><td>10.0</td>" in text
    assert "too dear" in text


def test_verdicts_stand_beside_those_of_other_scales(demo, tmp_path):
    (tmp_path / "demo").mkdir()
    assert 'id="scales"' not in write(demo, tmp_path / "demo")
    (tmp_path / "small").mkdir()
    table = pd.read_csv(tmp_path / "demo" / "claims.csv")
    table.loc[(table["id"] == "hybrid_best") & (table["source"] == "measured"), "verdict"] = "holds at this scale"
    table.to_csv(tmp_path / "small" / "claims.csv", index=False)
    text = write(demo, tmp_path / "demo").partition('id="scales"')[2].partition("</section>")[0]
    assert "<th>small</th>" in text
    (row,) = re.findall(r'<tr><td><a href="#claim-hybrid_best">.*?</tr>', text)
    assert re.findall(r'">([a-z ]+)</span>', row) == ["untested", "holds at this scale"]


def test_the_papers_recipe_stands_beside_ours(reported, demo):
    text = (reported / "report.html").read_text().partition('id="item-figure1_initialization"')[2].partition("</section>")[0]
    config = demo.experiment("figure1_initialization").variants[0].config
    assert f"<td>steps</td><td>125,000</td><td>{config.num_steps:,}</td>" in text
    assert f"<td>batch</td><td>16</td><td>{config.training.batch_size}</td>" in text
