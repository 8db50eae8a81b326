"""Core seconds until the base model of a scale has learnt: what users pay for."""

import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.frames import embedded_clips
from benchmarks.harness import REPOSITORY, BenchmarkOptions, Timing, in_turn
from benchmarks.steps import take_adam_step
from stlight.experiments import load_plan
from stlight.kernels import backend_of
from stlight.model import build_model
from stlight.training.devices import accelerate_for_run, configure
from stlight.training.loop import Training, train

# Test MSE per frame of 64×64 pixels. The scales' frames are half as high and wide: a fourth of it.
LEARNT = 120.0


class _Learnt(BaseException):
    """Raised after an epoch to end the training, because the test MSE is low enough."""


def learning(options: BenchmarkOptions) -> Iterator[Timing]:
    """Train the base of demo and of small until its test MSE is `LEARNT`; the listing would take as many steps.

    Seconds are of the processor, with evaluation and drawing of clips. For the listing, that of its steps replaces ours.
    """
    torch.set_num_threads(1)
    device = torch.device("cpu")
    for scale in ("demo", "small"):
        config = load_plan(REPOSITORY / "workflow", scale, Path("nowhere")).run("mmnist/stlight_l/seed0")
        configure(config.training)
        clips = embedded_clips(config.data.downsampling)
        batch = clips.clips("train", torch.arange(config.training.batch_size))
        listing = build_model(config.model, config.clip_shape).train()
        model = build_model(config.model, config.clip_shape, config.seed)
        accelerate_for_run(model, config, device)
        training, enough = Training(model, config), LEARNT / config.data.downsampling**2

        def stop(row: dict[str, Any], enough: float = enough) -> None:
            if row["test_mse"] <= enough or options.quick:
                raise _Learnt

        started = time.process_time()
        try:
            train(training, clips, on_epoch=stop)
        except _Learnt:
            seconds = time.process_time() - started
            steps = len(training.history) * config.steps_per_epoch
            name = f"test MSE {enough:g} on {scale}'s base"
            if options.quick:
                yield Timing(name, note="trains")
                continue
            mine = partial(take_adam_step, model.train(), training.optimizer, batch)
            reference, ours = in_turn(
                partial(take_adam_step, listing, torch.optim.Adam(listing.parameters()), batch), mine, budget=5
            )
            theirs = seconds + steps * (reference - ours)
            note = f"core time, {steps} of {config.num_steps} steps, {backend_of(model)}"
            yield Timing(name, theirs, seconds, theirs / seconds, note=note)
        else:
            yield Timing(f"test MSE {enough:g} on {scale}'s base", note=f"not reached: {training.history[-1]['test_mse']:.1f}")
