"""Show a run's progress: a live bar in a terminal, elsewhere at most twenty plain lines."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

logger = logging.getLogger(__name__)


@contextmanager
def progress(name: str, num_epochs: int, done: int) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Give a function that shows a finished epoch from its row of the history. `done` epochs are finished before."""
    with tqdm(total=num_epochs, initial=done, desc=name, unit="epoch", disable=None) as bar:

        def show(row: dict[str, Any]) -> None:
            epoch, losses = row["epoch"], f"loss {row['train_loss']:.4g}, test MSE {row['test_mse']:.4g}"
            bar.set_postfix_str(losses)
            bar.update()
            if bar.disable and (epoch % -(-num_epochs // 20) == 0 or epoch == num_epochs):
                logger.info("%s: epoch %d/%d, %s", name, epoch, num_epochs, losses)

        yield show
