"""Every erratum is shown to be one: by running the few lines quoted, by counting, or in the supplement's text where it is."""

import dataclasses
import re
import shutil
import textwrap
import types
from pathlib import Path

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from stlight import STLight
from stlight.analysis.errata import Printed, as_markdown, different_results, errata, stated
from stlight.analysis.verdicts.ledger import ledger
from stlight.config import DEFAULTS, ModelConfig
from stlight.experiments import Plan
from stlight.experiments.claims import cells_of
from stlight.experiments.yaml_files import ExperimentError
from stlight.model import Moment, build_model
from stlight.model.complexity import complexity
from stlight.model.stlight import patch_encoder
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.registry.model_specs import BASELINES, OURS
from tests.conftest import WORKFLOW
from tests.experiments.test_published import FULL_TEXT, quoted_tables

TEXT = " ".join(Path(FULL_TEXT).read_text().split()) if FULL_TEXT else ""
with_text = pytest.mark.skipif(not FULL_TEXT, reason="no text of the supplement: STLIGHT_SUPPLEMENT names none")

# The lines of the listings that errata are about, as printed.
MIXER = "def STLMixer(dim, K_1, k_2):"
SECOND_CONV = '        nn.Conv2d(dim, dim, K_2, groups=dim, padding="same",\n            dilation=3),'
LAST_LAYER = "nn.Conv2d(dim // patch_size * 2,\n    out_layers, kernel_size=1)"
INITIALIZED = "self.patch_encoder.apply(self._init_weights)\nself.net.apply(self._init_weights)"
LOOP = """\
for i, block in enumerate(self.net):
    if i == len(self.net) // 3:
        x1 = x
        if i == 2 * len(self.net) // 3:
            x = x + x1
        x = block(x)"""
LISTING_1 = """\
def _init_weights(self, m):
    if isinstance(m, nn.Conv2d):
        nn.init.kaiming_normal_(
            m.weight,
            mode='fan_out',
            nonlinearity='relu'
        )
    if m.bias is not None:
        nn.init.constant_(m.bias, 0)"""

RIGHT_LOOP = LOOP[: LOOP.index("        if i == 2")] + textwrap.indent(
    textwrap.dedent(LOOP[LOOP.index("        if i == 2") :]), "    "
)
RIGHT_LISTING_1 = LISTING_1[: LISTING_1.index("    if m.bias")] + textwrap.indent(
    LISTING_1[LISTING_1.index("    if m.bias") :], "    "
)

SHOWN = {}


def shows(*ids):
    """Marks a test as the one that shows these errata."""

    def mark(test):
        SHOWN.update(dict.fromkeys(ids, test.__name__))
        return test

    return mark


def run(code, **names):
    names["nn"] = nn
    exec(code, names)
    return names


def found_in(plan):
    findings = ledger(plan, Path("nowhere"))
    return errata(plan, WORKFLOW, [f for f in findings if (f.source, f.verdict) == ("published", "contradicted")])


def ids_of(plan, start):
    return [e.id for e in found_in(plan) if e.id.startswith(start)]


def printing(plan, experiment, change):
    """The plan, had the supplement printed something else in one of its items."""
    changed = dataclasses.replace(plan.experiments[experiment], published=change(plan.experiments[experiment].published))
    return Plan(scale=plan.scale, experiments=plan.experiments | {experiment: changed}, runs=plan.runs)


def with_value(model, metric, value):
    return lambda entries: [e | {metric: value} if e.get("model") == model and metric in e else e for e in entries]


@pytest.fixture(scope="module")
def found(paper):
    """All errata by their ids."""
    return {e.id: e for e in found_in(paper)}


@pytest.fixture
def workflow(tmp_path):
    return Path(shutil.copytree(WORKFLOW, tmp_path / "workflow"))


# Listings


def listing(first, last, caption):
    """Lines of a listing by the numbers printed before them."""
    text = Path(FULL_TEXT).read_text()
    text = text[: text.index(caption)].rpartition("```")[0].rpartition("```")[2]
    lines = dict(re.findall(r"^(\d+)(?: (.*?))?\s*$", text, re.MULTILINE))
    return "\n".join(lines[str(number)] for number in range(first, last + 1))


