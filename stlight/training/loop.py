"""The training loop: Adam, a schedule by step, the loss that the model states. Read it top to bottom."""

import math
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stlight.config import RunConfig, TrainingConfig
from stlight.data.clips import Clips, Split
from stlight.model import Forecaster, Moment
from stlight.training.checkpoint import State
from stlight.training.devices import autocast
from stlight.training.evaluation import Predictor, evaluate
from stlight.training.schedule import build_schedule

# An epoch whose mean loss is this many times the loss of the very first batch has exploded.
EXPLOSION = 1000.0

Row = dict[str, Any]


class Training:
    """A training under way: all that what follows depends on. It can be stopped after any step, and go on from its state."""

    def __init__(self, model: Forecaster, config: RunConfig, accumulation_steps: int = 1) -> None:
        recipe = config.training
        self.model, self.config = model, config
        self.accumulation_steps = accumulation_steps
        self.optimizer = torch.optim.Adam([flatten_weights(model)], lr=recipe.max_lr, fused=True)
        self.schedule = build_schedule(self.optimizer, recipe, config.steps_per_epoch)
        self.epoch = 1
        """The epoch under way, from 1; one more than there are when all are over."""
        self.step = 0
        """Steps done in it."""
        self.losses: list[Tensor] = []
        """Their losses."""
        self.learning_rate = math.nan
        """Of the last step."""
        self.seconds = 0.0
        """Spent on the epoch's steps so far."""
        self.first_loss = math.inf
        """Of the very first step."""
        self.history: list[Row] = []
        """A row for each finished epoch."""
        self.diverged = False
        """Whether the loss did not stay finite, which ends the training."""

    def best(self, column: str) -> Row:
        """The epoch with the least of a column, the first of equals; epochs without a number come last."""
        return min(self.history, key=lambda row: row[column] if math.isfinite(row[column]) else math.inf)

    def state(self) -> State:
        """Everything, for a checkpoint: tensors on the CPU by name, and facts for JSON."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer["state"].get(0, {}).items()}
        tensors |= {"losses": torch.stack(self.losses)} if self.losses else {}
        tensors |= {"random.cpu": torch.get_rng_state()}
        tensors |= {"random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
        facts = {name: getattr(self, name) for name in _FACTS}
        facts |= {"optimizer": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}, facts

    def go_on_from(self, state: State) -> None:
        """Take over a state. Raises `ValueError` or `KeyError` if it is another model's."""
        tensors, facts = state
        device = next(self.model.parameters()).device
        try:
            self.model.load_state_dict(_under("model", tensors))
        except RuntimeError as error:
            raise ValueError(f"holds another model: {error}") from error
        groups = [group | {"betas": tuple(group["betas"])} for group in facts["optimizer"]]
        moments = _under("optimizer", tensors)
        self.optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": groups})
        self.schedule.load_state_dict(facts["schedule"])
        self.losses = list(tensors["losses"].to(device)) if "losses" in tensors else []
        for name in _FACTS:
            setattr(self, name, facts[name])
        torch.set_rng_state(tensors["random.cpu"])
        if device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])


_FACTS = ("epoch", "step", "learning_rate", "seconds", "first_loss", "history", "diverged", "accumulation_steps")


