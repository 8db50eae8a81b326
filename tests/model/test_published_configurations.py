"""The benchmark's configurations for TaxiBJ and KTH: sizes as the main paper's Table 3 prints them, and models that train."""

import pytest
import torch

from stlight.config import ConfigError, ModelConfig, RunConfig
from stlight.experiments.field_types import PrintedNumber
from stlight.model import TrainingStep, build_model
from stlight.model.complexity import complexity
from stlight.registry.dataset_specs import DATASETS, base_of
from stlight.registry.model_specs import BASELINES, borrows
from tests.model.small import clip_of, parts

# Main paper (arXiv 2411.10198v1), Table 3, which repeats the benchmark's page: parameters and FLOPs by data set.
PRINTED = {
    "ConvLSTM-S": {"taxibj": ("14.98M", "20.74G"), "kth": ("14.9M", "1368G")},
    "E3D-LSTM": {"taxibj": ("50.99M", "98.19G"), "kth": ("53.5M", "217G")},
    "PhyDNet": {"taxibj": ("3.09M", "5.60G"), "kth": ("3.1M", "93.6G")},
    "MAU": {"taxibj": ("4.41M", "6.02G"), "kth": ("20.1M", "399G")},
    "MIM": {"taxibj": ("37.86M", "64.10G"), "kth": ("39.8M", "1099G")},
    "PredRNN": {"taxibj": ("23.66M", "42.40G"), "kth": ("23.6M", "2800G")},
    "PredRNN++": {"taxibj": ("38.40M", "62.95G"), "kth": ("38.3M", "4162G")},
    "PredRNN.V2": {"taxibj": ("23.67M", "42.63G"), "kth": ("23.6M", "2815G")},
    "SimVP+IncepU": {"taxibj": ("13.79M", "3.61G"), "kth": ("12.2M", "62.8G")},
    "TAU": {"taxibj": ("9.55M", "2.49G"), "kth": ("15.0M", "73.8G")},
}
CASES = [(name, dataset) for name in PRINTED for dataset in ("taxibj", "kth")]
# Learning rates of the configuration files, in the order of CASES.
RATES = [5e-4, 1e-3, 5e-3, 5e-4, 5e-4, 1e-3, 1e-3, 5e-4, 1e-2, 1e-4, 1e-4, 1e-3, 1e-4, 1e-3, 5e-4, 1e-3, 1e-3, 1e-3, 5e-4, 1e-3]

each_case = pytest.mark.parametrize(("name", "dataset"), CASES)


def smaller(name, dataset):
    """Return a narrow model of the data set's configuration, and its shape with the smallest frames that it takes."""
    shape = DATASETS[dataset].shape._replace(height=16, width=16)
    config = ModelConfig(model=name, baseline_width=1 / 32, baseline_depth=0.25)
    return build_model(config, shape, dataset=dataset), shape


@each_case
def test_has_the_parameters_and_flops_that_the_main_paper_prints(name, dataset):
    counted = complexity(ModelConfig(model=name), DATASETS[dataset].shape, dataset)
    parameters, flops = map(PrintedNumber, PRINTED[name][dataset])
    assert abs(counted["parameters"]["total"] - parameters.value) <= parameters.half_unit
    assert abs(counted["benchmark_flops"] - flops.value) <= flops.half_unit


@pytest.mark.parametrize(("case", "max_lr"), list(zip(CASES, RATES, strict=True)))
def test_has_the_learning_rate_of_the_configuration_and_the_schedule_of_the_data_set(case, max_lr):
    name, dataset = case
    schedules = {"taxibj": ("cosine", 5, 50, 16), "kth": ("onecycle", 0, 100, 16)}
    training = RunConfig.from_fields({"model": name, "dataset": dataset, "source": "files"} | base_of(dataset, name)).training
    assert training.max_lr == max_lr
    assert (training.schedule, training.warmup_epochs, training.num_epochs, training.batch_size) == schedules[dataset]


@each_case
def test_learns(name, dataset):
    model, shape = smaller(name, dataset)
    # A square that moves by one pixel in two frames, from a different column in each clip.
    clip = torch.zeros_like(clip_of(shape))
    for number, frames in enumerate(clip):
        for t, frame in enumerate(frames):
            frame[:, 4:10, number + t // 2 : 6 + number + t // 2] = 1
    context, target = parts(clip, shape)
    optimizer = torch.optim.Adam(model.train().parameters(), lr=0.03)
    losses = []
    for index in range(12):
        loss = model.training_loss(context, target, TrainingStep.at(index, 6, seed=0))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.95 * losses[0]
    with torch.no_grad():
        prediction = model.eval()(context)
    assert prediction.shape == target.shape


def test_models_without_a_configuration_take_moving_mnists():
    assert [name for name in BASELINES if borrows(name, "taxibj")] == [name for name in BASELINES if borrows(name, "kth")]
    assert {name for name in BASELINES if borrows(name, "kth")} == BASELINES.keys() - PRINTED.keys()
    assert not any(borrows(name, "mmnist") for name in (*BASELINES, "STLight-L"))
    assert base_of("taxibj", "PredNet")["max_lr"] == base_of("mmnist", "PredNet")["max_lr"] == 1e-4
    own, borrowed = (build_model(ModelConfig(model="TAU"), DATASETS["mmnist"].shape, dataset=d) for d in ("mmnist", "mfmnist"))
    assert {n: p.shape for n, p in own.named_parameters()} == {n: p.shape for n, p in borrowed.named_parameters()}


@pytest.mark.parametrize("dataset", ["mmnist", "taxibj", "kth"])
@pytest.mark.parametrize("name", sorted(BASELINES.keys() - PRINTED.keys()))
def test_the_others_predict_at_the_shape_of_every_data_set(name, dataset):
    shape = DATASETS[dataset].shape
    model = build_model(ModelConfig(model=name, baseline_width=1 / 32, baseline_depth=0.25), shape, dataset=dataset).eval()
    with torch.no_grad():
        predicted = model(parts(clip_of(shape, batch=1), shape)[0])
    assert predicted.shape == (1, shape.horizon_frames, *shape[2:])
    assert predicted.isfinite().all()


def test_frames_must_suit_the_data_sets_configuration():
    fields = {"model": "E3D-LSTM", "dataset": "kth", "source": "stand_in"}
    RunConfig.from_fields(fields | {"downsampling": 8})
    with pytest.raises(ConfigError, match="frame size must be divisible by the frame multiple of E3D-LSTM, 16, got 8x8"):
        RunConfig.from_fields(fields | {"downsampling": 16})
