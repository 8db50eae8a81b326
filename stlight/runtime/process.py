"""Stop a process when a signal asks for it, and start it fast, because a small scale has hundreds of short runs."""

import os
import signal
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)

# Exit status of an interrupted run: "temporary failure, try again" in sysexits.h.
INTERRUPTED_STATUS = 75


def kernels_are_off() -> bool:
    """Return True if the environment variable STLIGHT_KERNELS disables the compiled kernels.

    Raises `ValueError` if it has another value than off.
    """
    if (setting := os.environ.get("STLIGHT_KERNELS", "")) not in ("", "off"):
        raise ValueError(f"STLIGHT_KERNELS must be off or not set, got {setting!r}")
    return setting == "off"


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


def leave_out_compiler() -> None:
    """Keep torch's optimizers from loading torch's compiler: 1.6 s of a start of 3 s.

    They use it only to exclude themselves from compilation, so a module with these two functions suffices. Not for processes
    that compile, or that ask torch for deterministic algorithms, because this setting loads the compiler too.
    """
    import torch

    if "torch._dynamo" not in sys.modules:
        stand_in = types.ModuleType("torch._dynamo")
        stand_in.disable = lambda function, *_, **__: function  # type: ignore[attr-defined]
        stand_in.graph_break = lambda: None  # type: ignore[attr-defined]
        sys.modules["torch._dynamo"] = torch._dynamo = stand_in
    if "triton" not in sys.modules and not torch.cuda.is_available():
        # The counter of multiply-adds would load it, which takes time and ends with lines about leaks.
        sys.modules["triton"] = None  # type: ignore[assignment]
        try:
            import torch.utils.flop_counter
        finally:
            del sys.modules["triton"]
