"""Train runs in forked processes, which start in milliseconds and can be killed for real."""

import errno
import mmap
import os
import random
import signal
import socket
import struct
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from stlight.config import RunConfig
from stlight.runs.record import OUTPUTS
from stlight.runtime import atomic_files
from stlight.runtime.process import Interrupted, Interruption, leave_out_compiler
from stlight.training import train_run
from stlight.training.checkpoint import Checkpoints
from stlight.training.run import Session
from tests.tiny_runs import outputs, tiny

DONE, FAILED, CRASHED, CLASHED, INTERRUPTED = 0, 1, 2, 3, 75

Operation = Callable[[int, str, tuple], None]
"""Called before each call that writes, with its number (from 1), name and arguments."""


def warm_up() -> None:
    """Load everything before forking, so that the forked processes need not."""
    leave_out_compiler()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train_run("a/run/seed0", tiny(num_epochs=1, kernels="fused"), Path(folder), Path(folder))


class Run:
    """A run in a folder, which can be started and stopped repeatedly."""

    def __init__(self, folder: Path, config: RunConfig, checkpoint_always: bool = True) -> None:
        self.folder, self.config, self.checkpoint_always = folder, config, checkpoint_always
        self.log = folder.with_suffix(".log")
        # Shared with the forked processes: byte 0 is set while one writes a file, bytes 8 to 15 count its operations.
        self._shared = mmap.mmap(-1, 16)

    def start(self, operation: Operation = lambda *_: None) -> int:
        """Fork a process that trains the run; return its id."""
        self._shared[:16] = bytes(16)
        if pid := os.fork():
            return pid
        status = CRASHED
        # It may be inherited as ignored.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 2)
            status = self._train(operation)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def wait(self, pid: int) -> int:
        """Wait for a process; return its exit status, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def to_the_end(self, tries: int = 5) -> int:
        """Start the run until it is done; return the last status."""
        for _ in range(tries):
            if (status := self.wait(self.start())) != INTERRUPTED:
                break
        return status

    @property
    def writing(self) -> bool:
        """True if the process was writing a file when it ended."""
        return bool(self._shared[0])

    @property
    def operations(self) -> int:
        """Number of calls that wrote."""
        return struct.unpack_from("q", self._shared, 8)[0]

    def outputs(self) -> tuple:
        """Return the outputs without times."""
        return outputs(self.folder)

    def left_over(self) -> list[str]:
        """Return the names of files that a finished run should have removed."""
        known = {*OUTPUTS, ".finished"}
        return [path.name for path in self.folder.iterdir() if path.name not in known and not path.name.endswith(".set-aside")]

    def _train(self, operation: Operation) -> int:
        torch.set_num_threads(1)
        self._watch_operations(operation)
        if self.checkpoint_always:
            Checkpoints.due = lambda *_, **__: True
        self._watch_clashes()
        interruption = Interruption()
        try:
            with interruption.noticed():
                train_run("a/run/seed0", self.config, self.folder, self.folder, interruption=interruption)
        except Interrupted:
            return INTERRUPTED
        except OSError as error:
            print(f"stlight: {error}", file=sys.stderr)
            return FAILED if isinstance(error, atomic_files.StorageError) else CRASHED
        return DONE

    def _watch_operations(self, operation: Operation) -> None:
        def watched(name: str) -> Callable:
            original = getattr(os, name)

            def call(*arguments, **keywords):
                if self.writing:
                    number = self.operations + 1
                    struct.pack_into("q", self._shared, 8, number)
                    operation(number, name, arguments)
                return original(*arguments, **keywords)

            return call

        def write(*arguments):
            self._shared[0] = 1
            try:
                return original_write(*arguments)
            finally:
                self._shared[0] = 0

        for name in ("open", "write", "fsync", "close", "replace", "unlink"):
            setattr(os, name, watched(name))
        original_write = atomic_files.write_atomically
        for module in ("stlight.training.checkpoint", "stlight.training.outputs", "stlight.runs.record"):
            sys.modules[module].write_atomically = write

    def _watch_clashes(self) -> None:
        """End with `CLASHED` if two processes train the run at once: the kernel gives a socket's name to one process only."""
        original = Session.run

        def alone(session, *arguments):
            with socket.socket(socket.AF_UNIX) as name:
                try:
                    name.bind(f"\0stlight-{self.folder}")
                except OSError:
                    os._exit(CLASHED)
                return original(session, *arguments)

        Session.run = alone


def kill_at(number: int) -> Operation:
    """Kill the process before the operation of this number; half of a write is done."""

    def operation(n: int, name: str, arguments: tuple) -> None:
        if n == number:
            if name == "write":
                _half(arguments)
            os.kill(os.getpid(), signal.SIGKILL)

    return operation


def fail_at(number: int, code: int) -> Operation:
    """Raise an error of the file system at the operation of this number; half of a write is done."""

    def operation(n: int, name: str, arguments: tuple) -> None:
        if n == number and name not in ("close", "unlink"):
            if name == "write":
                _half(arguments)
            raise OSError(code, os.strerror(code), "injected")

    return operation


def power_cut_at(number: int, chance: random.Random) -> Operation:
    """Kill the process, truncate unsynced files at random lengths, and undo unsynced renames in half of the cases."""
    unsynced: set[Path] = set()
    renamed: list[tuple[Path, Path]] = []
    # The original calls: `os` will hold watched ones.
    replace, unlink = os.replace, os.unlink

    def forget(before: Path) -> None:
        if before.exists():
            unlink(before)

    def operation(n: int, name: str, arguments: tuple) -> None:
        if n == number:
            undone = chance.random() < 0.5
            for path, before in reversed(renamed):
                if undone and before.exists():
                    replace(before, path)
                elif undone:
                    unlink(path)
                forget(before)
            for path in unsynced:
                if path.exists():
                    os.truncate(path, chance.randrange(path.stat().st_size + 1))
            os.kill(os.getpid(), signal.SIGKILL)
        descriptor = Path(f"/proc/self/fd/{arguments[0]}")
        if name == "write":
            unsynced.add(descriptor.readlink())
        elif name == "fsync":
            unsynced.discard(descriptor.readlink())
            if descriptor.is_dir():
                for _, before in renamed:
                    forget(before)
                renamed.clear()
        elif name == "replace":
            partial, path = map(Path, arguments)
            if partial in unsynced:
                unsynced.add(path)
            before = path.with_name(f".{path.name}.before")
            if path.exists():
                os.link(path, before)
            renamed.append((path, before))

    return operation


def _half(arguments: tuple) -> None:
    descriptor, content = arguments
    os.pwrite(descriptor, bytes(content[: len(content) // 2]), 0)


ENOSPC, EIO = errno.ENOSPC, errno.EIO
