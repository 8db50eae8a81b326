"""Runs in processes of their own, forked from one that has loaded all: a start takes milliseconds, and a kill is a real one."""

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
from stlight.runtime import atomic_files, start_up
from stlight.runtime.signals import Interrupted, Interruption
from stlight.training import run as training_run
from stlight.training.checkpoint import Checkpoints
from tests.tiny_runs import outputs, tiny

DONE, FAILED, CRASHED, CLASHED, INTERRUPTED = 0, 1, 2, 3, 75

Operation = Callable[[int, str, tuple], None]
"""Told of each call before it is made: its number from 1, its name, its arguments."""


def warm_up() -> None:
    """Load here what the forked processes would each load anew."""
    start_up.leave_out_compiler()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        training_run.train_run("a/run/seed0", tiny(num_epochs=1, kernels="fused"), Path(folder), Path(folder))


class Run:
    """One run in a folder, started and stopped as often as it takes."""

    def __init__(self, folder: Path, config: RunConfig, checkpoint_always: bool = True) -> None:
        self.folder, self.config, self.checkpoint_always = folder, config, checkpoint_always
        self.log = folder.with_suffix(".log")
        # Shared with the children: whether one is writing a file, and the operations it has made.
        self._shared = mmap.mmap(-1, 16)

    def start(self, operation: Operation = lambda *_: None) -> int:
        """Fork a process that trains the run; gives its id."""
        self._shared[:16] = bytes(16)
        if pid := os.fork():
            return pid
        status = CRASHED
        try:
            descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 2)
            status = self._train(operation)
        finally:
            sys.stderr.flush()
            os._exit(status)

    def wait(self, pid: int) -> int:
        """Its exit status, or minus the signal that ended it."""
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def to_the_end(self, tries: int = 5) -> int:
        """Start it until it is done; gives the last status."""
        for _ in range(tries):
            if (status := self.wait(self.start())) != INTERRUPTED:
                break
        return status

    @property
    def writing(self) -> bool:
        """Whether the process was, when last seen, within the writing of a file."""
        return bool(self._shared[0])

    @property
    def operations(self) -> int:
        """Calls that wrote, so far."""
        return struct.unpack_from("q", self._shared, 8)[0]

    def outputs(self) -> tuple:
        """What it left, times aside."""
        return outputs(self.folder)

    def left_over(self) -> list[str]:
        """Files that a finished run has no use for."""
        known = {"record.json", "history.csv", "weights.safetensors", "examples.npz", ".finished"}
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
                training_run.train_run("a/run/seed0", self.config, self.folder, self.folder, interruption=interruption)
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
        for module in ("stlight.training.checkpoint", "stlight.training.run", "stlight.runs.record"):
            sys.modules[module].write_atomically = write

    def _watch_clashes(self) -> None:
        """A name that the kernel gives to one process at a time shows if two should train the run at once."""
        original = training_run._Session.run

        def alone(session, examples):
            with socket.socket(socket.AF_UNIX) as name:
                try:
                    name.bind(f"\0stlight-{self.folder}")
                except OSError:
                    os._exit(CLASHED)
                return original(session, examples)

        training_run._Session.run = alone


def kill_at(number: int) -> Operation:
    """SIGKILL before the operation of this number; a write is cut in half."""

    def operation(n: int, name: str, arguments: tuple) -> None:
        if n == number:
            if name == "write":
                _half(arguments)
            os.kill(os.getpid(), signal.SIGKILL)

    return operation


def fail_at(number: int, code: int) -> Operation:
    """An error of the device or the file system at the operation of this number; a write gets half of its bytes out."""

    def operation(n: int, name: str, arguments: tuple) -> None:
        if n == number and name not in ("close", "unlink"):
            if name == "write":
                _half(arguments)
            raise OSError(code, os.strerror(code), "injected")

    return operation


def power_cut_at(number: int, chance: random.Random) -> Operation:
    """SIGKILL, and the loss of what no fsync had made durable: contents, and names too, as the file system sees fit."""
    unsynced: set[Path] = set()
    renamed: list[tuple[Path, Path]] = []
    # The calls as they were before they were watched.
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
