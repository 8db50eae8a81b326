"""Lease GPUs to many processes at once and kill some of them while they wait or hold."""

import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

from stlight.runtime.gpu_lease import JOB_VARIABLES

# A holder prints when it got its lease and when it will give it back, by the clock that all processes of a host share.
JOB = """
import sys, time
from stlight.runtime.gpu_lease import leased

def tell(*words):
    print(*words, time.monotonic(), flush=True)

slots, seconds = int(sys.argv[1]), float(sys.argv[2])
with leased(1, slots, lambda line: tell("waits")) as lease:
    tell("from", f"{lease.gpus[0]}.{lease.slot}")
    time.sleep(seconds)
    tell("until")
"""
DEADLINE = 300.0


def devices(gpus: int = 8, jobs: int = 40, slots_per_gpu: int = 1, kills: int = 20, seed: int = 0) -> dict[str, int]:
    """Run jobs that each lease a GPU, kill some, and start a new job for each killed one and while kills are left.

    Returns:
        clashes: pairs of overlapping leases of one slot; a killed job's lease ends when the signal was sent.
        leaked: slots that could not be leased at once when all jobs were done.

    Raises:
        TimeoutError: jobs are not done after five minutes.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        locks = Path(folder, "locks")
        environment = {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}
        environment |= {"STLIGHT_GPU_LOCKS": str(locks), "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))), "PATH": ""}
        stays, killed = _fire(Path(folder), environment, jobs, slots_per_gpu, kills, chance)
        leaked = _leaked(environment, gpus, slots_per_gpu)
    clashes = sum(one[0] == other[0] and one[1] < other[2] and other[1] < one[2] for one, other in combinations(stays, 2))
    return {"jobs": jobs, "leases": len({stay[3] for stay in stays}), "kills": killed, "clashes": clashes, "leaked": leaked}


Stay = tuple[str, float, float, Path]


def _fire(
    folder: Path, environment: dict[str, str], jobs: int, slots: int, kills: int, chance: random.Random
) -> tuple[list[Stay], int]:
    running: dict[Path, subprocess.Popen[bytes]] = {}
    stays: list[Stay] = []
    killed = started = 0

    def start() -> None:
        nonlocal started
        log = folder / f"{started}.log"
        started += 1
        words = [str(slots), str(chance.uniform(0.005, 0.1))]
        with log.open("wb") as file:
            running[log] = subprocess.Popen([sys.executable, "-c", JOB, *words], env=environment, stdout=file)

    deadline = time.monotonic() + DEADLINE
    try:
        for _ in range(jobs):
            start()
        while running or killed < kills:
            if not running:
                for _ in range(kills - killed + 2):
                    start()
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(running)} of {jobs} jobs are not done after {DEADLINE:.0f} s: {_states(running)}")
            time.sleep(0.005)
            for log in [log for log, process in running.items() if process.poll() is not None]:
                status = running.pop(log).returncode
                assert status == 0, f"a job ended with status {status}: {log.read_text()}"
                stays += _stays(log, float("inf"))
            if killed < kills and (victim := _victim(running, chance)):
                process = running.pop(victim)
                moment = time.monotonic()
                process.kill()
                # A victim that ended before the signal came has done its work and needs no successor.
                if process.wait() < 0:
                    killed += 1
                    start()
                stays += _stays(victim, moment)
    finally:
        for process in running.values():
            process.kill()
            process.wait()
    return stays, killed


def _victim(running: dict[Path, subprocess.Popen[bytes]], chance: random.Random) -> Path | None:
    """Choose nobody half of the time; otherwise a job that holds, one that waits, or any."""
    if chance.random() < 0.5:
        return None
    kind = chance.choice(["from", "waits", ""])
    return chance.choice([log for log, state in _states(running).items() if kind in state] or [None])


def _states(running: dict[Path, subprocess.Popen[bytes]]) -> dict[Path, str]:
    return {log: (log.read_text().splitlines() or [""])[-1] for log in running}


def _stays(log: Path, end: float) -> list[Stay]:
    lines = [line.split() for line in log.read_text().splitlines()]
    held = [line for line in lines if line[0] == "from"]
    end = min([end, *(float(line[-1]) for line in lines if line[0] == "until")])
    return [(slot, float(begin), end, log) for _, slot, begin in held]


def _leaked(environment: dict[str, str], gpus: int, slots: int) -> int:
    """Lease all slots one after the other and keep them; return how many cannot be leased without waiting."""
    code = (
        "import sys; from stlight.runtime.gpu_lease import leased\n"
        f"with leased(1, {slots}, sys.exit): print('leased', flush=True); sys.stdin.read()"
    )
    holders: list[subprocess.Popen[bytes]] = []
    leaked = 0
    try:
        for _ in range(gpus * slots):
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            holders.append(subprocess.Popen([sys.executable, "-c", code], env=environment, **pipes))
            leaked += not holders[-1].stdout.readline()
        return leaked
    finally:
        for holder in holders:
            holder.communicate()
