"""The training loop and evaluation: Adam, a schedule stepped once per batch, and the loss that the model defines."""

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from stlight.config import RunConfig, TrainingConfig
from stlight.data.clips import Clips, Split
from stlight.kernels.whole_step import record_step
from stlight.metrics import all_metrics
from stlight.model import Forecaster, TrainingStep
from stlight.training.checkpoint import State
from stlight.training.devices import autocast
from stlight.training.phases import index_of_phase, start_phase

# Rows of losses.csv at most: enough for a curve, few enough for thousands of runs.
LOSS_ROWS = 500

# The loss has exploded if its mean over an epoch is this many times that of the very first batch.
EXPLOSION = 1000.0

# Number of clips scored at once. Metrics are means over clips, so this changes no result beyond rounding.
_CLIPS_AT_ONCE = 16

# Several batches of clips are drawn at once, up to this many bytes. The clips do not depend on how many.
_BYTES_AT_ONCE = 2**24

Row = dict[str, Any]
Predictor = Callable[[Tensor], Tensor]


class Training:
    """State of a training run: all that its remaining steps depend on. It can be saved and loaded after any step."""

    def __init__(self, model: Forecaster, config: RunConfig, accumulation_steps: int = 1) -> None:
        self.model, self.config = model, config
        self.accumulation_steps = accumulation_steps
        self.phases = model.phases(config.training.num_epochs)
        self.epoch = 1  # the current one; num_epochs + 1 at the end
        self.step = 0  # steps done in this epoch
        self.losses: list[Tensor] = []  # of these steps
        self.learning_rate = math.nan  # at the last step
        self.seconds = 0.0  # wall time of the epoch's steps so far
        self.first_loss = math.inf  # of the very first step
        self.history: list[Row] = []  # one row for each finished epoch
        self.loss_rows: list[Row] = []  # mean loss of equally many steps, up to `step`
        self.pending_losses: list[float] = []  # of steps that do not fill a row yet
        self.diverged = False  # True if the loss became infinite or NaN, or exploded, which ends the training
        self.start_phase()

    @property
    def phase(self) -> int:
        """Return the index of the phase that the current epoch belongs to."""
        return index_of_phase(self.phases, self.epoch)

    def start_phase(self) -> None:
        """Start Adam and the schedule of the current phase."""
        self.optimizer, self.schedule = start_phase(self.model, self.phases, self.phase, self.config)

    @property
    def steps_per_loss_row(self) -> int:
        """Return the number of steps whose mean loss is one row: the fewest that give `LOSS_ROWS` rows at most."""
        return math.ceil(self.config.num_steps / LOSS_ROWS)

    def keep_losses(self, losses: list[float]) -> None:
        """Add the losses of consecutive steps to `loss_rows`, thinned."""
        for loss in losses:
            self.pending_losses.append(loss)
            if len(self.pending_losses) == self.steps_per_loss_row:
                mean = sum(self.pending_losses) / self.steps_per_loss_row
                self.loss_rows.append({"step": (len(self.loss_rows) + 1) * self.steps_per_loss_row, "train_loss": mean})
                self.pending_losses = []

    def best(self, column: str) -> Row:
        """Return the row with the least value in a column, the first among equals; NaN and infinity come last."""
        return min(self.history, key=lambda row: row[column] if math.isfinite(row[column]) else math.inf)

    def state_dict(self) -> State:
        """Return copies of all tensors on the CPU by name, and everything else as facts for JSON."""
        optimizer = self.optimizer.state_dict()
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"optimizer.{name}": tensor for name, tensor in optimizer["state"].get(0, {}).items()}
        tensors |= {"losses": torch.stack(self.losses)} if self.losses else {}
        tensors |= {"random.cpu": torch.get_rng_state()}
        tensors |= {"random.cuda": torch.cuda.get_rng_state()} if torch.cuda.is_initialized() else {}
        facts = {name: getattr(self, name) for name in _FACTS}
        facts |= {"optimizer": optimizer["param_groups"], "schedule": self.schedule.state_dict()}
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}, facts

    def load_state_dict(self, state: State) -> None:
        """Resume from a state. Raises `ValueError` or `KeyError` if it belongs to another model."""
        tensors, facts = state
        device = next(self.model.parameters()).device
        try:
            self.model.load_state_dict(_under("model", tensors))
        except RuntimeError as error:
            raise ValueError(f"holds another model: {error}") from error
        for name in _FACTS:
            setattr(self, name, facts[name])
        self.start_phase()
        groups = [group | {"betas": tuple(group["betas"])} for group in facts["optimizer"]]
        moments = _under("optimizer", tensors)
        self.optimizer.load_state_dict({"state": {0: moments} if moments else {}, "param_groups": groups})
        self.schedule.load_state_dict(facts["schedule"])
        self.losses = list(tensors["losses"].to(device)) if "losses" in tensors else []
        torch.set_rng_state(tensors["random.cpu"])
        if device.type == "cuda" and "random.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["random.cuda"])


