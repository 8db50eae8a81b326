"""Signals that ask a run to stop: Ctrl-C, a scheduler's warning, a preemption."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_ASKED_TO_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


class Interrupted(BaseException):
    """A signal asked the process to stop. Like KeyboardInterrupt it is no `Exception`, lest something takes it for an error."""


class Interruption:
    """Signals while a run is under way: at once an `Interrupted`, or, while they are held back, noted for a good moment."""

    def __init__(self) -> None:
        self.signal: str | None = None
        self._held_back = False

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Inside, the signals are this object's. Only in a process's main thread."""
        before = {number: signal.signal(number, self._take) for number in _ASKED_TO_STOP}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hold_back(self) -> None:
        """From now on a signal is only noted: the state in hand is worth saving, and a result worth writing to the end."""
        self._held_back = True

    def check(self) -> None:
        """Raise `Interrupted` if a signal has come."""
        if self.signal:
            raise Interrupted(self.signal)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if not self._held_back:
            raise Interrupted(self.signal)
