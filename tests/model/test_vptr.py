"""VPTR computes what its authors' modules compute, looks at no later frames, and trains its parts one after the other."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stlight.config import ModelConfig, RunConfig
from stlight.data import TaxiBJStandIn
from stlight.model import TrainingStep, build_model
from stlight.model.baselines import vptr_blocks
from stlight.model.baselines.vptr import contrastive_loss, frame_error
from stlight.model.complexity import count_parameters
from stlight.registry.dataset_specs import DATASETS, ClipShape
from stlight.training import Training, train
from stlight.training.loop import take_step
from tests.model.frozen import condense, frozen_clip, frozen_model
from tests.model.small import SMALL, clip_of, parts, small
from tests.training.test_resume import assert_same, train_until

NAMES = ["VPTR-NAR", "VPTR-FAR"]
# Codes of two windows.
SHAPE = ClipShape(4, 3, 1, 32, 64)
AUTOENCODER, TRANSFORMER = 0, 1

each_model = pytest.mark.parametrize("name", NAMES)
each_phase = pytest.mark.parametrize("phase", [AUTOENCODER, TRANSFORMER])


def at(phase, index=0):
    return TrainingStep.at(index, 1, seed=0, phase=phase)


@pytest.fixture(scope="module")
def authors():
    """Return outputs of the authors' modules with the weights of `frozen_model`, made outside this repository.

    The loss and its gradients are in training mode, without dropout.
    """
    with np.load(Path(__file__).parent / "vptr_outputs.npz") as outputs:
        return dict(outputs)


@each_model
def test_predictions_equal_the_authors(name, authors):
    expected = authors[f"{name}/prediction"]
    assert expected.std() > 0.1
    with torch.no_grad():
        np.testing.assert_allclose(
            frozen_model(name, shape=SHAPE)(parts(frozen_clip(SHAPE), SHAPE)[0]).numpy(), expected, atol=1e-5
        )


@each_model
@each_phase
def test_losses_and_gradients_equal_the_authors_and_reach_all_weights(name, phase, authors, monkeypatch):
    monkeypatch.setattr(vptr_blocks, "DROPOUT", 0.0)
    model = frozen_model(name, shape=SHAPE).train()
    loss = model.training_loss(*parts(frozen_clip(SHAPE), SHAPE), at(phase))
    loss.backward()
    assert loss.item() == pytest.approx(float(authors[f"{name}/loss{phase}"]), rel=1e-5)
    weights = dict(model.phases(2)[phase].part.named_parameters())
    ours, theirs = condense([weight.grad for weight in weights.values()]), authors[f"{name}/gradients{phase}"]
    assert (abs(ours - theirs) <= 1e-4 * theirs[:, :1] + 1e-7).all()
    idle = {key for key, weight in weights.items() if not weight.grad.any()}
    # The decoder starts from zeros, whose normalization nothing can scale.
    assert idle == ({"decoder.0.block.norms.0.weight"} if (name, phase) == ("VPTR-NAR", TRANSFORMER) else set())


@pytest.mark.parametrize(
    ("name", "dataset", "count"),
    [
        ("VPTR-NAR", "mmnist", 166_730_017),
        ("VPTR-NAR", "taxibj", 159_133_090),
        ("VPTR-NAR", "kth", 198_291_745),
        ("VPTR-FAR", "mmnist", 136_374_241),
        ("VPTR-FAR", "taxibj", 130_906_210),
        ("VPTR-FAR", "kth", 158_271_457),
    ],
)
def test_has_as_many_parameters_as_the_authors_modules(name, dataset, count):
    with torch.device("meta"):
        model = build_model(ModelConfig(model=name), DATASETS[dataset].shape)
    assert count_parameters(model)["total"] == count


def test_has_as_many_parameters_as_the_authors_print():
    """Numbers of issue 2 of the authors' repository, and of Table 4 of their later article (136.37M)."""
    encoder, decoder, nar, far = 46_772_256, 1_589_185, 118_368_576, 88_008_096
    offsets, heads, layers = (2 * 4 - 1) ** 2, 8, 12
    with torch.device("meta"):
        counts = {name: count_parameters(build_model(ModelConfig(model=name), DATASETS["mmnist"].shape)) for name in NAMES}
    assert counts["VPTR-NAR"]["total"] == encoder + decoder + nar
    assert counts["VPTR-FAR"]["total"] == encoder + decoder + far + offsets * heads * layers
    assert round(counts["VPTR-FAR"]["total"] / 1e6, 2) == 136.37


