"""The findings in README and docs are those of the kept results, in tables and in sentences."""

import importlib.util
import re
from pathlib import Path

import pandas as pd
import pytest

from stlight.experiments import load_plan
from tests.conftest import REPOSITORY, WORKFLOW

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
        links = set(re.findall(r"\(([^()]*report\.html#[^()]*)\)", findings.written(page)))
        assert links
        for link in links:
            path, anchor = link.split("#")
            assert f'id="{anchor}"' in (folder / path).read_text(), link


WORDS = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


class Measured:
    """Numbers of the kept tables of a scale."""

    def __init__(self, scale):
        self.folder = REPOSITORY / "results" / "reference" / scale
        self.claims = pd.read_csv(self.folder / "claims.csv").query("source == 'measured'").set_index("id")

    def cells(self, item, metric="mse", **place):
        table = pd.read_csv(self.folder / "tables" / f"{item}.csv")
        for axis, value in {"metric": metric, **place}.items():
            table = table[table[axis] == value]
        assert len(table)
        return table

    def seeds(self, item, **place):
        (values,) = self.cells(item, **place)["values"]
        return [float(value) for value in values.split(";")]

    def mean(self, item, metric, **place):
        (value,) = self.cells(item, metric, **place)["measured"]
        return value


@pytest.fixture(scope="module")
def facts():
    """Sentences by page, with the numbers that the kept results give them now."""
    small, demo = Measured("small"), Measured("demo")
    base = load_plan(WORKFLOW, "small", Path("nowhere")).run("mmnist/stlight_l/seed0")
    model, side = base.model, 64 // base.data.downsampling
    patches = side // model.patch_size
    start = {
        scale: {
            name: kept.mean("figure1_initialization", "steps_to_learn", initialization=name)
            for name in ("hybrid", "kaiming_normal", "kaiming_uniform")
        }
        for scale, kept in {"small": small, "demo": demo}.items()
    }
    seeds = {name: small.seeds("figure1_initialization", initialization=name) for name in start["small"]}
    (drawn,) = {len(values) for values in seeds.values()}
    largest_rate = small.cells("table5_final_div_factor", max_lr=0.01)
    rate = largest_rate["values"].str.split(";", expand=True).astype(float)
    at_default = small.mean("table4_learning_rate_epochs", "mse", max_lr=0.001, num_epochs=200)
    diverged = rate > 1e4
    kernels = small.cells("table3_kernel_sizes")
    worse = kernels[kernels["standing"] == "worse"]
    paper = load_plan(WORKFLOW, "paper", Path("nowhere")).run("mmnist/stlight_l/seed0").model
    decoder = small.cells("figure2_decoder_order")
    unlearnt = decoder[decoder["learnt"].eq(False)]
    pairs = unlearnt.groupby(["hidden_dim", "depth"]).size().tolist()
    tau = re.search(
        r"TAU has ([\d.]+) times .* here, ([\d.]+) times in the paper", small.claims["why"]["more_accurate_than_tau_mse"]
    )
    largest = sorted(demo.seeds("table4_learning_rate_epochs", max_lr=0.01, num_epochs=200))
    # What the sentences say beside their numbers.
    assert rate.where(~diverged).max(axis=None) < at_default
    # One seed finishes, at each factor.
    assert sorted(diverged.sum()) == [0, *[len(rate)] * (rate.shape[1] - 1)]
    assert start["small"]["kaiming_uniform"] < start["small"]["hybrid"]
    assert min(seeds["kaiming_normal"]) > max(seeds["hybrid"])
    assert pd.Series(seeds["kaiming_normal"]).std() > pd.Series(seeds["hybrid"]).std()
    assert small.claims["verdict"]["hybrid_better_than_uniform"] == "undecided"
    accuracy = small.claims[(small.claims["experiment"] == "table3_kernel_sizes") & (small.claims["protocol"] == "reduced")]
    assert set(accuracy["verdict"]) <= {"undecided", "untested"}
    papers = worse[(worse["k1"] == paper.k1) & (worse["k2"] == paper.k2)]
    assert papers["n"].item() == kernels["n"].max()
    assert sorted(pairs) == [1, 2]
    return {
        "docs/findings.md": [
            f"hidden_dim {model.hidden_dim}, depth {model.depth}, and {base.num_steps:,} steps of"
            f" {base.training.batch_size} clips",
            f"A dilated kernel of {model.k2} spans {(model.k2 - 1) * model.dilation + 1} positions, and a frame of"
            f" {side} × {side} pixels in patches of {model.patch_size} has {patches},",
            f"Kaiming-Normal needs {multiple(start['small']['kaiming_normal'] / start['small']['hybrid'])} as many steps",
            f"so near to it that {WORDS[drawn]} seeds do not tell which is better",
            f"in {diverged.to_numpy().sum()} of {rate.size} runs over the {WORDS[len(rate)]} factors",
            f"All {len(kernels)} cells of Table 3, of at least {WORDS[kernels['n'].min()]} seeds, end between"
            f" {kernels['measured'].min():.1f} and {kernels['measured'].max():.1f} MSE, and {len(kernels) - len(worse)} cannot"
            f" be told from the best. {WORDS[len(worse)].capitalize()} are worse, one of them the paper's own"
            f" {paper.k1} × {paper.k2}, which has most seeds",
            f"{WORDS[len(unlearnt)].capitalize()} of its {len(decoder)} cells do not learn",
            f"TAU has {multiple(float(tau[1]))} its parameters here, and {tau[2]} times there",
            f"{WORDS[model.depth].capitalize()} blocks and {patches} × {patches} positions",
        ],
        "docs/scales.md": [
            f"At the largest learning rate, {WORDS[sum(value > 1e4 for value in largest)]} of {WORDS[len(largest)]} runs"
            f" diverges and one ends at {largest[-2]:.0f} instead of {largest[0]:.0f}",
            f"at about {start['demo']['hybrid']:.0f} of",
            f"passes it at {start['demo']['kaiming_normal']:.0f} steps",
        ],
        "README.md": [f"{WORDS[drawn]} seeds each"],
    }


