"""The baselines compute what the benchmark's own modules compute, in either version of its code."""

from pathlib import Path

import numpy as np
import pytest
import torch

from stlight.config import ModelConfig
from stlight.model import build_model
from tests.model.frozen import LATE, SHAPE, VARIANTS, condense, frozen_clip, frozen_model, sampling_step
from tests.model.small import SMALL, parts

each_variant = pytest.mark.parametrize(("name", "version"), VARIANTS)


@pytest.fixture(scope="module")
def benchmark():
    with np.load(Path(__file__).parent / "benchmark_outputs.npz") as outputs:
        return dict(outputs)


@each_variant
def test_prediction_and_loss_equal_the_benchmarks(name, version, benchmark):
    model, (context, target) = frozen_model(name, version), parts(frozen_clip(), SHAPE)
    prediction, loss = (benchmark[f"{name} {version}/{value}"] for value in ("prediction", "loss"))
    with torch.no_grad():
        assert prediction.std() > 0.03
        np.testing.assert_allclose(model(context).numpy(), prediction, atol=1e-5)
        assert float(model.training_loss(context, target, LATE)) == pytest.approx(float(loss), rel=1e-5)


@each_variant
def test_training_mode_and_gradients_equal_the_benchmarks(name, version, benchmark):
    model, (context, target) = frozen_model(name, version).train(), parts(frozen_clip(), SHAPE)
    loss = model.training_loss(context, target, sampling_step())
    loss.backward()
    theirs = benchmark[f"{name} {version}/gradients"]
    assert loss.item() == pytest.approx(float(benchmark[f"{name} {version}/training_loss"]), rel=1e-5)
    ours = condense([parameter.grad for parameter in model.parameters()])
    # Gradients that are zero, before a norm, are the rounding of the largest.
    assert (abs(ours - theirs) <= 1e-4 * theirs[:, :1] + 1e-9 * max(1, theirs.max())).all()


def test_only_the_corrected_code_reads_the_cell():
    x, h, c, zero = torch.rand(1, 16, 4, 8), *torch.rand(2, 1, 8, 4, 8), torch.zeros(1, 8, 4, 8)

    def output_follows_c(version):
        cell = frozen_model("ConvLSTM-S", version).cells[0]
        return not torch.equal(cell(x, h, c)[0], cell(x, h, 2 * c)[0])

    def gates_read_c(version):
        cell = frozen_model("PredRNN++", version).cells[0]
        cell(x, h, c, zero)[1].sum().backward()
        return bool(cell.of_cell.weight.grad.any())

    for reads in (output_follows_c, gates_read_c):
        assert [reads(version) for version in ("v0.3.0", "corrected")] == [False, True]


def test_stochastic_depth_falls_from_block_to_block_and_only_in_training():
    model = build_model(ModelConfig(model="TAU", baseline_width=1 / 32), SMALL)
    kept = model.translator.draw(100_000, torch.Generator().manual_seed(0)).flatten(1)
    dropped = (kept == 0).float().mean(1)
    # As the benchmark's linspace(1e-2, 0, 8) has them.
    probabilities = torch.tensor([0.0100, 0.0086, 0.0071, 0.0057, 0.0043, 0.0029, 0.0014, 0.0])
    torch.testing.assert_close(dropped, probabilities, atol=8e-4, rtol=0)
    assert dropped[-1] == 0
    torch.testing.assert_close(kept.mean(1), torch.ones(8), atol=1e-3, rtol=0)
    model, (context, target) = frozen_model("TAU"), parts(frozen_clip(), SHAPE)
    assert model.training_loss(context, target, sampling_step()) == model.training_loss(context, target, LATE)
    model.train()
    losses = [model.training_loss(context, target, step).item() for step in (sampling_step(), sampling_step(), LATE)]
    assert losses[0] == losses[1] != losses[2]