_FACTS = (
    *("epoch", "step", "learning_rate", "seconds", "first_loss", "history", "loss_rows", "pending_losses", "diverged"),
    "accumulation_steps",
)


def train(
    training: Training,
    dataset: Clips,
    *,
    on_epoch: Callable[[Row], None] = lambda row: None,
    at_safe_point: Callable[[bool], None] = lambda epoch_ended: None,
) -> Training:
    """Train to the end on the data set's device, evaluate after every epoch, and call `on_epoch` with its row.

    A row of the history holds epoch (from 1), learning_rate (at the last step), train_loss (mean over the steps of the loss,
    by default the squared error per element), validation_* and test_* metrics, and seconds of training and evaluation.
    Training ends early, diverged, if the loss or an error after an epoch is not finite, or if the loss explodes.
    `at_safe_point` is called wherever the training may be saved or left, with True if an epoch has just ended.
    """
    model, config, recipe, device = training.model, training.config, training.config.training, dataset.device
    num_context = config.clip_shape.context_frames
    held_out: list[tuple[Split, int]] = [("validation", config.data.validation_clips), ("test", config.data.test_clips)]
    recorded = _record(training, num_context, device) if recipe.cuda_graphs and device.type == "cuda" else None

    while training.epoch <= recipe.num_epochs and not training.diverged:
        started = time.perf_counter() - training.seconds
        model.train()
        for clip in _batches(dataset, config, training.epoch, first_step=training.step):
            done = (training.epoch - 1) * config.steps_per_epoch + training.step
            step = TrainingStep.at(done, recipe.sampling_steps, config.seed, training.phase)
            if recorded:
                training.losses.append(recorded(clip))
                training.optimizer.step()
            else:
                training.losses.append(
                    take_step(model, training.optimizer, clip, num_context, recipe, training.accumulation_steps, step)
                )
            training.learning_rate = float(training.schedule.get_last_lr()[0])
            training.schedule.step()
            training.step += 1
            training.seconds = time.perf_counter() - started
            at_safe_point(False)

        # Losses are read once per epoch, because reading waits for the device.
        epoch_losses = torch.stack(training.losses).tolist()
        train_loss = sum(epoch_losses) / len(epoch_losses)
        if training.epoch == 1:
            training.first_loss = epoch_losses[0]
        training.seconds = time.perf_counter() - started

        row: Row = {"epoch": training.epoch, "learning_rate": training.learning_rate, "train_loss": train_loss}
        # A safe point before each batch, because a scheduler may not wait for a whole evaluation.
        predict = predictor(model, device, recipe, lambda: at_safe_point(False))
        evaluation_started = time.perf_counter()
        for split, num_clips in held_out:
            scores = evaluate(predict, dataset, split, num_clips, num_context, with_lpips=recipe.lpips)
            row |= {f"{split}_{name}": value for name, value in scores.items()}
        row |= {"train_seconds": training.seconds, "evaluation_seconds": time.perf_counter() - evaluation_started}

        # The evaluation counts, too, because the last training loss does not show what the last step did to the weights.
        training.diverged = (
            not all(map(math.isfinite, (train_loss, row["validation_mse"], row["test_mse"])))
            or train_loss > EXPLOSION * training.first_loss
        )
        training.history.append(row)
        training.keep_losses(epoch_losses)
        phase = training.phase
        training.epoch, training.step, training.losses, training.seconds = training.epoch + 1, 0, [], 0.0
        if training.phase != phase:
            training.start_phase()
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
    step: TrainingStep | None = None,
) -> Tensor:
    """Take one optimizer step on a batch of clips (B, T + T', C, H, W), and return its loss without waiting for the device."""
    loss = compute_gradients(model, optimizer, clip, num_context, recipe, accumulation_steps, step)
    optimizer.step()
    return loss


