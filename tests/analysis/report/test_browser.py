"""The page in a browser: on a desk and on a phone, by day and by night."""

import re

import pytest
from selenium.webdriver.common.by import By

from stlight.runs.record import read_record
from tests.analysis.report.conftest import show

pytestmark = pytest.mark.system


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_on_a_desk_and_on_a_phone(browser, reported, width, scheme):
    show(browser, reported / "report.html", width, scheme)
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


def test_a_number_is_followed_to_its_runs(browser, reported, demo):
    show(browser, reported / "report.html")
    table = browser.find_element(By.ID, "item-figure1_initialization")
    number = next(link for link in table.find_elements(By.CSS_SELECTOR, "table a") if "±" in link.text)
    number.click()
    row = browser.find_element(By.CSS_SELECTOR, "tr:target")
    seeds = row.find_elements(By.CSS_SELECTOR, "a")
    assert row.is_displayed()
    experiment = demo.experiment("figure1_initialization")
    assert len(seeds) == experiment.seeds_of(experiment.variants[0])
    value = seeds[3].text
    seeds[3].click()
    run = browser.find_element(By.CSS_SELECTOR, "details:target")
    assert run.find_element(By.TAG_NAME, "polyline").is_displayed()
    name = run.find_element(By.TAG_NAME, "summary").text.partition(":")[0]
    record = read_record(reported / "runs" / name / "record.json")
    assert name.endswith("seed3")
    assert f"{record.metrics['last']['mse']:.2f}" == value
    assert f"stlight train {name} --scale demo" in run.text
    assert record.config_hash in run.text
    assert browser.get_log("browser") == []


def test_a_verdict_says_why(browser, reported):
    show(browser, reported / "report.html")
    claim = browser.find_element(By.ID, "claim-kernel_optimum")
    assert "22.33" not in claim.text
    claim.find_element(By.TAG_NAME, "summary").click()
    assert "Published alike: MSE 22.33" in claim.text
    assert "waiting: 1 of its 25 runs" in claim.text.lower()
