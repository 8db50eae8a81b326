"""Training steps beside those of the supplement's listing."""

import copy
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.frames import embedded_clips
from benchmarks.harness import REPOSITORY, BenchmarkOptions, Timing, in_turn
from stlight.config import RunConfig
from stlight.experiments import load_plan
from stlight.kernels import backend_of
from stlight.kernels.whole_step import FlatAdam
from stlight.model import build_model
from stlight.training.devices import accelerate_for_run, configure


def step_cases() -> Iterator[tuple[str, RunConfig, int | None, str]]:
    """Yield name, configuration, threads (None: as on the command line) and target."""
    demo, small = (load_plan(REPOSITORY / "workflow", scale, Path("nowhere")) for scale in ("demo", "small"))
    wide = {"hidden_dim": 64, "depth": 8, "patch_size": 2, "batch_size": 16}
    yield "step d 64, de 8, p 2, k (3, 7), 16 clips", RunConfig.from_fields(wide), None, "14× (18×)"
    yield "step d 64, de 8, p 2, k (11, 11), 16 clips", RunConfig.from_fields({**wide, "k1": 11, "k2": 11}), None, "30× (40×)"
    for name, plan in (("demo", demo), ("small", small)):
        base = plan.run("mmnist/stlight_l/seed0")
        model, clips = base.model, base.training.batch_size
        label = f"step {name}: d {model.hidden_dim}, de {model.depth}, p {model.patch_size}, {clips} clips"
        yield label, base, 1, "9× (12×)"
    fields = {"hidden_dim": 32, "depth": 6, "patch_size": 4, "batch_size": 16}
    yield "step d 32, de 6, p 4, 16 clips", RunConfig.from_fields(fields), None, "8× (12×)"
    yield "step STLight-L: d 1400, de 16, 1 clip", RunConfig.from_fields({"batch_size": 1}), None, "3.4× (4×)"


def steps(options: BenchmarkOptions) -> Iterator[Timing]:
    """Compare a training step of the listing, in plain eager PyTorch with plain Adam, with the step of a run."""
    for name, config, threads, target in step_cases():
        if options.quick:
            config = config.model_copy(update={"model": config.model.model_copy(update={"hidden_dim": 16, "depth": 2})})
        threads = threads or options.threads
        torch.set_num_threads(threads)
        configure(config.training)
        # Unaccelerated, the model is the listing of Section G as it is printed.
        listing = build_model(config.model, config.clip_shape).to(options.device).train()
        ours = copy.deepcopy(listing)
        accelerate_for_run(ours, config, torch.device(options.device))
        kernels = backend_of(ours)
        clips = embedded_clips(config.data.downsampling)
        clip = clips.clips("train", torch.arange(config.training.batch_size)).to(options.device)
        reference = partial(take_adam_step, listing, torch.optim.Adam(listing.parameters()), clip)
        check_agreement(ours, listing, clip)
        run_step = partial(take_adam_step, ours, FlatAdam(ours), clip)
        if options.quick:
            yield Timing(name, note=f"equal ({kernels})")
            continue
        times = in_turn(reference, run_step, budget=15, device=options.device)
        yield Timing(f"{name}, {threads} thread{'s' * (threads > 1)}", *times, times[0] / times[1], target, kernels)


def loss_of(model: torch.nn.Module, clip: torch.Tensor) -> torch.Tensor:
    """Return the loss on a clip (B, 20, C, H, W), and add its gradients."""
    loss = F.mse_loss(model(clip[:, :10]), clip[:, 10:])
    loss.backward()
    return loss.detach()


def take_adam_step(model: torch.nn.Module, optimizer: torch.optim.Optimizer, clip: torch.Tensor) -> None:
    """Take a training step."""
    optimizer.zero_grad()
    loss_of(model, clip)
    optimizer.step()


def check_agreement(ours: torch.nn.Module, listing: torch.nn.Module, clip: torch.Tensor) -> None:
    """Raise `AssertionError` unless both models have the same loss and gradients."""
    torch.testing.assert_close(loss_of(ours, clip), loss_of(listing, clip), rtol=1e-5, atol=0)
    for (name, mine), theirs in zip(ours.named_parameters(), listing.parameters(), strict=True):
        # This bias goes into a BatchNorm: its gradient is zero but for rounding.
        if name != "patch_encoder.0.bias":
            error = (mine.grad - theirs.grad).norm() / theirs.grad.norm()  # type: ignore[operator, union-attr]
            assert error < 1e-3, f"gradients of {name} differ by {error:.1e}"