@each_model
@pytest.mark.parametrize("dataset", ["mmnist", "kth", "taxibj"])
def test_takes_steps_of_both_phases_on_the_shape_of_each_data_set(name, dataset):
    shape = DATASETS[dataset].shape
    with torch.device("meta"):
        model = build_model(ModelConfig(model=name, baseline_width=1 / 32, baseline_depth=0.05), shape).train()
        clip = torch.zeros(1, shape.context_frames + shape.horizon_frames, *shape[2:])
    for phase in (AUTOENCODER, TRANSFORMER):
        model.training_loss(*parts(clip, shape), at(phase)).backward()
        assert all(weight.grad is not None for weight in model.phases(2)[phase].part.parameters())
    assert model.eval()(parts(clip, shape)[0]).shape == (1, shape.horizon_frames, *shape[2:])


def test_no_code_that_far_predicts_depends_on_later_ones():
    transformer = small("VPTR-FAR").transformer.train()
    codes = torch.rand(2, 4, 16, 2, 2)

    @torch.no_grad()
    def predictions(codes):
        torch.manual_seed(0)
        return transformer(codes)

    before = predictions(codes)
    for changed in range(4):
        other = codes.clone()
        other[:, changed] = 1 - other[:, changed]
        after = predictions(other)
        assert torch.equal(after[:, :changed], before[:, :changed])
        assert all(not torch.equal(after[:, t], before[:, t]) for t in range(changed, 4))


def test_nar_predicts_in_training_from_the_context_only():
    model, (context, target) = small("VPTR-NAR"), parts(clip_of(SMALL))
    decode, predicted = model.autoencoder.decode, []
    model.autoencoder.decode = lambda codes: predicted.append(decode(codes)) or predicted[-1]
    losses = [model.training_loss(context, frames, at(TRANSFORMER)).item() for frames in (target, 1 - target)]
    assert torch.equal(*predicted)
    assert losses[0] != losses[1]


@each_model
def test_dropout_is_drawn_from_the_step_and_in_training_only(name):
    model, (context, target) = small(name), parts(clip_of(SMALL))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first, again, other = (model.training_loss(context, target, at(TRANSFORMER, index)).item() for index in (3, 3, 4))
    assert torch.equal(torch.get_rng_state(), state)
    assert first == again != other
    model.eval()
    assert model.training_loss(context, target, at(TRANSFORMER, 3)) == model.training_loss(context, target, at(TRANSFORMER, 4))


