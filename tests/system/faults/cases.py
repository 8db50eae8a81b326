"""Faults, one function each. It returns counts; a count of `wrong` above zero is a failure of the suite."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stlight.runs.record import RecordError, read_record
from stlight.training.checkpoint import CheckpointError, unpack
from tests.system.faults.devices import devices
from tests.system.faults.runs import (
    CLASHED,
    DONE,
    EIO,
    ENOSPC,
    FAILED,
    INTERRUPTED,
    Operation,
    Run,
    fail_at,
    kill_at,
    power_cut_at,
)
from tests.tiny_runs import tiny

Figures = dict[str, int]

# The smallest run with all parts: two steps in one epoch, evaluation, outputs.
LEAST = tiny(clips_per_epoch=4, num_epochs=1, validation_clips=1, test_clips=1, kernels="fused")
CONFIGS = [
    tiny(num_epochs=4, kernels="fused"),
    tiny(num_epochs=3, kernels="plain", prediction="rollout", decoder="reassemble_shuffle"),
    tiny(num_epochs=2, kernels="space_to_batch", accumulation_steps=2, max_lr=1e30),
]
# Signals at random moments: mostly SIGKILL, sometimes one that asks to stop.
SIGNALS = [signal.SIGKILL] * 8 + [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT]


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="stlight-faults-") as name:
        yield Path(name)


def reference(root: Path, config) -> tuple[tuple, float, int]:
    """Return an uninterrupted run's outputs, its seconds and its number of operations."""
    seconds = []
    for name in "ab":
        run = Run(root / f"reference-{config.hash}-{name}", config)
        started = time.perf_counter()
        assert run.to_the_end() == DONE, run.log.read_text()
        seconds.append(time.perf_counter() - started)
    return run.outputs(), min(seconds), run.operations


def kills(quick: bool, seed: int) -> Figures:
    """Kill many short runs at random moments and within writes, resume them until they are done, and compare their outputs."""
    chance, figures = random.Random(seed), Counter()
    with folder() as root:
        references = [reference(root, config) for config in CONFIGS]
        while figures["kills"] < (12 if quick else 250):
            number = figures["runs"] % len(CONFIGS)
            expected, seconds, operations = references[number]
            run = Run(root / f"run{figures['runs']}", CONFIGS[number])
            figures["runs"] += 1
            status = None
            # After 25 attempts a run is left alone, because it may make no progress if it is always killed early.
            for attempt in range(30):
                in_a_write = attempt < 25 and chance.random() < 0.3
                pid = run.start(kill_at(chance.randrange(1, operations)) if in_a_write else lambda *_: None)
                which = signal.SIGKILL
                if attempt < 25 and not in_a_write:
                    time.sleep(chance.uniform(0, 1.3 * seconds))
                    os.kill(pid, which := chance.choice(SIGNALS))
                status = run.wait(pid)
                if status == DONE:
                    break
                if status == -which == -signal.SIGKILL:
                    figures["kills"] += 1
                    figures["of them within a write"] += run.writing
                else:
                    figures["other signals"] += 1
                    # Before and after training a signal has its default effect.
                    figures["wrong"] += status not in (INTERRUPTED, -which)
            figures["wrong"] += status != DONE or run.outputs() != expected or bool(run.left_over())
            shutil.rmtree(run.folder)
    return figures


def _each_operation(quick: bool, seed: int, fault: Callable[[int], Operation], accepted: tuple[int, ...]) -> Figures:
    """Cause a fault at every operation of a run in turn. Afterwards no file may be half-written, and the run must resume."""
    figures: Counter[str] = Counter()
    with folder() as root:
        expected, _, operations = reference(root, LEAST)
        for number in range(1 + seed % 9 if quick else 1, operations + 1, 9 if quick else 1):
            run = Run(root / "run", LEAST)
            status = run.wait(run.start(fault(number)))
            figures["operations"] += 1
            figures["survived at once"] += status == DONE
            figures["wrong"] += status not in (*accepted, DONE) or not _whole(run)
            figures["wrong"] += run.to_the_end() != DONE or run.outputs() != expected or bool(run.left_over())
            shutil.rmtree(run.folder)
    return figures


def _whole(run: Run) -> bool:
    """True if every record and checkpoint can be read."""
    try:
        if (run.folder / "record.json").exists():
            read_record(run.folder / "record.json")
        for path in run.folder.rglob("*.checkpoint"):
            unpack(path.read_bytes())
    except (RecordError, CheckpointError):
        return False
    return True


def killed_at_every_operation(quick: bool, seed: int) -> Figures:
    return _each_operation(quick, seed, kill_at, (-signal.SIGKILL,))


def power_cut_at_every_operation(quick: bool, seed: int) -> Figures:
    chance = random.Random(seed)
    return _each_operation(quick, seed + 3, lambda number: power_cut_at(number, chance), (-signal.SIGKILL,))


def no_space_at_every_operation(quick: bool, seed: int) -> Figures:
    return _each_operation(quick, seed + 6, lambda number: fail_at(number, ENOSPC), (FAILED,))


