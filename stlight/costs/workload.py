"""A training step and a prediction on clips of noise, ready to be timed."""

import time
from collections.abc import Callable

import torch

from stlight.config import RunConfig
from stlight.kernels import accelerate, backend_of
from stlight.model import build_model
from stlight.training.devices import accelerate_for_run, configure
from stlight.training.loop import flatten_weights, predictor, take_step


class Workload:
    """The model and optimizer of a run, and `clips` clips of noise on `device`."""

    def __init__(self, config: RunConfig, device: torch.device, clips: int, parts: int = 1, race: bool = True) -> None:
        """Build the model. A step computes its batch in `parts` parts. `race` times the kernels if the run names none."""
        shape, self.recipe, self.device, self.parts = config.clip_shape, config.training, device, parts
        configure(self.recipe)
        self.model = build_model(config.model, shape).to(device)
        if race:
            accelerate_for_run(self.model, config, device)
        else:
            accelerate(self.model, self.recipe.kernels)
        self.kernels = backend_of(self.model)
        # A learning rate of 0 keeps the initial weights, so that every step does the same work.
        self.optimizer = torch.optim.Adam([flatten_weights(self.model)], lr=0.0, fused=True)
        size = (clips, shape.context_frames + shape.horizon_frames, shape.channels, shape.height, shape.width)
        self.clip = torch.rand(size, generator=torch.Generator().manual_seed(0)).to(device)
        self.num_context = shape.context_frames

    def step(self) -> None:
        """Compute a training step on all clips."""
        take_step(self.model.train(), self.optimizer, self.clip, self.num_context, self.recipe, self.parts)

    @torch.no_grad()
    def predict(self) -> None:
        """Predict all clips."""
        predictor(self.model, self.device, self.recipe)(self.clip[:, : self.num_context])

    def seconds(self, function: Callable[[], object], calls: int = 1) -> float:
        """Return the mean seconds of a call, including the work that it starts on the device."""
        started = time.perf_counter()
        for _ in range(calls):
            function()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return (time.perf_counter() - started) / calls