def compute_gradients(
    model: Forecaster,
    optimizer: torch.optim.Optimizer,
    clip: Tensor,
    num_context: int,
    recipe: TrainingConfig,
    accumulation_steps: int = 1,
    step: TrainingStep | None = None,
) -> Tensor:
    """Compute the gradients of a batch of clips (B, T + T', C, H, W), and return its loss without waiting for the device.

    The batch is computed in `accumulation_steps` equal parts. The loss and gradients are those of the whole batch; BatchNorm
    and scheduled sampling see each part. `step` is the position in the training run, by default the first.
    """
    optimizer.zero_grad()
    losses = []
    step = step or TrainingStep.at(0, recipe.sampling_steps, seed=0)
    for part in clip.chunk(accumulation_steps):
        context, target = part[:, :num_context], part[:, num_context:]
        with autocast(clip.device, recipe):
            loss = model.training_loss(context, target, step)
        (loss / accumulation_steps if accumulation_steps > 1 else loss).backward()
        losses.append(loss.detach())
    return losses[0] if accumulation_steps == 1 else torch.stack(losses).mean()


def predictor(
    model: nn.Module, device: torch.device, recipe: TrainingConfig, before: Callable[[], None] = lambda: None
) -> Predictor:
    """Return the model as a function for evaluation, in the precision of training, which calls `before` before each batch."""
    model.eval()

    def predict(context: Tensor) -> Tensor:
        before()
        with autocast(device, recipe):
            return model(context)

    return predict


@torch.no_grad()
def evaluate(
    predict: Predictor, dataset: Clips, split: Split, num_clips: int, context_frames: int, *, with_lpips: bool = False
) -> dict[str, float]:
    """Return all metrics of `predict`, (B, T, C, H, W) → (B, T', C, H, W), over the first `num_clips` clips of a split."""
    totals: defaultdict[str, float] = defaultdict(float)
    for clip in dataset.batches(split, torch.arange(num_clips).split(_CLIPS_AT_ONCE)):
        context, target = clip[:, :context_frames], clip[:, context_frames:]
        for name, value in all_metrics(predict(context).float(), target, with_lpips=with_lpips).items():
            totals[name] += value * len(clip)
    return {name: total / num_clips for name, total in totals.items()}


def trivial_predictors(horizon_frames: int) -> dict[str, Predictor]:
    """Return predictors that every model should beat: the last frame repeated, all zeros, and the mean of the context."""

    def repeat(frame: Tensor) -> Tensor:
        return frame.expand(-1, horizon_frames, -1, -1, -1)

    return {
        "repeat_last_frame": lambda context: repeat(context[:, -1:]),
        "all_zeros": lambda context: repeat(torch.zeros_like(context[:, -1:])),
        "mean_of_context": lambda context: repeat(context.mean(1, keepdim=True)),
    }


def _batches(dataset: Clips, config: RunConfig, epoch: int, first_step: int = 0) -> Iterator[Tensor]:
    """Yield the batches of an epoch from a step on. Each epoch has new clips; the last incomplete batch is dropped."""
    batch_size, shape = config.training.batch_size, config.clip_shape
    frames = shape.context_frames + shape.horizon_frames
    bytes_per_batch = 4 * batch_size * frames * shape.channels * shape.height * shape.width
    at_once = batch_size * max(1, _BYTES_AT_ONCE // bytes_per_batch)
    clips = torch.arange(first_step * batch_size, config.steps_per_epoch * batch_size, device=dataset.index_device)
    indices = clips.split(at_once) if len(clips) else ()
    for several in dataset.batches("train", indices, epoch):
        yield from several.split(batch_size)


def _record(training: Training, num_context: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """Record a step's loss and gradients. Adam is not recorded, because its schedule changes β1; it is one kernel."""
    config, model, shape = training.config, training.model, training.config.clip_shape
    frames = shape.context_frames + shape.horizon_frames
    clip = torch.zeros((config.training.batch_size, frames, shape.channels, shape.height, shape.width), device=device)

    def compute(clip: Tensor) -> Tensor:
        return compute_gradients(model, training.optimizer, clip, num_context, config.training, training.accumulation_steps)

    return record_step(compute, training.optimizer, model.train(), clip)


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")}
