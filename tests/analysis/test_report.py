"""The page: whole in itself, every number leads to its runs, and it works in a browser."""

import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from stlight.analysis.report import write_report
from stlight.experiments import load_plan
from stlight.runs.record import read_record, write_record
from tests.conftest import WORKFLOW
from tests.tiny_runs import record_untrained, write_experiment

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
LEFT_OUT, DIVERGED = "mmnist/k1=11+k2=11/seed0", "mmnist/init=kaiming_normal/seed4"


def record_all(plan, folder, skip=(LEFT_OUT,)):
    rng = np.random.default_rng(0)
    for name, config in plan.runs.items():
        mse, noise = 100 + rng.normal(), 1 + rng.uniform(-0.1, 0.1, 4)
        if name not in skip:
            status = "diverged" if name == DIVERGED else "done"
            record_untrained(
                folder, name, config, status, list(np.array([4.0, 3.0, 2.0, 1.5]) * noise), mse=mse, mae=300.0, ssim=0.5
            )
            shape = config.clip_shape
            context = rng.integers(0, 255, (2, shape.context_frames, shape.channels, 16, 16), dtype=np.uint8)
            future = rng.integers(0, 255, (2, shape.horizon_frames, shape.channels, 16, 16), dtype=np.uint8)
            np.savez(folder / "runs" / name / "examples.npz", context=context, truth=future, prediction=future)
    for experiment in plan.experiments.values():
        if experiment.counts:
            components = {"patch_encoder": 10, "mixers": 100, "patch_reassemble": 1}
            count = {
                "parameters": components | {"total": 111},
                "closed_forms": components,
                "benchmark_flops": 10**9,
                "flops_fvcore": 10**9,
            }
            counts = {f"{v.dataset}/{v.name}": count for v in experiment.variants}
            (folder / "complexity").mkdir(exist_ok=True)
            (folder / "complexity" / f"{experiment.name}.json").write_text(json.dumps(counts))


def write(plan, folder, workflow=WORKFLOW):
    write_report(plan, workflow, folder, [])
    return (folder / "report.html").read_text()


@pytest.fixture(scope="module")
def folder(demo, tmp_path_factory):
    """The page of a demo of which one run waits and one has diverged."""
    folder = tmp_path_factory.mktemp("demo")
    record_all(demo, folder)
    write(demo, folder)
    return folder


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


def test_the_page_is_whole_in_itself(folder):
    text = (folder / "report.html").read_text()
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))
    assert all(source.startswith("data:image/") for source in page.sources)
    assert all(link.startswith(("#", "data:,")) for link in page.links)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert not re.search(r"@import|url\(|fetch\(|https?://", text.partition("<main>")[0] + text.partition("</main>")[2])


def test_every_number_leads_to_its_runs(folder, demo):
    page = Page((folder / "report.html").read_text())
    cells = {name for name in page.ids if name.startswith("cell-")}
    # Every cell is reached from a table.
    assert cells == {link[1:] for link in page.links if link.startswith("#cell-")}
    runs = {link for link in page.links if link.startswith("#run-")}
    assert len(runs) == len(demo.runs) - 1
    base = (folder / "report.html").read_text().partition('id="run-mmnist-stlight_l-seed0"')[2].partition("</details>")[0]
    config = demo.run("mmnist/stlight_l/seed0")
    for fact in ("python -m stlight train mmnist/stlight_l/seed0 --scale demo", config.hash, "hidden_dim 32", "polyline"):
        assert fact in base, fact


def test_what_waits_is_said_and_never_blank(folder):
    text = (folder / "report.html").read_text()
    assert f"{LEFT_OUT}: waiting" in text
    assert "82 of 83 runs are there" in text
    assert "– (waiting)" in text


def test_the_files_beside_it(folder, demo):
    claims = pd.read_csv(folder / "claims.csv")
    assert len(claims) == 2 * sum(len(e.claims) for e in demo.experiments.values())
    floor = pd.read_csv(folder / "noise_floor.csv")
    assert {"figure1_initialization", "extra_ambiguities", "table3_kernel_sizes"} <= set(floor["experiment"])
    audit = pd.read_csv(folder / "selection_audit.csv")
    assert set(audit.columns) >= {"last", "best_on_validation", "best_on_test", "optimism"}
    assert (folder / "errata.md").read_text().count("\n## ") > 20


def test_nothing_there_yet_is_a_page_too(paper, tmp_path):
    text = write(paper, tmp_path)
    assert "0 of 82 runs are there" in text
    assert "The figure waits" in text


def test_a_damaged_file_costs_its_own_place_only(demo, tmp_path):
    record_all(demo, tmp_path, skip=())
    runs = tmp_path / "runs" / "mmnist"
    (runs / "k1=5" / "seed0" / "history.csv").unlink()
    (runs / "stlight_l" / "seed0" / "examples.npz").write_bytes(b"damaged")
    (tmp_path / "complexity" / "table2_openstl.json").write_text("{")
    (tmp_path / "complexity" / "section_b_complexity.json").write_text("[]")
    text = write(demo, tmp_path)
    assert re.search(r"mmnist/k1=5/seed0: damaged: .*history.csv cannot be read", text)
    assert "82 of 83 runs are there" in text
    assert "aiting for the counts" in text


