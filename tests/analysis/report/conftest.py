"""The page of a demo whose runs were never trained."""

import shutil

import numpy as np
import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import WebDriverWait

from stlight.analysis.evidence import load_evidence
from stlight.analysis.report import write_report
from stlight.analysis.values import Values
from tests.analysis.conftest import write_counts, write_examples, write_timings
from tests.conftest import WORKFLOW
from tests.tiny_runs import record_untrained

CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
LEFT_OUT, DIVERGED = "mmnist/k1=11+k2=11+lr=0.001/seed0", "mmnist/init=kaiming_normal+lr=0.001/seed4"


def record_all(plan, folder, skip=(LEFT_OUT,)):
    """Record every run of a plan but the skipped ones, with counts and timings."""
    rng = np.random.default_rng(0)
    for name, config in plan.runs.items():
        mse, noise = 100 + rng.normal(), 1 + rng.uniform(-0.1, 0.1, 4)
        if name not in skip:
            status = "diverged" if name == DIVERGED else "done"
            losses = list(np.array([4.0, 3.0, 2.0, 1.5]) * noise)
            record_untrained(folder, name, config, status, losses, mse=mse, mae=300.0, ssim=0.5)
    for experiment in plan.experiments.values():
        for variant in experiment.variants:
            if experiment.seeds_of(variant) and variant.run_name(0) not in skip:
                write_examples(experiment, folder, variant, size=(16, 16))
        if experiment.counts:
            write_counts(experiment, folder, prediction_flops=10**9)
        if experiment.timed:
            write_timings(experiment, folder)


def write(plan, folder, workflow=WORKFLOW):
    """Write the report into a folder of results and return the page."""
    values = {name: Values(evidence) for name, evidence in load_evidence(plan, folder).items()}
    write_report(plan, values, workflow, folder, [])
    return (folder / "report.html").read_text()


@pytest.fixture(scope="session")
def reported(demo, tmp_path_factory):
    """A folder with the page of a demo of which one run waits and one has diverged."""
    folder = tmp_path_factory.mktemp("demo")
    record_all(demo, folder)
    write(demo, folder)
    return folder


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


def show(browser, page, width=1280, scheme="light", state=""):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
    # Another page first, because a change of the hash alone does not load the page again.
    browser.get("about:blank")
    browser.get(page.as_uri() + state)
    # On a busy machine the driver may return before the page is read to its end, where the scripts are.
    WebDriverWait(browser, 120).until(lambda _: browser.find_elements(By.CSS_SELECTOR, "main ~ script"))
