"""The page's views in a browser: sentences and runs filtered and sorted, cells compared; and the page without JavaScript."""

import pandas as pd
import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.select import Select

from stlight.analysis.evidence import load_evidence
from stlight.analysis.report.pairs import difference
from stlight.analysis.values import Values
from tests.analysis.report.conftest import DIVERGED, LEFT_OUT, show

pytestmark = pytest.mark.system


def shown(browser, css):
    return [element for element in browser.find_elements(By.CSS_SELECTOR, css) if element.is_displayed()]


def choose(browser, view, **values):
    """Choose an option of each named control of a view by its value."""
    for name, value in values.items():
        Select(browser.find_element(By.CSS_SELECTOR, f"form[data-view={view}] [name={name}]")).select_by_value(value)


def address(browser):
    """Return the state that the address holds, by control."""
    pairs = browser.execute_script("return [...new URLSearchParams(location.hash.split('?')[1])]")
    return dict(pairs)


def values_of(demo, reported, name):
    return Values(load_evidence(demo, reported, [name])[name])


def test_sentences_are_filtered_and_sorted_and_the_address_holds_it(browser, reported):
    page = reported / "report.html"
    show(browser, page)
    claims = pd.read_csv(reported / "claims.csv").pivot(index="id", columns="source", values="verdict")
    assert len(shown(browser, "#ledger .claim")) == len(claims)
    choose(browser, "claims", runs="undecided", printed="reproduced")
    wanted = claims.index[(claims["measured"] == "undecided") & (claims["published"] == "reproduced")]
    assert {e.get_attribute("id")[6:] for e in shown(browser, "#ledger .claim")} == set(wanted)
    browser.find_element(By.CSS_SELECTOR, "form[data-view=claims] [name=words]").send_keys("Better")
    texts = {e.get_attribute("id")[6:]: e.get_attribute("id") + e.text.lower() for e in shown(browser, "#ledger .claim")}
    assert 1 < len(texts) < len(wanted)
    assert all("better" in text for text in texts.values())
    choose(browser, "claims", order="effect")
    effects = [float(e.get_attribute("data-effect") or "inf") for e in shown(browser, "#ledger .claim")]
    assert effects == sorted(effects)
    assert len(set(effects)) > 1
    assert shown(browser, "#ledger h3[data-section]") == []
    # The address opens the same view.
    order = [e.get_attribute("id") for e in shown(browser, "#ledger .claim")]
    state = browser.execute_script("return location.hash")
    assert address(browser) == {
        "claims.runs": "undecided",
        "claims.printed": "reproduced",
        "claims.words": "Better",
        "claims.order": "effect",
    }
    show(browser, page, state=state)
    assert [e.get_attribute("id") for e in shown(browser, "#ledger .claim")] == order
    assert browser.find_element(By.CSS_SELECTOR, "form[data-view=claims] output").text == f"{len(order)} of {len(claims)}"
    # A link to a sentence that is filtered away shows it.
    hidden = next(name for name in claims.index if f"claim-{name}" not in order)
    browser.execute_script("location.hash = arguments[0]", f"claim-{hidden}")
    assert browser.find_element(By.ID, f"claim-{hidden}").is_displayed()
    choose(browser, "claims", section="C")
    browser.find_element(By.CSS_SELECTOR, "form[data-view=claims] button").click()
    assert len(shown(browser, "#ledger .claim")) == len(claims)
    assert browser.get_log("browser") == []