def multiple(ratio):
    return {2: "twice"}.get(round(ratio), f"{WORDS[round(ratio)]} times")


def flat(text):
    return " ".join(text.split())


@pytest.mark.parametrize("page", ["docs/findings.md", "docs/scales.md", "README.md"])
def test_sentences_hold_the_numbers_of_the_kept_results(page, facts):
    text = flat((REPOSITORY / page).read_text())
    for sentence in facts[page]:
        assert sentence in text, f"{page} must say: {sentence}"


def test_every_number_in_the_findings_comes_from_results(facts):
    """Those that do not are settings, and those of the paper."""
    text = writing._BLOCK.sub("", (REPOSITORY / "docs" / "findings.md").read_text())
    text = flat(re.sub(r"```.*?```|\]\([^)]*\)", "", text, flags=re.DOTALL))
    for sentence in facts["docs/findings.md"]:
        text = text.replace(sentence, "")
    left = set(re.findall(r"\d[\d,.]*(?<![,.])", text))
    rate, gain, error = "0.003", "0.5", "5"
    tables_and_figures = {"1", "2", "3"}
    paper_positions = "32"
    assert left <= {rate, gain, error, paper_positions, "0"} | tables_and_figures


def test_numbers_of_the_supplement_are_those_that_it_publishes():
    """`own-numbers.md` states printed numbers, their differences and the noise, all of which the claims hold."""
    claims = pd.read_csv(REPOSITORY / "results" / "reference" / "small" / "claims.csv").query("source == 'published'")
    files = [*(WORKFLOW / "experiments").glob("*.yaml"), WORKFLOW / "quoted_sources.yaml", WORKFLOW / "errata.yaml"]
    printed = " ".join([*claims["why"], *(path.read_text() for path in files)])
    known = set(re.findall(r"\d+\.\d+", printed)) | {f"{abs(effect):.2f}" for effect in claims["effect"].dropna()}
    rates = (
        Measured("small").cells("table5_final_div_factor").pivot(index="final_div_factor", columns="max_lr", values="published")
    )
    known |= {f"{gain:.2f}" for gain in rates[0.001] - rates[0.003]}
    # The largest number of four digits that is printed as 0.911.
    known |= {"0.9114"}
    stated = set(re.findall(r"\d+\.\d+", (REPOSITORY / "docs" / "own-numbers.md").read_text()))
    assert len(stated) > 10
    assert stated <= known
