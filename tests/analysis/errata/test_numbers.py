"""The errata that code finds in the printed numbers."""

import numpy as np
import pandas as pd
import pytest
import torch

from stlight.analysis.errata import as_markdown, different_results
from stlight.config import ModelConfig
from stlight.costs.identify import identify
from stlight.model import TrainingStep, build_model
from stlight.model.complexity import complexity
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.metric_specs import METRICS
from stlight.registry.model_specs import BASELINES, OURS
from tests.analysis.errata.support import found_in, ids_of, printing, shows, with_value
from tests.conftest import WORKFLOW
from tests.experiments.test_published import quoted_tables
from tests.model.small import IN_TABLE_2

DIFFERENT = {
    "different_results_mmnist_lr=0.001_mse": {("Table 3", "22.33"), ("Table 4", "22.28"), ("Table 5", "22.33")},
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
    assert "different_results_mmnist_lr=0.001+epochs=2000_ssim" in ids_of(further, "different_results")


@shows("flops_are_parameters_table2_openstl")
def test_flops_cannot_be_as_few_as_parameters(paper, found):
    (erratum,) = [e for e in found.values() if e.id.startswith("flops_are_parameters")]
    counts = complexity(ModelConfig(overlap=0), DATASETS["mmnist"].shape)
    assert f"{counts['benchmark_flops'] / 1e9:.1f}G" == "33.5G"
    assert "33.5G" in erratum.should
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
    for name in IN_TABLE_2:
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
    "quoted_table2_openstl_TAU": [("0.9721", "0.9661")],
    "quoted_table1_literature_VPTR-NAR_VPTR-FAR": [("107.2", "63.6"), ("0.859", "0.879")],
    "quoted_table1_literature_MAU_PredRNNv2": [("29.5", "27.6"), ("48.8", "48.4")],
}


@shows(*QUOTED)
def test_exactly_these_quoted_numbers_are_not_their_sources(paper, found):
    assert {name for name in found if name.startswith("quoted_")} == QUOTED.keys()
    for name, numbers in QUOTED.items():
        for printed, source in numbers:
            assert printed in found[name].says
            assert source in found[name].should
            table = found[name].place.partition(", ")[0]
            assert any(printed in row for row in quoted_tables()[table])
        # Only the benchmark's page is the very source that is cited.
        assert ("The cited publication was not at hand" in found[name].kinder) == (table == "Table 1")
    assert [name for name in QUOTED if "are exchanged" in found[name].should] == ["quoted_table1_literature_VPTR-NAR_VPTR-FAR"]
    assert "is behind TAU as printed, and ahead of it by the source" in found["quoted_table2_openstl_TAU"].should
    # It turns a comparison that the supplement draws.
    assert [found[name].weight for name in QUOTED] == ["results", "numbers", "numbers"]
    right = printing(paper, "table2_openstl", with_value("TAU", "ssim", "0.9661"))
    assert not ids_of(right, "quoted_table2")


def test_every_quoted_cell_of_table_2_is_compared(paper):
    for row in quoted_tables()["Table 2"][1:-1]:
        for metric in ("num_params", "benchmark_flops", "mse", "mae", "ssim"):
            wrong = printing(paper, "table2_openstl", with_value(row[0], metric, "91"))
            (erratum,) = [e for e in found_in(wrong) if e.id.startswith("quoted_table2")]
            assert f"{row[0]} {METRICS[metric].label} 91" in erratum.says


def test_an_erratum_s_kinder_reading_stands_first(found):
    entry = found["table_1_outperforms"]
    text = as_markdown([entry])
    assert 0 < text.index(entry.kinder) < text.index(entry.says)


def column(table, name):
    header, *rows = quoted_tables()[table]
    return {row[0].removesuffix(" (Ours)"): row[header.index(name)] for row in rows}


@shows("table_1_outperforms")
def test_table_2_prints_a_lower_mse_than_table_1_has_for_stlight():
    longer = {model: float(mse) for model, mse in column("Table 2", "MSE").items()}
    assert [model for model, mse in longer.items() if mse < 14.72] == ["PredRNN++"]


@shows("flops_without_depthwise_convolutions")
def test_the_main_paper_s_flops_are_those_without_the_depthwise_convolutions(paper, found):
    entries = paper.experiment("main_table3_sizes").published
    fitting = [
        identify(e.numbers["num_params"], e.numbers["benchmark_flops"], DATASETS[e.coordinates["dataset"]].shape)
        for e in entries
    ]
    assert len(fitting) == 11
    assert all(layouts["flops_without_depthwise_fit"].any() for layouts in fitting)
    assert not any(layouts["flops_fit"].any() for layouts in fitting)
    counted = complexity(ModelConfig(), DATASETS["mmnist"].shape)["benchmark_flops"]
    assert f"{counted / 1e9:.1f}G" in found["flops_without_depthwise_convolutions"].should


@shows("superior_computational_metrics")
def test_five_baselines_compute_less_and_six_have_fewer_parameters():
    flops = {model: float(text.rstrip("GM")) for model, text in column("Table 2", "FLOPs").items() if model in BASELINES}
    ours = complexity(ModelConfig(overlap=0), DATASETS["mmnist"].shape)
    assert f"{ours['benchmark_flops'] / 1e9:.1f}G" == "33.5G"
    less = {model for model, number in flops.items() if number * 1e9 < ours["benchmark_flops"]}
    assert less == {"TAU", "SimVP+IncepU", "MAU", "PhyDNet", "PredNet"}
    assert max(flops[model] for model in less) < 20
    params = {model: float(text.rstrip("M")) for model, text in column("Table 2", "# Params").items()}
    assert sum(number < params[OURS] for number in params.values()) == 6