@with_text
def test_the_lines_quoted_here_are_the_supplement_s():
    for lines, first in ((MIXER, 12), (SECOND_CONV, 17), (LAST_LAYER, 50), (INITIALIZED, 53), (LOOP, 61)):
        printed = listing(first, first + lines.count("\n"), "Figure 3. Full")
        printed = textwrap.dedent(printed).replace("self.patch_reassemble = ", "")
        assert printed == textwrap.dedent(lines), first
    assert listing(1, 9, "Listing 1. Code") == LISTING_1


@shows("listing_argument_names")
def test_listing_s_mixer_uses_a_name_that_it_does_not_define():
    code = f"{MIXER}\n    return nn.Sequential(\n{SECOND_CONV}\n    )"
    with pytest.raises(NameError, match="'K_2' is not defined"):
        run(code)["STLMixer"](4, 3, 7)
    mixer = run(code.replace("k_2", "K_2"))["STLMixer"](4, 3, 7)
    assert mixer[0].kernel_size == (7, 7)


@shows("listing_width_of_the_last_layer")
def test_listing_s_last_layer_refuses_what_the_patch_shuffle_leaves():
    shuffled = nn.PixelShuffle(2)(torch.zeros(1, 1400, 1, 1))
    names = {"dim": 1400, "patch_size": 2, "out_layers": 10, "nn": nn}
    printed = eval(LAST_LAYER, names)
    assert printed.in_channels == 1400
    with pytest.raises(RuntimeError, match="expected input.* to have 1400 channels, but got 350"):
        printed(shuffled)
    right = eval(LAST_LAYER.replace("patch_size * 2", "patch_size**2"), names)
    assert right(shuffled).shape == (1, 10, 2, 2)
    with torch.device("meta"):
        assert STLight().patch_reassemble.in_channels == right.in_channels


def computed_by(loop, depth=16):
    """Which blocks a loop computes, and what is left of its input, when blocks add powers of two."""
    computed = []

    def block(i):
        return lambda x: (computed.append(i), x + 2**i)[1]

    return computed, run(loop, self=types.SimpleNamespace(net=[block(i) for i in range(depth)]), x=0)["x"]


@shows("listing_blocks_inside_the_if")
def test_listing_s_loop_computes_one_block_and_never_the_skip():
    computed, output = computed_by(LOOP)
    assert computed == [5]
    assert output == 2**5
    computed, output = computed_by(RIGHT_LOOP)
    assert computed == list(range(16))
    # What five blocks made of the input, once more.
    assert output == 2**16 - 1 + 2**5 - 1
    # Whatever the depth, it is one.
    assert all(len(computed_by(LOOP, depth)[0]) == 1 for depth in range(1, 33))


@shows("listing_1_bias_outside_the_if")
def test_listing_1_asks_a_gelu_for_its_bias():
    encoder = patch_encoder(10, 8, 2, 1)
    printed = run(LISTING_1)["_init_weights"]
    with pytest.raises(AttributeError, match="'GELU' object has no attribute 'bias'"):
        encoder.apply(lambda m: printed(None, m))
    right = run(RIGHT_LISTING_1)["_init_weights"]
    encoder.apply(lambda m: right(None, m))
    assert not encoder[0].bias.any()


@with_text
@shows("listing_without_init_weights")
def test_the_full_listing_lacks_a_method_and_with_all_errata_corrected_is_our_model():
    code = listing(1, 69, "Figure 3. Full")
    loop = textwrap.indent(LOOP, 8 * " ")
    assert code.count(loop) == 1
    code = code.replace("k_2):", "K_2):").replace("patch_size * 2,", "patch_size**2,")
    code = code.replace(loop, textwrap.indent(RIGHT_LOOP, 8 * " "))
    arguments = {"in_layers": 6, "out_layers": 10, "dim": 16, "depth": 4, "patch_size": 2, "overlapping": 2, "K_1": 3, "K_2": 7}
    with pytest.raises(AttributeError, match="'STLight' object has no attribute '_init_weights'"):
        run(code)["STLight"](**arguments)
    theirs = run(f"{code}\n{textwrap.indent(RIGHT_LISTING_1, '    ')}")["STLight"](**arguments)
    ours = STLight(context_frames=3, horizon_frames=5, channels=2, hidden_dim=16, depth=4)
    ours.load_state_dict(dict(zip(ours.state_dict(), theirs.state_dict().values(), strict=True)))
    clip = torch.rand(2, 3, 2, 8, 12)
    torch.testing.assert_close(ours(clip), theirs(clip), rtol=1e-4, atol=1e-5)


