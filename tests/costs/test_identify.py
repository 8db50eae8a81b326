"""Closed forms equal the model's counts, and printed counts identify the paper's models."""

import shlex
from dataclasses import dataclass
from typing import get_args

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlight import cli
from stlight.config import Decoder, ModelConfig
from stlight.costs.identify import SEARCHED, Layout, count_layout, identify
from stlight.experiments.field_types import PrintedNumber
from stlight.model.complexity import complexity, count_flops_by_fvcore
from stlight.registry.dataset_specs import DATASETS, ClipShape
from tests.conftest import REPOSITORY, WORKFLOW
from tests.model.test_stlight import ListingSTLight

MMNIST = DATASETS["mmnist"].shape
PAGE = (REPOSITORY / "docs" / "identification.md").read_text()


@dataclass(frozen=True)
class Printed:
    """A row of the main paper's Table 3, how many layouts fit it, and the one left by `narrowed`."""

    dataset: str
    size: str
    parameters: str
    flops: str
    fits: int
    layout: Layout
    narrowed: dict[str, int]


MNIST_TEXT = {"depth": 16, "k1": 3, "k2": 7}
KTH_FAMILY = {"k1": 3, "k2": 5, "overlap": 0}
ROWS = [
    Printed("mmnist", "XS", "11.1M", "10.6G", 6, Layout(800, 16, 3, 7, 2, 0), MNIST_TEXT),
    Printed("mmnist", "S", "17.1M", "16.5G", 6, Layout(1000, 16, 3, 7, 2, 0), MNIST_TEXT),
    Printed("mmnist", "M", "24.3M", "23.7G", 6, Layout(1200, 16, 3, 7, 2, 0), MNIST_TEXT),
    Printed("mmnist", "L", "32.9M", "32.3G", 1, Layout(1400, 16, 3, 7, 2, 0), {}),
    Printed("taxibj", "S", "0.99M", "0.82G", 1, Layout(256, 12, 3, 7, 1, 0), {}),
    Printed("taxibj", "M", "1.65M", "1.37G", 1, Layout(256, 20, 3, 7, 1, 0), {}),
    Printed("taxibj", "L", "2.96M", "2.71G", 1, Layout(512, 10, 3, 7, 1, 0), {}),
    Printed("kth", "XS", "1.4M", "5.4G", 27, Layout(400, 8, 3, 5, 2, 0), KTH_FAMILY),
    Printed("kth", "S", "5.4M", "20.9G", 5, Layout(600, 14, 3, 5, 2, 0), KTH_FAMILY),
    Printed("kth", "M", "9.5M", "37.1G", 7, Layout(800, 14, 3, 5, 2, 0), KTH_FAMILY),
    Printed("kth", "L", "14.6M", "57.8G", 1, Layout(1000, 14, 3, 5, 2, 0), {}),
]
ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.dataset}_{row.size}")


def search(row, **narrowed):
    return identify(PrintedNumber(row.parameters), PrintedNumber(row.flops), DATASETS[row.dataset].shape, **narrowed)


def layouts(found):
    return [Layout(*fields) for fields in found[[*Layout._fields]].itertuples(index=False)]


@settings(max_examples=15, deadline=None)
@given(
    st.builds(
        Layout,
        hidden_dim=st.integers(1, 4).map(lambda n: 16 * n),
        depth=st.integers(1, 5),
        k1=st.sampled_from(SEARCHED["k1"]),
        k2=st.sampled_from(SEARCHED["k2"]),
        patch_size=st.sampled_from(SEARCHED["patch_size"]),
        overlap=st.integers(0, 2),
    ).filter(lambda layout: layout.overlap <= layout.patch_size),
    st.sampled_from(["mmnist", "taxibj", "kth"]),
    st.sampled_from(get_args(Decoder)),
)
def test_closed_forms_equal_the_counts_of_the_model(layout, dataset, decoder):
    shape = DATASETS[dataset].shape
    counted = complexity(ModelConfig(**layout._asdict(), decoder=decoder), shape)
    formula = count_layout(layout, shape, decoder)
    assert formula.parameters == counted["parameters"]["total"]
    assert formula.flops == counted["flops_fvcore"]