def test_runs_are_sorted_by_key_and_filtered_by_what_they_learnt(browser, reported, demo):
    show(browser, reported / "report.html")
    head = browser.find_element(By.CSS_SELECTOR, "th[data-key=mse]")
    button = head.find_element(By.TAG_NAME, "button")
    for direction, falling in (("ascending", False), ("descending", True)):
        button.send_keys(Keys.ENTER)
        assert head.get_attribute("aria-sort") == direction
        values = [float(row.get_attribute("data-mse")) for row in browser.find_elements(By.CSS_SELECTOR, "#run-rows tr")]
        assert values == sorted(values, reverse=falling)
        assert values[0] != values[-1]
    choose(browser, "run", learnt="diverged")
    assert [row.get_attribute("data-name") for row in shown(browser, "#run-rows tr")] == [DIVERGED]
    choose(browser, "run", learnt="", items="Table 3")
    names = {row.get_attribute("data-name") for row in shown(browser, "#run-rows tr")}
    assert names == set(demo.experiment("table3_kernel_sizes").run_names) - {LEFT_OUT}
    assert address(browser) == {"run.items": "Table 3", "run.order": "-mse"}


def test_two_cells_are_compared_by_the_numbers_of_python(browser, reported, demo):
    show(browser, reported / "report.html")
    one, _, other = demo.experiment("figure1_initialization").variants
    choose(browser, "pair", of="figure1_initialization/mmnist")
    choose(browser, "pair", metric="mse", first=one.name, second=other.name)
    found = difference(values_of(demo, reported, "figure1_initialization"), one, other, "mse")
    estimate, low, high = (found[name] for name in ("estimate", "low", "high"))
    forward = f"{estimate:.2f} ({low:.2f} to {high:.2f}), 95 % interval; n = 5, paired by seed".replace("-", "−")
    assert low < estimate < high
    assert browser.find_elements(By.CSS_SELECTOR, "#pair td")[-1].text == forward
    assert len(shown(browser, "#pair polyline")) == len(shown(browser, "#pair polygon")) == 2
    # The address opens the same pair.
    state = browser.execute_script("return location.hash")
    show(browser, reported / "report.html", state=state)
    assert browser.find_elements(By.CSS_SELECTOR, "#pair td")[-1].text == forward
    assert address(browser)["pair.first"] == one.name
    # The other way round: the same numbers with the other sign.
    choose(browser, "pair", first=other.name)
    choose(browser, "pair", second=one.name)
    backward = f"{-estimate:.2f} ({-high:.2f} to {-low:.2f}), 95 % interval; n = 5, paired by seed".replace("-", "−")
    assert browser.find_elements(By.CSS_SELECTOR, "#pair td")[-1].text == backward
    assert browser.get_log("browser") == []


def test_any_pair_of_a_large_grid_is_that_of_python(browser, reported, demo):
    show(browser, reported / "report.html")
    experiment = demo.experiment("table3_kernel_sizes")
    values = values_of(demo, reported, experiment.name)
    choose(browser, "pair", of=f"{experiment.name}/mmnist")
    assert "k1 = 11, k2 = 11" not in browser.find_element(By.CSS_SELECTOR, "form[data-view=pair]").text  # It has no run.
    for first, second in ((3, 17), (22, 4), (0, 23)):
        one, other = experiment.variants[first], experiment.variants[second]
        choose(browser, "pair", first=one.name, second=other.name)
        found = difference(values, one, other, "mse")["estimate"]
        text = browser.find_elements(By.CSS_SELECTOR, "#pair td")[-1].text
        assert text == f"{found:.2f}, no interval; n = 1, independent seeds".replace("-", "−")
    choose(browser, "pair", second=experiment.variants[0].name)
    assert "no difference" in browser.find_element(By.ID, "pair").text


def test_all_can_be_read_without_javascript(browser, reported):
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        show(browser, reported / "report.html", width=390)
        claims = pd.read_csv(reported / "claims.csv")
        assert len(browser.find_elements(By.CSS_SELECTOR, "#ledger .claim:not([hidden])")) == len(claims) / 2
        assert browser.find_element(By.CSS_SELECTOR, ".forest tbody svg").is_displayed()
        assert browser.find_element(By.CSS_SELECTOR, "#run-rows tr").is_displayed()
        assert shown(browser, "form, button, #pair") == []
        assert "Choosing needs JavaScript" in browser.find_element(By.ID, "compare").text
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
