"""GPUs that are names only, and processes that lease them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from itertools import count

import pytest

from stlight.runtime import gpu_lease

TWO_GPUS = """GPU 0: A Card (UUID: GPU-a)
  MIG 3g.20gb     Device  0: (UUID: MIG-1)
GPU 1: A Card (UUID: GPU-b)"""

# Prints each step, and holds its lease until its input ends. Ctrl-C must end it also if SIGINT was inherited as ignored.
HOLDER = """
import os, signal, sys, time
from stlight.runtime.gpu_lease import leased
signal.signal(signal.SIGINT, signal.default_int_handler)
sleep = time.sleep
time.sleep = lambda seconds: (print("looks again", flush=True), sleep(min(seconds, 0.05)))
with leased(1, {slots}, lambda line: print(line, flush=True)) as lease:
    print(f"leased {{lease.gpus[0]}}.{{lease.slot}}", flush=True)
    {then}
"""


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Two GPUs that CUDA_VISIBLE_DEVICES names, no scheduler, and no nvidia-smi."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("STLIGHT_GPU_LOCKS", str(tmp_path / "locks"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    for name in gpu_lease.JOB_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def nvidia_smi(machine):
    """Install an nvidia-smi that prints a text and ends with a status."""

    def install(text, status=0):
        path = machine / "bin" / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{text}\nEND\nexit {status}\n")
        path.chmod(0o755)

    return install


class Holder:
    """A process that leases a GPU, prints each step, and holds the lease until its input ends."""

    def __init__(self, log, slots=1, then="sys.stdin.read()", wrap=(), **environment):
        command = [*wrap, sys.executable, "-c", HOLDER.format(slots=slots, then=then)]
        self.log = log
        with log.open("wb") as file:
            pipes = {"stdin": subprocess.PIPE, "stdout": file, "stderr": subprocess.DEVNULL}
            self.process = subprocess.Popen(command, env=os.environ | environment, **pipes)

    def prints(self, word, times=1):
        """Wait until so many lines begin with the word; return the last of them."""
        deadline = time.monotonic() + 60
        while True:
            found = [line for line in self.output.splitlines(keepends=True) if line.startswith(word) and line.endswith("\n")]
            if len(found) >= times:
                return found[-1].strip()
            assert time.monotonic() < deadline, f"no {word!r} in {self.output!r}"
            time.sleep(0.01)

    @property
    def output(self):
        return self.log.read_text()

    def still_waits(self):
        """True if it gets no lease while it looks for a free slot twice more."""
        self.prints("looks again", self.output.count("looks again") + 3)
        return "leased" not in self.output

    def ends(self):
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def dies(self, number=signal.SIGKILL):
        self.process.send_signal(number)
        assert self.process.wait(60) != 0


@pytest.fixture
def holder(machine):
    """Start a `Holder`; kill all of them at the end."""
    numbers = count()
    with ExitStack() as stack:

        def start(*arguments, **options):
            one = Holder(machine / f"{next(numbers)}.log", *arguments, **options)
            stack.callback(one.process.wait, 60)
            stack.callback(one.process.kill)
            stack.callback(one.process.stdin.close)
            return one

        yield start