@pytest.mark.parametrize("layout", [Layout(16, 2, 3, 7, 2, 0), Layout(32, 3, 5, 11, 2, 2), Layout(16, 1, 9, 3, 4, 2)])
def test_fvcore_counts_the_listing_without_its_depthwise_convolutions(layout):
    shape = ClipShape(4, 6, 2, 16, 24)
    d, depth, k1, k2, p, overlap = layout
    by_operator = count_flops_by_fvcore(ListingSTLight(8, 12, d, depth, p, overlap, k1, k2), shape)
    assert sum(by_operator.values()) == count_layout(layout, shape).flops_without_depthwise


@ROW
def test_a_printed_row_fits_only_if_depthwise_convolutions_count_as_zero(row):
    found = search(row)
    assert len(found) == row.fits
    assert found["flops_without_depthwise_fit"].all()
    assert not found["flops_fit"].any()


@ROW
def test_what_the_text_states_leaves_one_configuration_of_each_row(row):
    left = [layout for layout in layouts(search(row, **row.narrowed)) if row.dataset != "kth" or layout.hidden_dim % 50 == 0]
    assert left == [row.layout]


@ROW
def test_convolutions_alone_explain_no_row_but_the_one_of_two_digits(row):
    shape, printed = DATASETS[row.dataset].shape, PrintedNumber(row.flops)
    rows = identify(PrintedNumber(row.parameters), None, shape)
    norms = 2 * rows["hidden_dim"] * (2 * rows["depth"] + 1) * (shape.height * shape.width // rows["patch_size"] ** 2)
    fit = (rows["flops"] - norms - printed.value).abs() <= printed.half_unit
    assert fit.any() == (row.flops == "5.4G")
    assert row.layout not in layouts(rows[fit])


def test_figure_6_of_the_main_paper_has_one_family_of_39_models():
    points = pd.read_csv(WORKFLOW / "published" / "main_figure6_width_depth.csv")
    printed = points["num_params"].str.rstrip("M").astype(float)
    assert len(points) == 39
    families = []
    for fields in pd.MultiIndex.from_product([SEARCHED[name] for name in ("k1", "k2", "patch_size", "overlap")]):
        layout = Layout(points["hidden_dim"].to_numpy(), points["depth"].to_numpy(), *fields)
        if (abs(count_layout(layout, MMNIST).parameters / 1e6 - printed) < 0.002).all():
            families.append(fields)
    assert families == [(5, 7, 2, 0), (7, 5, 2, 0)]


def test_figure_2_shows_eleven_sizes_at_the_mean_of_both_decoders():
    sizes = {800: (18, 20, 22, 26), 1000: (18, 20, 22, 24, 26), 1200: (20,), 1400: (18,)}
    layouts = [Layout(d, depth, 5, 7, 2, 2) for d, depths in sizes.items() for depth in depths]
    means = [sum(count_layout(layout, MMNIST, decoder).parameters for decoder in get_args(Decoder)) / 2e6 for layout in layouts]
    points = pd.read_csv(WORKFLOW / "published" / "figure2_dispersion.csv")
    assert sorted({*points["parameters_millions"]}) == pytest.approx(means, rel=0, abs=0.001)


def line_of(row):
    """Return a row of the table in docs/identification.md."""
    layout, counts = row.layout, count_layout(row.layout, DATASETS[row.dataset].shape)
    with_parameters = len(identify(PrintedNumber(row.parameters), None, DATASETS[row.dataset].shape))
    fits = f"{search(row)['flops_fit'].sum()} | {row.fits}"
    model = f"{layout.hidden_dim}, {layout.depth} | {layout.k1}, {layout.k2} | {layout.patch_size} | {layout.overlap}"
    flops = f"{counts.flops / 1e9:.4f}G | {counts.flops_without_depthwise / 1e9:.4f}G"
    return f"| {row.dataset} {row.size} | {row.parameters}, {row.flops} | {with_parameters} | {fits} | {model} | {flops} |"


@ROW
def test_the_page_shows_what_the_search_finds(row):
    assert line_of(row) in PAGE


@pytest.mark.parametrize("block", [text for text in PAGE.split("```")[1::2] if text.startswith("\n$ stlight identify")])
def test_the_page_shows_what_the_command_prints(block, capsys):
    command, _, output = block.removeprefix("\n$ ").partition("\n")
    assert cli.main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out == output
