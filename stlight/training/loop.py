"""The training loop: Adam, OneCycle by step, mean squared error. Read it top to bottom."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stlight.config import RunConfig, TrainingConfig
from stlight.data.clips import Clips, Split
from stlight.training.devices import autocast
from stlight.training.evaluation import Predictor, evaluate
from stlight.training.schedule import one_cycle

# An epoch whose mean loss is this many times the loss of the very first batch has exploded.
EXPLOSION = 1000.0

Row = dict[str, Any]


@dataclass
class Training:
    """What training leaves: a row of history for each epoch, and whether the loss stayed finite."""

    history: list[Row] = field(default_factory=list)
    diverged: bool = False

    def best(self, column: str) -> Row:
        """The epoch with the least of a column, the first of equals; epochs without a number come last."""
        return min(self.history, key=lambda row: row[column] if math.isfinite(row[column]) else math.inf)


def train(
    model: nn.Module,
    dataset: Clips,
    config: RunConfig,
    *,
    on_epoch: Callable[[Row], None] = lambda row: None,
) -> Training:
    """Train `model` in place on the data set's device and evaluate after every epoch; `on_epoch` is told each epoch's row.

    A row holds epoch (from 1), learning_rate (of its last step), train_loss (mean over its steps of the squared error per
    element), validation_* and test_* metrics, and seconds of training and evaluation. Training ends early, diverged, when the
    loss or the error after an epoch is not finite, or the loss has exploded.
    """
    recipe, device = config.training, dataset.device
    num_context = config.clip_shape.context_frames
    weights = flatten_weights(model)
    optimizer = torch.optim.Adam([weights], lr=recipe.max_lr, fused=True)
    schedule = one_cycle(
        optimizer,
        max_lr=recipe.max_lr,
        final_div_factor=recipe.final_div_factor,
        total_steps=recipe.num_epochs * config.steps_per_epoch,
    )
    held_out: list[tuple[Split, int]] = [("validation", config.data.validation_clips), ("test", config.data.test_clips)]
    if recipe.cuda_graphs and device.type == "cuda":
        _record_graph(model, config, device)
    result = Training()
    first_loss = math.inf

    for epoch in range(1, recipe.num_epochs + 1):
        started = time.perf_counter()
        model.train()
        losses: list[Tensor] = []
        for clip in _batches(dataset, config, epoch):
            losses.append(take_step(model, optimizer, clip, num_context, recipe))
            learning_rate = schedule.get_last_lr()[0]
            schedule.step()

        # The only place that waits for the device: the losses of a whole epoch at once.
        epoch_losses = torch.stack(losses).tolist()
        train_loss = sum(epoch_losses) / len(epoch_losses)
        if epoch == 1:
            first_loss = epoch_losses[0]
        trained = time.perf_counter()

        row: Row = {"epoch": epoch, "learning_rate": learning_rate, "train_loss": train_loss}
        for split, num_clips in held_out:
            scores = evaluate(predictor(model, device, recipe), dataset, split, num_clips, num_context)
            row |= {f"{split}_{name}": value for name, value in scores.items()}
        row |= {"train_seconds": trained - started, "evaluation_seconds": time.perf_counter() - trained}
        result.history.append(row)
        on_epoch(row)

        # The training loss of an epoch is older than its last step, so what the weights have become is seen in the evaluation.
        if (
            not all(map(math.isfinite, (train_loss, row["validation_mse"], row["test_mse"])))
            or train_loss > EXPLOSION * first_loss
        ):
            result.diverged = True
            break
    return result


def take_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, clip: Tensor, num_context: int, recipe: TrainingConfig
) -> Tensor:
    """One step on a batch of clips (B, T + T', C, H, W); gives its loss without waiting for the device."""
    context, target = clip[:, :num_context], clip[:, num_context:]
    with autocast(clip.device, recipe):
        loss = F.mse_loss(model(context).float(), target)
    # Kept and filled with zeros, for the gradients are views of one tensor.
    optimizer.zero_grad(set_to_none=False)
    loss.backward()
    optimizer.step()
    return loss.detach()


def flatten_weights(model: nn.Module) -> nn.Parameter:
    """All weights of a model as one parameter, of which the model's own are views; so are their gradients.

    An optimizer that works element by element does the same to it, at the cost of one weight instead of a hundred.
    """
    parameters = list(model.parameters())
    flat = nn.Parameter(torch.cat([p.detach().flatten() for p in parameters]))
    flat.grad = torch.zeros_like(flat)
    sizes = [p.numel() for p in parameters]
    for parameter, values, gradient in zip(parameters, flat.detach().split(sizes), flat.grad.split(sizes), strict=True):
        parameter.data, parameter.grad = values.view_as(parameter), gradient.view_as(parameter)
    return flat


def predictor(model: nn.Module, device: torch.device, recipe: TrainingConfig) -> Predictor:
    """The model for evaluation, in the precision it is trained in; only its own computation is, not the clips it is given."""
    model.eval()

    def predict(context: Tensor) -> Tensor:
        with autocast(device, recipe):
            return model(context)

    return predict


# Clips are made several batches at a time, up to this many bytes: they are the same however many are asked for at once.
_BYTES_AT_ONCE = 2**24


def _batches(dataset: Clips, config: RunConfig, epoch: int) -> Iterator[Tensor]:
    """The clips of an epoch in their order; the last incomplete batch is dropped. Clips differ from epoch to epoch."""
    batch_size, shape = config.training.batch_size, config.clip_shape
    frames = shape.context_frames + shape.horizon_frames
    bytes_per_batch = 4 * batch_size * frames * shape.channels * shape.height * shape.width
    at_once = batch_size * max(1, _BYTES_AT_ONCE // bytes_per_batch)
    for index in torch.arange(config.steps_per_epoch * batch_size, device=dataset.device).split(at_once):
        yield from dataset.clips("train", index, epoch).split(batch_size)


def _record_graph(model: nn.Module, config: RunConfig, device: torch.device) -> None:
    """Make training steps replay recorded CUDA kernels. Recording runs the model, so what it moves is put back."""
    shape = config.clip_shape
    clip = torch.zeros(
        config.training.batch_size, shape.context_frames, shape.channels, shape.height, shape.width, device=device
    )
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    with autocast(device, config.training):
        torch.cuda.make_graphed_callables(model, (clip,))
    model.load_state_dict(state)