def train(
    training: Training,
    dataset: Clips,
    *,
    on_epoch: Callable[[Row], None] = lambda row: None,
    at_safe_point: Callable[[bool], None] = lambda epoch_ended: None,
) -> Training:
    """Train to the end on the data set's device and evaluate after every epoch; `on_epoch` is told each epoch's row.

    A row holds epoch (from 1), learning_rate (of its last step), train_loss (mean over its steps of what is minimized: the
    squared error per element, where the model says nothing else), validation_* and test_* metrics, and seconds of training
    and evaluation. Training ends early, diverged, when the loss or the error after an epoch is not finite, or the loss has
    exploded.
    `at_safe_point` is called wherever the training may be saved or left, and told whether an epoch has just ended.
    """
    model, config, recipe, device = training.model, training.config, training.config.training, dataset.device
    num_context = config.clip_shape.context_frames
    held_out: list[tuple[Split, int]] = [("validation", config.data.validation_clips), ("test", config.data.test_clips)]
    if recipe.cuda_graphs and device.type == "cuda":
        _record_graph(model, config, training.accumulation_steps, device)

    while training.epoch <= recipe.num_epochs and not training.diverged:
        started = time.perf_counter() - training.seconds
        model.train()
        for clip in _batches(dataset, config, training.epoch, first_step=training.step):
            done = (training.epoch - 1) * config.steps_per_epoch + training.step
            moment = Moment.at(done, recipe.sampling_steps, config.seed)
            training.losses.append(
                take_step(model, training.optimizer, clip, num_context, recipe, training.accumulation_steps, moment)
            )
            training.learning_rate = float(training.schedule.get_last_lr()[0])
            training.schedule.step()
            training.step += 1
            training.seconds = time.perf_counter() - started
            at_safe_point(False)

        # The only place that waits for the device: the losses of a whole epoch at once.
        epoch_losses = torch.stack(training.losses).tolist()
        train_loss = sum(epoch_losses) / len(epoch_losses)
        if training.epoch == 1:
            training.first_loss = epoch_losses[0]
        training.seconds = time.perf_counter() - started

        row: Row = {"epoch": training.epoch, "learning_rate": training.learning_rate, "train_loss": train_loss}
        predict = _with_safe_points(predictor(model, device, recipe), at_safe_point)
        evaluation_started = time.perf_counter()
        for split, num_clips in held_out:
            scores = evaluate(predict, dataset, split, num_clips, num_context, with_lpips=recipe.lpips)
            row |= {f"{split}_{name}": value for name, value in scores.items()}
        row |= {"train_seconds": training.seconds, "evaluation_seconds": time.perf_counter() - evaluation_started}

        # The training loss of an epoch is older than its last step, so what the weights have become is seen in the evaluation.
        training.diverged = (
            not all(map(math.isfinite, (train_loss, row["validation_mse"], row["test_mse"])))
            or train_loss > EXPLOSION * training.first_loss
        )
        training.history.append(row)
        training.epoch, training.step, training.losses, training.seconds = training.epoch + 1, 0, [], 0.0
        on_epoch(row)
        at_safe_point(True)
    return training


def take_step(
    model: Forecaster,
    optimizer: torch.optim.Optimizer,
    clip: Tensor,
    num_context: int,
    recipe: TrainingConfig,
    accumulation_steps: int = 1,
    moment: Moment | None = None,
) -> Tensor:
    """One step on a batch of clips (B, T + T', C, H, W); gives its loss without waiting for the device.

    `moment` says which step of the training it is, by default the first.

    The batch is computed in so many equal parts one after the other. The loss and its gradients are those of the whole batch;
    BatchNorm takes the statistics of each part, and scheduled sampling draws for each.
    """
    # Kept and filled with zeros, for the gradients are views of one tensor.
    optimizer.zero_grad(set_to_none=False)
    losses = []
    moment = moment or Moment.at(0, recipe.sampling_steps, seed=0)
    for part in clip.chunk(accumulation_steps):
        context, target = part[:, :num_context], part[:, num_context:]
        with autocast(clip.device, recipe):
            loss = model.training_loss(context, target, moment)
        (loss / accumulation_steps if accumulation_steps > 1 else loss).backward()
        losses.append(loss.detach())
    optimizer.step()
    return losses[0] if accumulation_steps == 1 else torch.stack(losses).mean()


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


def _with_safe_points(predict: Predictor, at_safe_point: Callable[[bool], None]) -> Predictor:
    """Between the batches of an evaluation, too, which may take longer than a scheduler's warning gives."""

    def predict_next(context: Tensor) -> Tensor:
        at_safe_point(False)
        return predict(context)

    return predict_next


# Clips are made several batches at a time, up to this many bytes: they are the same however many are asked for at once.
_BYTES_AT_ONCE = 2**24


def _batches(dataset: Clips, config: RunConfig, epoch: int, first_step: int = 0) -> Iterator[Tensor]:
    """The clips of an epoch in their order, from a step on; the last incomplete batch is dropped. Every epoch has others."""
    batch_size, shape = config.training.batch_size, config.clip_shape
    frames = shape.context_frames + shape.horizon_frames
    bytes_per_batch = 4 * batch_size * frames * shape.channels * shape.height * shape.width
    at_once = batch_size * max(1, _BYTES_AT_ONCE // bytes_per_batch)
    clips = torch.arange(first_step * batch_size, config.steps_per_epoch * batch_size, device=dataset.index_device)
    indices = clips.split(at_once) if len(clips) else ()
    for several in dataset.batches("train", indices, epoch):
        yield from several.split(batch_size)


def _record_graph(model: nn.Module, config: RunConfig, accumulation_steps: int, device: torch.device) -> None:
    """Make training steps replay recorded CUDA kernels. Recording runs the model, so what it moves is put back."""
    shape = config.clip_shape
    clip = torch.zeros(
        config.training.batch_size // accumulation_steps,
        shape.context_frames,
        shape.channels,
        shape.height,
        shape.width,
        device=device,
    )
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    with autocast(device, config.training):
        torch.cuda.make_graphed_callables(model, (clip,))
    model.load_state_dict(state)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
