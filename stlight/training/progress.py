"""Show a run's progress: a live bar in a terminal, elsewhere at most twenty plain lines."""

import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm


class Progress:
    """Show the epoch, the losses and the remaining time."""

    def __init__(self, name: str, num_epochs: int, history: Sequence[dict[str, Any]] = ()) -> None:
        """Start after the epochs in `history`, which an earlier session finished."""
        self._live = sys.stderr.isatty()
        self._every = -(-num_epochs // 20)
        self._bar = tqdm(total=num_epochs, initial=len(history), desc=name, unit="epoch", disable=not self._live)
        self._name, self._num_epochs = name, num_epochs
        self._seconds = sum(row["train_seconds"] + row["evaluation_seconds"] for row in history)

    def show(self, row: dict[str, Any]) -> None:
        """Show a finished epoch."""
        self._bar.set_postfix_str(f"loss {row['train_loss']:.4g}, test MSE {row['test_mse']:.4g}")
        self._bar.update()
        self._seconds += row["train_seconds"] + row["evaluation_seconds"]
        epoch = row["epoch"]
        if not self._live and (epoch % self._every == 0 or epoch == self._num_epochs):
            remaining = self._seconds / epoch * (self._num_epochs - epoch)
            print(
                f"{self._name}: epoch {epoch}/{self._num_epochs}, loss {row['train_loss']:.5g}, validation MSE"
                f" {row['validation_mse']:.5g}, learning rate {row['learning_rate']:.3g}, {remaining:.0f} s remaining",
                file=sys.stderr,
                flush=True,
            )

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
