"""The errata of the text and of single numbers, shown in the supplement's text, by counting or by running code."""

import re

import pytest
import yaml
from torch import nn

from stlight.config import DEFAULTS
from stlight.experiments.grid_cells import cells_of
from stlight.registry.dataset_specs import DATASETS
from tests.analysis.errata.support import TEXT, shows, with_text
from tests.conftest import WORKFLOW


@with_text
@pytest.mark.parametrize("entry", yaml.safe_load((WORKFLOW / "errata.yaml").read_text()), ids=lambda entry: entry["id"])
def test_every_quote_is_in_the_supplement_s_text(entry):
    assert " ".join(entry.get("quote", "").split()) in TEXT


@with_text
@shows("figure_3_for_table_3")
def test_figure_3_shows_no_kernel_sizes():
    assert "Figure 3. Full STLight implementation" in TEXT
    assert "Table 3. STLight MSE comparison for different values of k_{T_1} and k_{T_2}" in TEXT
    assert "Table 3" not in TEXT[TEXT.index("C. Optimal k") : TEXT.index("D. Weight initialization")]


@with_text
@shows("table_without_number")
def test_no_sentence_names_table_5():
    assert TEXT.count("Tables 4 and ??") == 2
    assert re.findall(r"Tables? 5\W{1,2}\w+", TEXT) == ["Table 5. STLight"]
    assert TEXT.count("??") == 2


@shows("section_a_has_no_ablation")
def test_section_a_s_tables_vary_no_training_setting(paper):
    for experiment in paper.experiments.values():
        configurations = [v.paper.model_dump_json() for v in experiment.variants]
        datasets = {v.dataset for v in experiment.variants}
        if experiment.section == "A":
            models = {(v.dataset, v.paper.model.model) for v in experiment.variants}
            assert len(configurations) == len(models), experiment.item
        elif experiment.section == "E":
            assert len(configurations) > len(datasets), experiment.item
    if TEXT:
        section = TEXT[TEXT.index("A. Additional Evaluation Results") : TEXT.index("B. STLight method complexity")]
        assert "learning rate" not in section.lower()
        assert "ablation" not in section.lower()


@shows("group_size")
def test_a_depthwise_convolution_has_groups_of_one_channel():
    d, k = 12, 7
    depthwise = nn.Conv2d(d, d, k, groups=d, bias=False)
    of_size_d = nn.Conv2d(d, d, k, groups=d // d, bias=False)
    assert depthwise.weight.numel() == d * k**2
    assert of_size_d.weight.numel() == d**2 * k**2


@shows("few_frames")
def test_frames_times_channels_reach_ten_on_two_of_three_data_sets():
    datasets = {name: DATASETS[name].shape for name in ("mmnist", "taxibj", "kth")}
    products = {n: (s.context_frames * s.channels, s.horizon_frames * s.channels) for n, s in datasets.items()}
    assert products == {"mmnist": (10, 10), "taxibj": (8, 8), "kth": (10, 20)}
    assert [name for name, both in products.items() if max(both) < 10] == ["taxibj"]
    # The conclusion from it stands.
    assert 50 * max(max(both) for both in products.values()) < DEFAULTS["hidden_dim"]


@shows("two_names_for_one_model")
def test_tables_4_and_5_share_cells_that_agree_but_for_one(paper):
    def printed(name):
        return {
            cell.variant.paper.hash: cell.printed["mse"].value for cell in cells_of(paper.experiments[name]) if cell.variant
        }

    table_4, table_5 = printed("table4_learning_rate_epochs"), printed("table5_final_div_factor")
    shared = table_4.keys() & table_5.keys()
    assert len(shared) == 4
    assert sorted(table_4[cell] - table_5[cell] for cell in shared) == pytest.approx([-0.05, 0, 0, 0])
