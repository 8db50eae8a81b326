"""Training steps of the baselines beside those of the plain models."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch

from benchmarks.harness import REPOSITORY, BenchmarkOptions, Timing, in_turn
from stlight.config import RunConfig
from stlight.experiments import load_plan
from stlight.kernels import accelerate, backend_of
from stlight.kernels.whole_step import FlatAdam
from stlight.model import Forecaster, TrainingStep, build_model
from stlight.training.devices import configure
from stlight.training.loop import take_step

# The six that take longest, longest first.
SLOWEST = ("E3D-LSTM", "PredRNN++", "MIM", "PhyDNet", "PredRNN.V2", "PredNet")


def baselines(options: BenchmarkOptions) -> Iterator[Timing]:
    """Compare a training step of the slowest baselines at scale small, plain and accelerated, both with fused Adam.

    A learning rate of 0 keeps the initial weights, so that every step does the same work.
    """
    plan = load_plan(REPOSITORY / "workflow", "small", Path("nowhere"))
    variants = {variant.config.model.model: variant.config for variant in plan.experiments["table2_openstl"].variants}
    torch.set_num_threads(1)
    for name in SLOWEST:
        config = variants[name]
        configure(config.training)
        plain = build_model(config.model, config.clip_shape).train()
        ours = accelerate(copy.deepcopy(plain))
        shape, clips = config.clip_shape, 2 if options.quick else config.training.batch_size
        frames = shape.context_frames + shape.horizon_frames
        clip = torch.rand((clips, frames, *shape[2:]), generator=torch.Generator().manual_seed(0))
        check_agreement(ours, plain, clip, config)
        label = f"step small: {name}, {clips} clips"
        if options.quick:
            yield Timing(label, note=f"equal ({backend_of(ours)})")
            continue
        steps = [partial(_take_step, model, FlatAdam(model, lr=0.0), clip, config) for model in (plain, ours)]
        times = in_turn(*steps, budget=15)
        yield Timing(f"{label}, 1 thread", *times, times[0] / times[1], "1.5× (3×)", backend_of(ours))


def check_agreement(ours: Forecaster, plain: Forecaster, clip: torch.Tensor, config: RunConfig) -> None:
    """Raise `AssertionError` unless both models have the same loss and gradients, in the midst of scheduled sampling."""
    losses, gradients, num_context = [], [], config.clip_shape.context_frames
    for model in (ours, plain):
        step = TrainingStep.at(config.training.sampling_steps // 2, config.training.sampling_steps, seed=0)
        loss = model.training_loss(clip[:, :num_context], clip[:, num_context:], step)
        loss.backward()
        losses.append(loss.detach())
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None and p.grad.any()]))
        model.zero_grad()
    torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
    error = (gradients[0] - gradients[1]).norm() / gradients[1].norm()
    assert error < 1e-4, f"gradients differ by {error:.1e}"


def _take_step(model: Forecaster, optimizer: torch.optim.Optimizer, clip: torch.Tensor, config: RunConfig) -> None:
    take_step(model, optimizer, clip, config.clip_shape.context_frames, config.training)