@shows("listing_1_is_not_the_whole_scheme")
def test_what_figure_3_initializes_is_the_hybrid_scheme():
    def model(scheme):
        torch.manual_seed(0)
        return STLight(hidden_dim=8, depth=2, initialization=scheme)

    def same(a, b):
        return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))

    def listed(with_last_layer):
        built = model("kaiming_uniform")
        parts = types.SimpleNamespace(patch_encoder=built.patch_encoder, net=built.mixers)
        parts._init_weights = types.MethodType(run(RIGHT_LISTING_1)["_init_weights"], parts)
        run(INITIALIZED, self=parts)
        if with_last_layer:
            built.patch_reassemble.apply(parts._init_weights)
        return built

    assert same(listed(False), model("hybrid"))
    assert not same(listed(False), model("kaiming_normal"))
    assert same(listed(True), model("kaiming_normal"))


# Text


@with_text
@pytest.mark.parametrize("entry", yaml.safe_load((WORKFLOW / "errata.yaml").read_text()), ids=lambda entry: entry["id"])
def test_every_quote_is_in_the_supplement_s_text(entry):
    assert " ".join(entry["quote"].split()) in TEXT


@shows("pytorch_default_is_not_he")
def test_pytorch_s_default_has_a_sixth_of_he_s_variance():
    torch.manual_seed(0)
    convolution = nn.Conv2d(256, 512, 3)
    fan_in = 256 * 9
    default = convolution.weight.var().item()
    assert convolution.weight.abs().max() <= fan_in**-0.5
    nn.init.kaiming_uniform_(convolution.weight, nonlinearity="relu")
    he = convolution.weight.var().item()
    assert he == pytest.approx(2 / fan_in, rel=0.01)
    assert he / default == pytest.approx(6, rel=0.01)


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


@shows("table_2_refers_to_itself")
def test_table_2_holds_results_alone():
    header, *rows = quoted_tables()["Table 2"]
    assert header == ["Model", "# Params", "FLOPs", "MSE", "MAE", "SSIM"]
    assert len(rows) == 12
    if TEXT:
        caption = TEXT.index("Table 2. Quantitative results")
        assert 0 < TEXT.index("training settings from Table 2.") - caption < 200


@shows("tables_of_the_paper")
def test_the_supplement_s_tables_2_and_3_are_not_those_that_section_a_means():
    # Its Table 2 is the test above's.
    header, *rows = quoted_tables()["Table 3"]
    sizes = ["3", "5", "7", "9", "11"]
    assert header[1:] == [row[0] for row in rows] == sizes
    if TEXT:
        section = TEXT[TEXT.index("A. Additional Evaluation Results") : TEXT.index("B. STLight method complexity")]
        assert "same hyperparameters as in Table 2" in section
        assert section.count("Table 3") == 2


@shows("section_a_has_no_ablation")
def test_section_a_s_tables_vary_no_training_setting(paper):
    for experiment in paper.experiments.values():
        configurations = [v.paper.model_dump_json() for v in experiment.variants]
        datasets = {v.dataset for v in experiment.variants}
        if experiment.section == "A":
            models = {v.paper.model.model for v in experiment.variants}
            assert len(configurations) == max(len(datasets), len(models)), experiment.item
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
    datasets = {name: spec.shape for name, spec in DATASETS.items() if name != "mfmnist"}
    products = {n: (s.context_frames * s.channels, s.horizon_frames * s.channels) for n, s in datasets.items()}
    assert products == {"mmnist": (10, 10), "taxibj": (8, 8), "kth": (10, 20)}
    assert [name for name, both in products.items() if max(both) < 10] == ["taxibj"]
    # What is concluded from it stands.
    assert 50 * max(max(both) for both in products.values()) < DEFAULTS["hidden_dim"]