def test_a_record_of_another_configuration_waits_and_says_so(demo, tmp_path):
    record_untrained(tmp_path, "mmnist/k1=5/seed0", demo.run("mmnist/k1=7/seed0"))
    assert "mmnist/k1=5/seed0: waiting: its record is of another configuration" in write(demo, tmp_path)


def test_a_workflow_without_errata_has_a_page(workflow, tmp_path):
    for name in ("errata.yaml", "quoted_sources.yaml"):
        (workflow / name).unlink()
    assert "Errata" in write(load_plan(workflow, "demo"), tmp_path, workflow)


def test_mixed_and_uncommitted_versions_are_flagged(demo, tmp_path):
    record_all(demo, tmp_path, skip=())
    assert "Mixed versions" not in write(demo, tmp_path)
    path = tmp_path / "runs" / "mmnist" / "stlight_l" / "seed0" / "record.json"
    record = read_record(path)
    write_record(path, record.model_copy(update={"provenance": {"source": "other", "code": "abc+changes"}}))
    text = write(demo, tmp_path)
    assert "come from 2 versions of the code" in text
    assert "1 of 83 records were made by code with uncommitted changes" in text


def test_the_audit_tells_what_each_choice_of_epoch_gives(demo, record_run, tmp_path):
    experiment = demo.experiment("table2_openstl")
    record_run(experiment, experiment.variants[0], mse=20.0)
    path = tmp_path / "runs" / experiment.run_names[0] / "record.json"
    record = read_record(path)
    picked = {"last": 20.0, "best_on_validation": 19.0, "best_on_test": 17.5}
    metrics = {selection: record.metrics["last"] | {"mse": mse, "ssim": mse / 100} for selection, mse in picked.items()}
    write_record(path, record.model_copy(update={"metrics": metrics}))
    write(demo, tmp_path)
    audit = pd.read_csv(tmp_path / "selection_audit.csv")
    row = audit[(audit["experiment"] == "table2_openstl") & (audit["metric"] == "mse")].iloc[0]
    assert [row[name] for name in picked] == list(picked.values())
    assert row["optimism"] == 1.5
    # For SSIM more is better.
    assert audit.loc[audit["metric"] == "ssim", "optimism"].iloc[0] == pytest.approx(-0.015)


def test_words_from_files_are_text(workflow, tmp_path):
    sentence = "<script>alert(1)</script> & more"
    claim = {"id": "mine", "sentence": sentence, "untested": "<b>no</b>"}
    write_experiment(workflow, title="<i>Mine</i>", claims=[claim])
    text = write(load_plan(workflow, "demo"), tmp_path, workflow)
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "<i>Mine" not in text


@pytest.fixture(scope="module")
def browser():
    if not CHROMIUM or not DRIVER:
        pytest.skip("no Chromium with its driver (Debian: apt install chromium chromium-driver)")
    options = Options()
    options.binary_location = CHROMIUM
    # As root in a container neither its sandbox nor a large /dev/shm is to be had.
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


def show(browser, page, width=1280, scheme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    browser.get(page.as_uri())


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_on_a_desk_and_on_a_phone(browser, folder, width, scheme):
    show(browser, folder / "report.html", width, scheme)
    browser.execute_script("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    background, ink = browser.execute_script(
        "const style = getComputedStyle(document.body); return [style.backgroundColor, style.color]"
    )
    brightness = [sum(map(int, re.findall(r"\d+", colour)[:3])) for colour in (background, ink)]
    assert (brightness[0] > brightness[1]) == (scheme == "light")
    assert abs(brightness[0] - brightness[1]) > 400
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert all(name.startswith("data:") for name in loaded)
    broken = "return [...document.images].filter(image => image.complete && !image.naturalWidth).length"
    assert browser.execute_script(broken) == 0
    assert browser.get_log("browser") == []


def test_a_number_is_followed_to_its_runs(browser, folder, demo):
    show(browser, folder / "report.html")
    table = browser.find_element(By.ID, "item-figure1_initialization")
    number = next(link for link in table.find_elements(By.CSS_SELECTOR, "table a") if "±" in link.text)
    number.click()
    row = browser.find_element(By.CSS_SELECTOR, "tr:target")
    seeds = row.find_elements(By.CSS_SELECTOR, "a")
    assert row.is_displayed()
    assert len(seeds) == demo.experiment("figure1_initialization").seeds
    value = seeds[3].text
    seeds[3].click()
    run = browser.find_element(By.CSS_SELECTOR, "details:target")
    assert run.find_element(By.TAG_NAME, "polyline").is_displayed()
    name = run.find_element(By.TAG_NAME, "summary").text.partition(":")[0]
    record = read_record(folder / "runs" / name / "record.json")
    assert name.endswith("seed3")
    assert f"{record.metrics['last']['mse']:.2f}" == value
    assert f"stlight train {name} --scale demo" in run.text
    assert record.config_hash in run.text
    assert browser.get_log("browser") == []


def test_a_verdict_says_why(browser, folder):
    show(browser, folder / "report.html")
    claim = browser.find_element(By.ID, "claim-kernel_optimum")
    assert "22.33" not in claim.text
    claim.find_element(By.TAG_NAME, "summary").click()
    assert "Printed alike: MSE 22.33" in claim.text
    assert "waiting: 1 of its 25 runs" in claim.text.lower()
