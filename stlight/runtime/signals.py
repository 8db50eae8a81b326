"""Handle the signals that ask a run to stop: Ctrl-C, a scheduler's warning, a preemption."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Exit status of an interrupted run: "temporary failure, try again" in sysexits.h.
INTERRUPTED_STATUS = 75


class Interrupted(BaseException):
    """A signal asked the process to stop. Not an `Exception`, so that no handler of errors catches it."""


class Interruption:
    """Raise `Interrupted` when a stop signal arrives; after `hold_back`, only note it until `check`."""

    def __init__(self) -> None:
        self.signal: str | None = None
        """Name of the signal that has arrived."""
        self._held_back = False

    @contextmanager
    def noticed(self) -> Iterator[None]:
        """Handle the signals inside the block. Works in the main thread only."""
        before = {number: signal.signal(number, self._handle) for number in STOP_SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def hold_back(self) -> None:
        """Only note signals from now on, so that the run can save its state or finish writing its result."""
        self._held_back = True

    def check(self) -> None:
        """Raise `Interrupted` if a signal has arrived."""
        if self.signal:
            raise Interrupted(self.signal)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.signal = signal.Signals(number).name
        if not self._held_back:
            raise Interrupted(self.signal)