@shows("two_names_for_one_model")
def test_tables_4_and_5_share_cells_that_agree_but_for_one(paper):
    def printed(name):
        cells = cells_of(paper.experiments[name].variants, paper.experiments[name].published, [], {"mse", "mae", "ssim"})
        return {cell.variant.paper.hash: cell.published["mse"] for cell in cells}

    table_4, table_5 = printed("table4_learning_rate_epochs"), printed("table5_final_div_factor")
    shared = table_4.keys() & table_5.keys()
    assert len(shared) == 4
    assert sorted(table_4[cell] - table_5[cell] for cell in shared) == pytest.approx([-0.05, 0, 0, 0])


# Found by code


DIFFERENT = {
    "different_results_mmnist_epochs=2000_mse": {("Table 1", "14.72"), ("Table 2", "14.77"), ("Table 4", "14.77")},
    "different_results_mmnist_stlight_l_mse": {("Table 3", "22.33"), ("Table 4", "22.28"), ("Table 5", "22.33")},
}


@shows(*DIFFERENT)
def test_one_configuration_with_different_results(paper, found):
    cases = {
        f"different_results_{case.variant.dataset}_{case.variant.name}_{case.metric}": {(p.item, p.text) for p in case.printed}
        for case in different_results(paper)
    }
    assert cases == DIFFERENT
    assert {name for name in found if name.startswith("different_results")} == DIFFERENT.keys()
    assert all(text in str(quoted_tables()[item]) for cells in DIFFERENT.values() for item, text in cells)


def test_results_that_differ_by_rounding_are_none(paper):
    # 0.969 in Table 4 and 0.9686 in Table 2, 21.80 and 21.8 in Tables 4 and 5: the same, as printed.
    printed = {e["ssim"] for e in paper.experiments["table4_learning_rate_epochs"].published}
    assert "0.969" in printed
    assert not Printed("Table 4", "0.969").differs(Printed("Table 2", "0.9686"))
    assert not Printed("Table 4", "21.80").differs(Printed("Table 5", "21.8"))
    further = printing(paper, "table2_openstl", with_value(OURS, "ssim", "0.9684"))
    assert "different_results_mmnist_epochs=2000_ssim" in ids_of(further, "different_results")


@given(value=st.floats(0, 300), digits=st.tuples(st.integers(0, 5), st.integers(0, 5)), unit=st.sampled_from(["", "M"]))
def test_rounding_is_never_reported_and_one_last_digit_more_is(value, digits, unit):
    coarse, fine = (Printed("", f"{value:.{n}f}{unit}") for n in sorted(digits))
    assert not coarse.differs(fine)
    assert not fine.differs(coarse)
    edge, step = coarse.half_unit, 2 * fine.half_unit
    for sign in (1, -1):
        # The first number with the finer one's digits that is not rounded to the coarser one.
        beyond = coarse.value + sign * (edge + step if step < edge else step)
        scale = 1e6 if unit else 1
        assert coarse.differs(Printed("", f"{beyond / scale:.{max(digits)}f}{unit}"))


@shows("flops_are_parameters_table2_openstl")
def test_flops_cannot_be_as_few_as_parameters(paper, found):
    (erratum,) = [e for e in found.values() if e.id.startswith("flops_are_parameters")]
    for overlap, number in ((1, "33.5G"), (2, "33.7G")):
        counts = complexity(ModelConfig(overlap=overlap), DATASETS["mmnist"].shape)
        assert f"{counts['flops'] / 1e9:.1f}G" == number
        assert number in erratum.should
        assert counts["benchmark_flops"] > 1000 * counts["parameters"]["total"]
    right = printing(paper, "table2_openstl", with_value(OURS, "benchmark_flops", "33.5G"))
    assert not ids_of(right, "flops_are_parameters")