def test_a_tenth_of_the_branches_is_dropped_clip_by_clip():
    torch.manual_seed(0)
    kept = vptr_blocks.DropPath().train()(torch.ones(20_000, 2, 3))
    assert torch.equal(kept, kept[:, :1, :1].expand_as(kept))
    assert (kept == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    assert kept.unique().tolist() == pytest.approx([0, 1 / 0.9])


def test_frame_error_worked_by_numpy(rng):
    one, other = rng.random((2, 3, 2, 4, 5)), rng.random((2, 3, 2, 4, 5))
    expected = ((one - other) ** 2).mean()
    for axis in (3, 4):
        expected += abs(abs(np.diff(one, axis=axis)) - abs(np.diff(other, axis=axis))).mean()
    assert frame_error(torch.from_numpy(one), torch.from_numpy(other)).item() == pytest.approx(expected)


def test_contrastive_loss_worked_by_numpy_and_its_gradients(rng):
    one, other = rng.random((2, 1, 2, 3, 4)), rng.random((2, 1, 2, 3, 4))
    a, b = (x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (one.reshape(2, 6, 4), other.reshape(2, 6, 4)))
    terms = []
    for clip in range(2):
        for scores in (a[clip] @ b[clip].T, b[clip] @ a[clip].T):
            terms += [np.log(np.exp(row).sum()) - row[place] for place, row in enumerate(scores)]
    predicted, true = torch.from_numpy(one).requires_grad_(), torch.from_numpy(other).requires_grad_()
    assert contrastive_loss(predicted, true).item() == pytest.approx(np.mean(terms))
    # The gradients of a loss in which only the queried code and the code of its own place move.
    contrastive_loss(predicted, true).backward()
    p, q = torch.from_numpy(one).requires_grad_(), torch.from_numpy(other)
    u, v = F.normalize(p.reshape(2, 6, 4), dim=-1), F.normalize(q.reshape(2, 6, 4), dim=-1)
    total = 0
    for clip in range(2):
        for place in range(6):
            keys = torch.stack([u[clip, k] if k == place else u[clip, k].detach() for k in range(6)])
            total = total - (v[clip, place] @ keys.T).log_softmax(0)[place] - (u[clip, place] @ v[clip].T).log_softmax(0)[place]
    (total / 24).backward()
    torch.testing.assert_close(predicted.grad, p.grad)


# -- two phases


def configured(name, **fields):
    base = {"dataset": "taxibj", "source": "stand_in", "batch_size": 2, "clips_per_epoch": 4, "max_lr": 0.01}
    base |= {"validation_clips": 1, "test_clips": 1, "baseline_width": 1 / 32, "baseline_depth": 0.05}
    return RunConfig.from_fields(base | {"model": name, "num_epochs": 3} | fields)


def begin(config):
    return Training(build_model(config.model, config.clip_shape), config)


def values(module):
    return {key: tensor.clone() for key, tensor in module.state_dict().items()}


def changed(before, module):
    return {key for key, tensor in module.state_dict().items() if not torch.equal(tensor, before[key])}


@each_model
def test_each_phase_changes_its_part_and_nothing_else(name):
    training = begin(configured(name, num_epochs=5))
    model, start = training.model, {}
    for part in (model.autoencoder, model.transformer):
        start |= {part: values(part)}
    seen = []

    def on_epoch(row):
        seen.append(tuple(bool(changed(start[part], part)) for part in (model.autoencoder, model.transformer)))
        if row["epoch"] == 2:
            # BatchNorm's statistics are part of the state.
            assert changed(start[model.autoencoder], model.autoencoder) == start[model.autoencoder].keys()
            start[model.autoencoder] = values(model.autoencoder)

    train(training, TaxiBJStandIn(), on_epoch=on_epoch)
    assert seen == [(True, False)] * 2 + [(False, True)] * 3
    idle = {"decoder.0.block.norms.0.weight"} if name == "VPTR-NAR" else set()
    assert changed(start[model.transformer], model.transformer) == start[model.transformer].keys() - idle


@each_model
def test_a_run_is_two_trainings_each_with_its_own_adam_and_schedule(name):
    """Compare with plain loops over the parameters of one part."""
    config = configured(name, num_epochs=5, precision="float32")
    training = train(begin(config), TaxiBJStandIn())
    model, dataset, index = build_model(config.model, config.clip_shape), TaxiBJStandIn(), 0
    rates, losses = [], []
    for phase, (part, epochs) in enumerate([(model.autoencoder, (1, 2)), (model.transformer, (3, 4, 5))]):
        optimizer = torch.optim.Adam(part.parameters(), lr=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.01, 2 * len(epochs), final_div_factor=1e4)
        for epoch in epochs:
            for clip in dataset.batches("train", torch.arange(4).split(2), epoch):
                optimizer.zero_grad()
                step = TrainingStep.at(index, 50_000, config.seed, phase)
                loss = model.train().training_loss(clip[:, :4], clip[:, 4:], step)
                loss.backward()
                optimizer.step()
                rates.append(schedule.get_last_lr()[0])
                losses.append(loss.item())
                schedule.step()
                index += 1
    assert [row["learning_rate"] for row in training.history] == pytest.approx(rates[1::2])
    assert rates[3] == rates[-1] == pytest.approx(0.01 / 25 / 1e4)
    means = np.reshape(losses, (5, 2)).mean(1)
    assert [row["train_loss"] for row in training.history] == pytest.approx(means.tolist(), rel=1e-4)
    # Weights without effect, as biases before BatchNorm, follow the rounding of their gradients.
    clip = clip_of(config.clip_shape)[:, :4]
    with torch.no_grad():
        torch.testing.assert_close(training.model.eval()(clip), model.eval()(clip), rtol=1e-3, atol=1e-4)


@each_model
def test_stopped_at_any_safe_point_it_goes_on_to_the_same_end(name):
    config = configured(name)
    straight = train(begin(config), TaxiBJStandIn())
    # An epoch has two steps, two evaluations and an end. The second phase begins at the fifth safe point.
    for number in (1, 4, 5, 6, 7, 10, 15):
        state = train_until(begin(config), number)
        torch.manual_seed(number)
        resumed = begin(config)
        resumed.load_state_dict(state)
        assert resumed.phase == (number >= 5)
        assert_same(train(resumed, TaxiBJStandIn()), straight)


@each_model
def test_a_state_of_the_first_phase_can_be_loaded_in_the_second(name):
    config = configured(name)
    straight = train(begin(config), TaxiBJStandIn())
    state = train_until(begin(config), 1)
    # Adam takes the tensors themselves.
    straight.load_state_dict(copy.deepcopy(state))
    again = begin(config)
    again.load_state_dict(state)
    assert_same(train(straight, TaxiBJStandIn()), train(again, TaxiBJStandIn()))


@each_model
def test_frozen_weights_get_no_gradients(name):
    config = configured(name)
    training = begin(config)
    flat = next(training.model.autoencoder.parameters()).flat
    training.epoch, flat.grad = 2, torch.ones_like(flat)
    training.start_phase()
    frozen = {weight: weight.detach().clone() for weight in training.model.autoencoder.parameters()}
    take_step(training.model.train(), training.optimizer, clip_of(config.clip_shape), 4, config.training, 1, at(TRANSFORMER))
    assert [flat.grad, *(weight.grad for weight in frozen)] == [None] * (1 + len(frozen))
    assert all(torch.equal(weight, before) for weight, before in frozen.items())