def table_4():
    """Rows of Table 4 by learning rate and epochs: MSE, MAE and SSIM as printed."""
    return {(row[0], row[2]): row[3:] for row in quoted_tables()["Table 4"][1:] if row[1]}


@shows("ssim_of_the_largest_learning_rate")
def test_one_ssim_of_table_4_is_far_from_the_line_of_the_others():
    rows = table_4()
    outlier = rows.pop(("0.01", "200"))
    assert outlier[::2] == ["38.47", "0.939"]
    mse, ssim = np.array([[float(mse), float(ssim)] for mse, _, ssim in rows.values()]).T
    line = np.polyfit(mse, ssim, 1)
    assert np.abs(np.polyval(line, mse) - ssim).max() < 0.0015
    assert np.polyval(line, 38.47) == pytest.approx(0.909, abs=0.0005)
    assert ssim[mse == 27.42] < 0.939


@shows("two_results_of_the_best_run", "one_result_with_and_without_the_skip")
def test_the_main_paper_prints_other_numbers_for_the_same_configurations(paper, found):
    def printed(experiment, **place):
        (entry,) = [e for e in paper.experiment(experiment).published if place.items() <= e.coordinates.items()]
        return {metric: number.text for metric, number in entry.numbers.items()}

    main = printed("main_table3_sizes", dataset="mmnist", model="STLight-L")
    assert table_4()["0.003", "200"] == ["21.80", "64.90", "0.951"]
    assert (main["mse"], main["mae"], main["ssim"]) == ("21.80", "66.92", "0.9515")
    assert all(main[metric] in found["two_results_of_the_best_run"].should for metric in ("mae", "ssim"))
    assert printed("main_table4_skip", hidden_dim=1400, skip=False)["mse"] == table_4()["0.001", "200"][0] == "22.28"
    assert printed("main_table4_skip", hidden_dim=1400, skip=True, skip_parts=3)["mse"] == "21.80"


@shows("figure_1_above_the_tables")
def test_figure_1_s_hybrid_runs_end_above_the_results_printed_at_the_same_learning_rates():
    curves = pd.read_csv(WORKFLOW / "published" / "figure1_curves.csv")
    last = curves[(curves["epoch"] == 199) & (curves["initialization"] == "hybrid")].set_index("bound")["mse"]
    assert (last["min"], last["max"]) == (23.81, 24.53)
    printed = [row["0.001"] for row in by_factor().values()] + [table_4()["0.003", "200"][0], table_4()["0.001", "200"][0]]
    assert max(map(float, printed)) == 22.49 < last["min"]
    assert min(map(float, printed)) == 21.80


def by_factor():
    """Table 5 as printed: rows by final division factor, cells by learning rate."""
    header, *rows = quoted_tables()["Table 5"]
    return {row[0]: dict(zip(header[1:], row[1:], strict=True)) for row in rows}


@shows("table_5_and_the_schedule")
def test_the_final_division_factor_moves_the_learning_rate_by_less_than_4e_5_of_its_peak():
    def curve(factor, steps=2000):
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, steps, final_div_factor=factor)
        rates = []
        for _ in range(steps):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return np.array(rates)

    low, high = curve(1000), curve(10000)
    assert np.abs(low - high).max() == pytest.approx(1 / 25 / 1000 - 1 / 25 / 10000, rel=1e-3)
    assert np.abs(low - high).max() < 4e-5
    columns = {rate: [float(row[rate]) for row in by_factor().values()] for rate in ("0.0003", "0.001", "0.003", "0.01")}
    assert columns["0.0003"] == [26.04, 27.14, 27.42]
    monotone = [rate for rate, values in columns.items() if sorted(values) in (values, values[::-1])]
    assert monotone == ["0.0003", "0.003", "0.01"]


@shows("figure_1_exchanged")
def test_figure_1_shows_of_each_scheme_what_the_text_says_of_the_other():
    curves = pd.read_csv(WORKFLOW / "published" / "figure1_curves.csv")
    table = curves.pivot_table(index="epoch", columns=["initialization", "bound"], values="mse")
    uniform, normal, hybrid = (table[name] for name in ("kaiming_uniform", "kaiming_normal", "hybrid"))
    # From the first epoch the uniform scheme is with the hybrid one, and for twenty epochs it falls with it.
    early = slice(0, 9)
    assert (abs(uniform["min"] / hybrid["min"] - 1).loc[early] < 0.1).all()
    # Its runs never settle: within the last fifth they rise by more than a third above what they had reached.
    late = uniform.loc[160:]
    assert all((late[bound] / uniform[bound].cummin().loc[160:]).max() > 1.33 for bound in ("min", "max"))
    assert tuple(uniform.loc[199]) == (79.26, 35.12)
    # The normal scheme starts higher, rises to 515, and does not pass its first value for good before epoch 27.
    assert normal["max"].max() == pytest.approx(515, abs=1)
    assert normal["max"].idxmax() == 27
    assert tuple(normal.loc[199]) == (28.39, 24.99) or tuple(normal.loc[199]) == (28.39, 25.0)
