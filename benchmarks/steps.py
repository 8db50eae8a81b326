"""Training steps beside those of the supplement's listing."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.nn.functional as F

from benchmarks.frames import embedded_clips
from benchmarks.harness import REPOSITORY, Options, Row, in_turn
from stlight.config import RunConfig
from stlight.experiments import load_plan
from stlight.kernels import backend_of
from stlight.model import build_model
from stlight.registry.dataset_specs import DATASETS
from stlight.training.devices import accelerate_for_run, configure
from stlight.training.loop import flatten_weights

SHAPE = DATASETS["mmnist"].shape


def step_cases() -> Iterator[tuple[str, RunConfig, int | None, str]]:
    """Yield name, configuration, threads (None: as on the command line) and target."""
    demo, small = (load_plan(REPOSITORY / "workflow", scale, Path("nowhere")) for scale in ("demo", "small"))
    wide = {"hidden_dim": 64, "depth": 8, "patch_size": 2, "batch_size": 16}
    yield "step d 64, de 8, p 2, k (3, 7), 16 clips", RunConfig.from_fields(wide), None, "8× (12×)"
    yield "step d 64, de 8, p 2, k (11, 11), 16 clips", RunConfig.from_fields({**wide, "k1": 11, "k2": 11}), None, "20× (33×)"
    for name, plan in (("demo", demo), ("small", small)):
        base = plan.run("mmnist/stlight_l/seed0")
        model, clips = base.model, base.training.batch_size
        label = f"step {name}: d {model.hidden_dim}, de {model.depth}, p {model.patch_size}, {clips} clips"
        yield label, base, 1, "5× (8×)"
    fields = {"hidden_dim": 32, "depth": 6, "patch_size": 4, "batch_size": 16}
    yield "step d 32, de 6, p 4, 16 clips", RunConfig.from_fields(fields), None, "5× (8×)"
    yield "step STLight-L: d 1400, de 16, 1 clip", RunConfig.from_fields({"batch_size": 1}), None, "2.2× (2.8×)"


def steps(options: Options) -> Iterator[Row]:
    """Compare a training step of the listing, in plain eager PyTorch with plain Adam, with the step of a run."""
    for name, config, threads, target in step_cases():
        if options.quick:
            config = config.model_copy(update={"model": config.model.model_copy(update={"hidden_dim": 16, "depth": 2})})
        threads = threads or options.threads
        torch.set_num_threads(threads)
        reference, ours, check, kernels = step_sides(config, options.device)
        check()
        if options.quick:
            yield Row(name, note=f"equal ({kernels})")
            continue
        times = in_turn(reference, ours, budget=15, device=options.device)
        yield Row(f"{name}, {threads} thread{'s' * (threads > 1)}", *times, times[0] / times[1], target, kernels)


def step_sides(config: RunConfig, device: str) -> tuple[Callable[[], None], Callable[[], None], Callable[[], None], str]:
    """Return a step of the listing, a run's step, a check that both have the same loss and gradients, and the run's kernels."""
    model, training = config.model, config.training
    configure(training)
    ours = build_model(model, SHAPE).to(device).train()
    # Unaccelerated, the model is the listing of Section G as it is printed.
    listing = copy.deepcopy(ours)
    clip = embedded_clips().clips("train", torch.arange(training.batch_size)).to(device)
    context, target = clip[:, :10], clip[:, 10:]
    accelerate_for_run(ours, config, torch.device(device))
    adam = torch.optim.Adam(listing.parameters())
    fused_adam = torch.optim.Adam([flatten_weights(ours)], fused=True)

    def loss_of(net: torch.nn.Module) -> torch.Tensor:
        loss = F.mse_loss(net(context), target)
        loss.backward()
        return loss.detach()

    def reference_step() -> None:
        adam.zero_grad()
        loss_of(listing)
        adam.step()

    def our_step() -> None:
        fused_adam.zero_grad(set_to_none=False)
        loss_of(ours)
        fused_adam.step()

    def check() -> None:
        losses = loss_of(ours), loss_of(listing)
        torch.testing.assert_close(*losses, rtol=1e-5, atol=0)
        for mine, theirs in zip(ours.parameters(), listing.parameters(), strict=True):
            if mine is not ours.patch_encoder[0].bias:  # type: ignore[index, union-attr]
                error = (mine.grad - theirs.grad).norm() / theirs.grad.norm()  # type: ignore[operator, union-attr]
                assert error < 1e-3, f"gradients differ by {error:.1e}"

    return reference_step, our_step, check, backend_of(ours)