@shows("prednet_flops_of_colour_frames")
def test_prednets_flops_are_those_of_colour_frames():
    mmnist = DATASETS["mmnist"].shape
    counts = {c: complexity(ModelConfig(model="PredNet"), mmnist._replace(channels=c)) for c in (1, 3)}
    assert [f"{counts[c]['flops'] / 1e9:.1f}G" for c in (1, 3)] == ["8.4G", "8.6G"]
    assert f"{counts[1]['prediction_flops'] / 1e9:.1f}G" == "16.8G"
    assert f"{counts[3]['parameters']['total'] / 1e6:.1f}M" == "12.5M"


@shows("parameters_that_nothing_uses", "parameters_not_rounded")
def test_some_parameters_of_table_2_are_used_by_nothing_and_three_are_not_rounded():
    used, counted = {}, {}
    for name in BASELINES:
        # Which weights get a gradient, a few frames show.
        shape = ClipShape(2, 2, 1, 16, 16)
        small = build_model(ModelConfig(model=name, baseline_width=1 / 16), shape)
        clip = torch.rand(1, 4, 1, 16, 16)
        small.training_loss(clip[:, :2], clip[:, 2:], Moment.at(9, 1, seed=0)).backward()
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
        metrics = ("num_params", "benchmark_flops", "mse", "mae", "ssim")
        return [e | {m: f"9{e[m]}" for m in metrics} if e.get("model", OURS) != OURS else e for e in entries]

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


# All of them


def test_every_erratum_has_a_test_that_shows_it(paper):
    ids = [e.id for e in found_in(paper)]
    assert len(set(ids)) == len(ids)
    assert set(ids) == SHOWN.keys()
    assert all(name.startswith("test_") and callable(globals()[name]) for name in SHOWN.values())


def test_markdown_holds_every_erratum(found):
    text = as_markdown(list(found.values()))
    assert text.count("\n## ") == len(found)
    for number, entry in enumerate(found.values(), 1):
        heading = text.index(f"\n## {number}. {entry.place}\n")
        rest = text[heading:]
        parts = [rest.index(words) for words in (entry.says, entry.should, entry.here, f"`{entry.id}`")]
        assert parts == sorted(parts)


# Files that are wrong


ENTRY = {"id": "mine", "place": "Table 1", "quote": "q", "says": "a", "should": "b", "here": "c"}
SOURCE = {"experiment": "table2_openstl", "where": "a page", "cited": True, "rows": [{"model": "TAU", "mse": 15.69}]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([ENTRY, {k: v for k, v in ENTRY.items() if k != "here"}], r"\[1\]: 'here' is a required property"),
        ([ENTRY | {"fix": "d"}], r"\[0\]: Additional properties are not allowed \('fix' was unexpected\)"),
        ([ENTRY | {"says": 3}], r"\[0\]\.says: 3 is not of type 'string'"),
        ([ENTRY, ENTRY], r"\[1\]\.id: 'mine' is given twice"),
        ({"errata": []}, r"the file: .* is not of type 'array'"),
    ],
)
def test_a_wrong_entry_is_answered_in_one_line(workflow, content, words):
    (workflow / "errata.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=rf"errata\.yaml: {words}") as caught:
        stated(workflow)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([{k: v for k, v in SOURCE.items() if k != "cited"}], r"\[0\]: 'cited' is a required property"),
        ([SOURCE | {"page": 3}], r"\[0\]: Additional properties are not allowed \('page' was unexpected\)"),
        ([SOURCE | {"rows": [{"model": "TAU", "mse": "15,69"}]}], r"\[0\]\.rows\[0\]\.mse: '15,69' does not match"),
        ([SOURCE | {"rows": [{"model": "TAO", "mse": 1}]}], r"\[0\]\.rows\[0\]\.mse: table2_openstl quotes no mse of 'TAO'"),
        ([SOURCE | {"rows": [{"model": "TAU", "mze": 1}]}], r"\[0\]\.rows\[0\]\.mze: table2_openstl quotes no mze of 'TAU'"),
    ],
)
def test_a_wrong_source_is_answered_in_one_line(paper, workflow, content, words):
    (workflow / "quoted_sources.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ExperimentError, match=rf"quoted_sources\.yaml: {words}") as caught:
        errata(paper, workflow)
    assert "\n" not in str(caught.value)
