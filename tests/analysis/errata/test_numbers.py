"""The errata that code finds in the printed numbers."""

import pytest
import torch

from stlight.analysis.errata import different_results
from stlight.config import ModelConfig
from stlight.model import TrainingStep, build_model
from stlight.model.complexity import complexity
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.model_specs import BASELINES, OURS
from tests.analysis.errata.support import ids_of, printing, shows, with_numbers, with_value
from tests.experiments.test_published import quoted_tables

DIFFERENT = {
    "different_results_mmnist_epochs=2000_mse": {("Table 1", "14.72"), ("Table 2", "14.77"), ("Table 4", "14.77")},
    "different_results_mmnist_stlight_l_mse": {("Table 3", "22.33"), ("Table 4", "22.28"), ("Table 5", "22.33")},
}


@shows(*DIFFERENT)
def test_one_configuration_with_different_results(paper, found):
    cases = {
        f"different_results_{case.variant.dataset}_{case.variant.name}_{case.metric}": {
            (item, number.text) for item, number in case.printed
        }
        for case in different_results(paper)
    }
    assert cases == DIFFERENT
    assert {name for name in found if name.startswith("different_results")} == DIFFERENT.keys()
    assert all(text in str(quoted_tables()[item]) for cells in DIFFERENT.values() for item, text in cells)


def test_results_that_differ_by_rounding_are_none(paper):
    # Table 4 prints 0.969 and Table 2 prints 0.9686.
    assert "0.969" in {e.numbers["ssim"].text for e in paper.experiments["table4_learning_rate_epochs"].published}
    further = printing(paper, "table2_openstl", with_value(OURS, "ssim", "0.9684"))
    assert "different_results_mmnist_epochs=2000_ssim" in ids_of(further, "different_results")


@shows("flops_are_parameters_table2_openstl")
def test_flops_cannot_be_as_few_as_parameters(paper, found):
    (erratum,) = [e for e in found.values() if e.id.startswith("flops_are_parameters")]
    for overlap, number in ((1, "33.5G"), (2, "33.7G")):
        counts = complexity(ModelConfig(overlap=overlap), DATASETS["mmnist"].shape)
        assert f"{counts['benchmark_flops'] / 1e9:.1f}G" == number
        assert number in erratum.should
        assert counts["benchmark_flops"] > 1000 * counts["parameters"]["total"]
    right = printing(paper, "table2_openstl", with_value(OURS, "benchmark_flops", "33.5G"))
    assert not ids_of(right, "flops_are_parameters")


@shows("prednet_flops_of_colour_frames")
def test_prednets_flops_are_those_of_colour_frames():
    mmnist = DATASETS["mmnist"].shape
    counts = {c: complexity(ModelConfig(model="PredNet"), mmnist._replace(channels=c)) for c in (1, 3)}
    assert [f"{counts[c]['benchmark_flops'] / 1e9:.1f}G" for c in (1, 3)] == ["8.4G", "8.6G"]
    assert f"{counts[1]['prediction_flops'] / 1e9:.1f}G" == "16.8G"
    assert f"{counts[3]['parameters']['total'] / 1e6:.1f}M" == "12.5M"


@shows("parameters_that_nothing_uses", "parameters_not_rounded")
def test_some_parameters_of_table_2_are_used_by_nothing_and_three_are_not_rounded():
    used, counted = {}, {}
    for name in BASELINES:
        # Which weights get a gradient, a few frames show.
        shape = ClipShape(2, 2, 1, 16, 16)
        small = build_model(ModelConfig(model=name, baseline_width=1 / 16), shape).eval()
        clip = torch.rand(1, 4, 1, 16, 16)
        small.training_loss(clip[:, :2], clip[:, 2:], TrainingStep.at(9, 1, seed=0)).backward()
        idle = {key for key, parameter in small.named_parameters() if parameter.grad is None or not parameter.grad.any()}
        assert all("unused" in key or "of_memory" in key for key in idle)
        with torch.device("meta"):
            whole = dict(build_model(ModelConfig(model=name), DATASETS["mmnist"].shape).named_parameters())
        counted[name] = sum(p.numel() for p in whole.values()) / 1e6
        used[name] = sum(p.numel() for key, p in whole.items() if key not in idle) / 1e6
    spare = {name: round(counted[name] - used[name], 4) for name in used if counted[name] != used[name]}
    assert spare.keys() == {"ConvLSTM-S", "PredRNN++", "E3D-LSTM", "MIM", "MAU"}
    assert [round(spare[name], 1) for name in ("ConvLSTM-S", "PredRNN++", "E3D-LSTM", "MIM")] == [3.4, 3.3, 13.1, 0.1]
    assert round(1000 * spare["MAU"]) == 8
    assert [round(used[name], 1) for name in ("ConvLSTM-S", "PredRNN++", "E3D-LSTM")] == [11.7, 35.3, 38.2]
    rounded = {name: f"{number:.1f}M" for name, number in counted.items()}
    printed = {row[0]: row[1] for row in quoted_tables()["Table 2"][1:] if row[0] in counted}
    differing = {name: rounded[name] for name in counted if rounded[name] != printed[name]}
    assert differing == {"ConvLSTM-S": "15.1M", "E3D-LSTM": "51.3M", "SimVP+IncepU": "57.9M"}


