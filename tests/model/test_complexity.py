import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stlight.config import ModelConfig
from stlight.model import build_model
from stlight.model.complexity import (
    check_with_fvcore,
    closed_forms,
    complexity,
    count_flops,
    count_flops_by_fvcore,
    count_parameters,
    count_weights,
)
from stlight.registry.dataset_specs import DATASETS


@pytest.mark.parametrize(
    ("overlap", "flops", "with_batch_norm"),
    [(1, 33_514_700_800, 33_609_318_400), (2, 33_686_732_800, 33_781_350_400)],
)
def test_stlight_l_costs_what_two_counters_say(overlap, flops, with_batch_norm):
    counts = complexity(ModelConfig(overlap=overlap), DATASETS["mmnist"].shape)
    assert counts["benchmark_flops"] == flops
    assert counts["flops_fvcore"] == with_batch_norm


@pytest.mark.parametrize("fields", [{"overlap": 2}, {"decoder": "reassemble_shuffle"}, {"prediction": "rollout"}])
def test_fvcore_and_torch_s_own_counter_agree(fields):
    config, shape = ModelConfig(hidden_dim=16, depth=3, **fields), DATASETS["taxibj"].shape
    counts, model = complexity(config, shape), build_model(config, shape).eval()
    assert sum(count_flops_by_fvcore(model, shape).values()) == counts["flops_fvcore"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, shape.context_frames, shape.channels, 32, 32))
    assert counter.get_total_flops() // 2 == counts["prediction_flops"]


def test_a_count_that_fvcore_does_not_share_is_refused(monkeypatch):
    config, shape = ModelConfig(hidden_dim=16, depth=3), DATASETS["mmnist"].shape
    check_with_fvcore(config, shape)
    wrong = complexity(config, shape) | {"flops_fvcore": 1}
    monkeypatch.setattr("stlight.model.complexity.complexity", lambda *_: wrong)
    with pytest.raises(RuntimeError, match="fvcore counts"):
        check_with_fvcore(config, shape)


def rounds_to(value, printed):
    return abs(value - printed.value) <= printed.half_unit * 1.001


def test_the_published_sizes_count_what_the_main_paper_prints(paper):
    """Its FLOPs leave out the depthwise convolutions, which fvcore counts as free for `padding="same"`."""
    experiment = paper.experiments["main_table3_sizes"]
    assert len(experiment.variants) == 11
    for variant in experiment.variants:
        model, shape = variant.paper.model, variant.paper.clip_shape
        counts, printed = complexity(model, shape), experiment.all_printed(variant)
        assert rounds_to(counts["parameters"]["total"], printed["num_params"]), variant.name
        kernels = model.depth * model.hidden_dim * (model.k1**2 + model.k2**2)
        depthwise = kernels * shape.height * shape.width // model.patch_size**2
        assert rounds_to(counts["flops_fvcore"] - depthwise, printed["benchmark_flops"]), variant.name
        assert not rounds_to(counts["flops_fvcore"], printed["benchmark_flops"])


def test_the_points_of_the_main_paper_s_figure_6_have_the_drawn_parameters(paper):
    experiment = paper.experiments["main_figure6_width_depth"]
    for variant in experiment.variants:
        with torch.device("meta"):
            model = build_model(variant.paper.model, variant.paper.clip_shape)
        printed = experiment.all_printed(variant)["num_params"]
        assert abs(count_parameters(model)["total"] - printed.value) < 1500, variant.name


def test_depthwise_convolutions_are_not_counted_as_free():
    # fvcore counts padding="same" as zero: the count would then not depend on the kernel sizes.
    small, large = (complexity(ModelConfig(hidden_dim=8, depth=2, k1=k), DATASETS["mmnist"].shape) for k in (3, 11))
    assert large["benchmark_flops"] - small["benchmark_flops"] == 2 * 8 * (121 - 9) * 32 * 32


@pytest.mark.parametrize("fields", [{}, {"decoder": "reassemble_shuffle"}, {"patch_size": 4}, {"prediction": "rollout"}])
@pytest.mark.parametrize("dataset", ["taxibj", "kth"])
def test_scaling_up_from_one_patch_is_exact(fields, dataset):
    shape = DATASETS[dataset].shape._replace(height=16, width=24)
    model = build_model(ModelConfig(hidden_dim=16, depth=2, **fields), shape).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, shape.context_frames, shape.channels, 16, 24))
    assert count_flops(model, shape) == counter.get_total_flops() // 2


@pytest.mark.parametrize("decoder", ["shuffle_reassemble", "reassemble_shuffle"])
def test_closed_forms_leave_out_only_biases_and_batch_norm(decoder):
    config, shape = ModelConfig(hidden_dim=20, depth=3, k1=5, k2=9, decoder=decoder), DATASETS["mmnist"].shape
    counted, formula = count_parameters(build_model(config, shape)), closed_forms(config, shape)
    outputs = 10 if decoder == "shuffle_reassemble" else 40
    assert counted["patch_encoder"] - formula["patch_encoder"] == 20 + 2 * 20
    assert counted["mixers"] - formula["mixers"] == 3 * (3 * 20 + 2 * 2 * 20)
    assert counted["patch_reassemble"] - formula["patch_reassemble"] == outputs
    assert counted["total"] == sum(counted[name] for name in formula)
    assert count_weights(build_model(config, shape)) == formula | {"patch_shuffle": 0}