def bad_device_at_every_operation(quick: bool, seed: int) -> Figures:
    return _each_operation(quick, seed + 8, lambda number: fail_at(number, EIO), (FAILED,))


def damaged_checkpoints(quick: bool, seed: int) -> Figures:
    """Flip a bit in, or truncate, the newest checkpoint. The run must set it aside and resume from the one before."""
    chance, figures = random.Random(seed), Counter()
    with folder() as root:
        expected, _, _ = reference(root, LEAST)
        stopped = Run(root / "stopped", LEAST)
        stopped.wait(stopped.start(kill_at(45)))
        regions = 6 if quick else 40
        for region in range(2 * regions):
            run = Run(root / "run", LEAST)
            shutil.copytree(stopped.folder, run.folder)
            newest = max(run.folder.rglob("*.checkpoint"))
            content = bytearray(newest.read_bytes())
            place = min(len(content) - 1, int((region % regions + chance.random()) * len(content) / regions))
            content[place] ^= 1 << chance.randrange(8)
            newest.write_bytes(content if region < regions else content[:place])
            figures["damaged"] += 1
            figures["wrong"] += run.to_the_end() != DONE or run.outputs() != expected
            figures["wrong"] += f"{newest} is" not in run.log.read_text() or "from epoch 1, step" not in run.log.read_text()
            run.log.unlink()
            shutil.rmtree(run.folder)
    return figures


def full_disk(quick: bool, seed: int) -> Figures:
    """Train on file systems that are too small. The run must stop with a message of one line, and resume when there is room."""
    figures: Counter[str] = Counter()
    with folder() as root:
        disk = root / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", disk], capture_output=True, check=False).returncode:
            return {"file systems, because none can be mounted here": 0}
        subprocess.run(["umount", disk], check=True)
        expected, _, _ = reference(root, LEAST)
        for kilobytes in range(8, 600, 120 if quick else 24):
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", disk], check=True)
            try:
                run = Run(disk / "run", LEAST)
                run.log = root / "log"
                run.log.write_text("")
                status = run.wait(run.start())
                figures["disks"] += 1
                figures["full"] += status == FAILED
                lines = run.log.read_text().splitlines()
                figures["wrong"] += status not in (DONE, FAILED) or not _whole(run)
                figures["wrong"] += status == FAILED and not (len(lines) == 1 and "no space left" in lines[0])
                subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
                figures["wrong"] += run.to_the_end() != DONE or run.outputs() != expected or bool(run.left_over())
            finally:
                subprocess.run(["umount", disk], check=True)
    return figures


def two_at_once(quick: bool, seed: int) -> Figures:
    """Start the same run in several processes and kill some. No two may train it at the same time."""
    chance, figures = random.Random(seed), Counter()
    with folder() as root:
        expected, seconds, _ = reference(root, CONFIGS[0])
        for number in range(4 if quick else 40):
            run = Run(root / f"run{number}", CONFIGS[0])
            pids = []
            for _ in range(3):
                pids.append(run.start())
                time.sleep(chance.uniform(0, 0.2 * seconds))
            for pid in chance.sample(pids, 2):
                time.sleep(chance.uniform(0, seconds))
                if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                    os.kill(pid, signal.SIGKILL)
                    figures["kills"] += 1
            statuses = [run.wait(pid) for pid in pids]
            figures["runs"] += 1
            figures["processes"] += len(pids)
            figures["clashes"] += statuses.count(CLASHED)
            figures["wrong"] += not set(statuses) <= {DONE, -signal.SIGKILL} or run.outputs() != expected
            shutil.rmtree(run.folder)
    return figures


def leased_devices(quick: bool, seed: int) -> Figures:
    figures = Counter(devices(gpus=4, jobs=12, kills=6, seed=seed) if quick else devices(seed=seed))
    figures["wrong"] = figures["clashes"] + figures["leaked"]
    return figures


def slurm(quick: bool, seed: int) -> Figures:
    """Run the project's Slurm profile on a real Slurm. The quick form is a test of its own (tests/system/slurm)."""
    if quick:
        return {"cases, because they have a test of their own": 0}
    from tests.system.faults.cluster import jobs_of_slurm
    from tests.system.slurm.sandbox import Sandbox, UnavailableError

    with folder() as root:
        (root / "work").mkdir()
        try:
            with Sandbox(root / "slurm") as sandbox:
                return jobs_of_slurm(sandbox, root / "work", quick)
        except UnavailableError as reason:
            return {f"cases: {reason}": 0}


CASES: dict[str, Callable[[bool, int], Figures]] = {
    case.__name__.replace("_", " "): case
    for case in (
        kills,
        killed_at_every_operation,
        power_cut_at_every_operation,
        no_space_at_every_operation,
        bad_device_at_every_operation,
        damaged_checkpoints,
        full_disk,
        two_at_once,
        leased_devices,
        slurm,
    )
}