@shows("rows_of_uncorrected_code")
def test_two_rows_of_table_2_are_of_code_that_the_benchmark_corrected(found):
    shape, clip = ClipShape(2, 2, 1, 16, 16), torch.rand(1, 4, 1, 16, 16)
    trained = {}
    for version in ("v0.3.0", "corrected"):
        model = build_model(ModelConfig(model="ConvLSTM-S", benchmark_version=version), shape)
        model.training_loss(clip[:, :2], clip[:, 2:], TrainingStep.at(9, 1, seed=0)).backward()
        trained[version] = sum(int((p.grad != 0).sum()) for p in model.parameters() if p.grad is not None)
        # The gates that should read the cell c read the shared memory m, which is still zero at the first layer.
        cell = build_model(ModelConfig(model="PredRNN++", baseline_width=1 / 16, benchmark_version=version), shape).cells[0]
        cell(torch.rand(1, 16, 4, 4), *torch.rand(2, 1, 8, 4, 4), torch.zeros(1, 8, 4, 4))[1].sum().backward()
        assert bool(cell.of_cell.weight.grad.any()) == (version == "corrected")
    assert {version: f"{number / 1e6:.2f}M" for version, number in trained.items()} == {
        "v0.3.0": "5.84M",
        "corrected": "11.68M",
    }
    assert "5.84M" in found["rows_of_uncorrected_code"].should
    rows = {row[0]: row for row in quoted_tables()["Table 2"]}
    assert "22.41" in rows["ConvLSTM-S"]
    assert "14.07" in rows["PredRNN++"]


QUOTED = {
    "quoted_table2_openstl_TAU_ssim": ("0.9721", "0.9661"),
    "quoted_table1_literature_VPTR-NAR_mse": ("107.2", "63.6"),
    "quoted_table1_literature_VPTR-NAR_ssim": ("0.859", "0.879"),
    "quoted_table1_literature_VPTR-FAR_mse": ("63.6", "107.2"),
    "quoted_table1_literature_VPTR-FAR_ssim": ("0.879", "0.859"),
    "quoted_table1_literature_MAU_mse": ("29.5", "27.6"),
    "quoted_table1_literature_PredRNNv2_mse": ("48.8", "48.4"),
}


@shows(*QUOTED)
def test_exactly_these_quoted_numbers_are_not_their_sources(paper, found):
    assert {name for name in found if name.startswith("quoted_")} == QUOTED.keys()
    for name, (printed, source) in QUOTED.items():
        assert printed in found[name].says
        assert found[name].should.startswith(f"{source} in ")
        table, _, model = found[name].place.partition(", ")
        assert any(row[0].split(" [")[0] == model and printed in row for row in quoted_tables()[table])
        # Only the benchmark's page is the very source that is cited.
        assert ("The cited one was not at hand" in found[name].should) == (table == "Table 1")
    assert "is behind TAU as printed, and ahead of it by the source" in found["quoted_table2_openstl_TAU_ssim"].should
    right = printing(paper, "table2_openstl", with_value("TAU", "ssim", "0.9661"))
    assert not ids_of(right, "quoted_table2")


def test_every_quoted_cell_of_table_2_is_compared(paper):
    def wrong(entries):
        return [
            with_numbers(e, **{m: f"9{number}" for m, number in e.numbers.items()}) if e.model != OURS else e for e in entries
        ]

    cells = {
        f"quoted_table2_openstl_{row[0]}_{metric}"
        for row in quoted_tables()["Table 2"][1:-1]
        for metric in ("num_params", "benchmark_flops", "mse", "mae", "ssim")
    }
    assert len(cells) == 55
    assert set(ids_of(printing(paper, "table2_openstl", wrong), "quoted_table2")) == cells


def row(table, model):
    return [float(cell.rstrip("MG")) for cell in next(r for r in quoted_tables()[table] if r[0] == model)[1:]]


def against(metric, *, lower):
    """The models of Table 2 that are ahead of STLight-L in a column."""
    column = quoted_tables()["Table 2"][0].index(metric) - 1
    ours = row("Table 2", "STLight-L (Ours)")[column]
    models = [r[0] for r in quoted_tables()["Table 2"][1:-1]]
    return {m for m in models if (row("Table 2", m)[column] < ours) == lower and row("Table 2", m)[column] != ours}


SENTENCES = {
    f"sentence_{name}"
    for name in (
        *("best_in_table2_mse", "best_in_table2_ssim", "fewest_parameters", "more_accurate_than_predrnn_pp"),
        *("more_accurate_than_mim", "more_accurate_than_tau", "both_kernels_optimal"),
    )
}


@shows(*SENTENCES)
def test_sentences_that_the_supplement_s_own_numbers_contradict(found):
    assert {name for name in found if name.startswith("sentence_")} == SENTENCES
    # By the tables as the supplement's text has them, in plain words.
    assert against("MSE", lower=True) == {"PredRNN++", "MIM"}
    assert against("MAE", lower=True) == set()
    assert against("SSIM", lower=False) == {"PredRNN++", "TAU"}
    assert against("# Params", lower=True) == {"ConvLSTM-S", "PredNet", "PhyDNet", "PredRNN", "MAU", "PredRNN.V2"}
    kernels = row("Table 3", "3")
    assert kernels[1] - min(kernels) == pytest.approx(22.48 - 22.33)
    assert "PredRNN++" in found["sentence_best_in_table2_mse"].should
    assert "14.73 (MIM)" in found["sentence_more_accurate_than_mim"].should


def test_a_sentence_is_an_erratum_only_while_numbers_contradict_it(paper):
    right = printing(paper, "table2_openstl", with_value("MIM", "mse", "14.78"))
    assert "sentence_more_accurate_than_mim" not in ids_of(right, "sentence_")
    wrong = printing(paper, "table2_openstl", with_value("TAU", "mae", "47.16"))
    assert set(ids_of(wrong, "sentence_")) - SENTENCES == {"sentence_best_in_table2_mae"}
