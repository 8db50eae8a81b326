"""Leases of GPUs under fire: many processes at once, some killed while they wait or hold."""

import os
import random
import subprocess
import sys
import tempfile
import time
from itertools import combinations
from pathlib import Path

from stlight.runtime.gpu_lease import JOB_VARIABLES

# A holder states its stay by the clock that all processes of a host share, from after it got the lease to before it leaves it.
JOB = """
import sys, time
from stlight.runtime.gpu_lease import leased

def tell(*words):
    print(*words, time.monotonic(), flush=True)

gpus, slots, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
with leased(gpus, slots, lambda line: tell("waits")) as lease:
    tell("from", *(f"{gpu}.{slot}" for gpu, slot in zip(lease.gpus, lease.slots)))
    time.sleep(seconds)
    tell("until")
"""
DEADLINE = 120.0


def devices(gpus: int = 8, jobs: int = 40, slots_per_gpu: int = 1, kills: int = 20, seed: int = 0) -> dict[str, int]:
    """Run jobs (or more, if they are done before the kills are) that each lease one GPU or two, and start killed ones again.

    clashes: pairs of stays on the same slot that overlap; a killed job's stay ends when the signal was sent. leaked: slots that
    could not be leased at once when all jobs were done. Raises `TimeoutError` if they are not done after two minutes.
    """
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        locks = Path(folder, "locks")
        environment = {name: value for name, value in os.environ.items() if name not in JOB_VARIABLES}
        environment |= {"STLIGHT_GPU_LOCKS": str(locks), "CUDA_VISIBLE_DEVICES": ",".join(map(str, range(gpus))), "PATH": ""}
        stays, killed = _fire(Path(folder), environment, jobs, slots_per_gpu, kills, gpus, chance)
        leaked = _leaked(environment, gpus, slots_per_gpu)
    clashes = sum(one[0] == other[0] and one[1] < other[2] and other[1] < one[2] for one, other in combinations(stays, 2))
    return {"jobs": jobs, "leases": len({stay[3] for stay in stays}), "kills": killed, "clashes": clashes, "leaked": leaked}


Stay = tuple[str, float, float, Path]


def _fire(
    folder: Path, environment: dict[str, str], jobs: int, slots: int, kills: int, gpus: int, chance: random.Random
) -> tuple[list[Stay], int]:
    running: dict[Path, subprocess.Popen[bytes]] = {}
    stays: list[Stay] = []
    killed = started = 0

    def start() -> None:
        nonlocal started
        log = folder / f"{started}.log"
        wanted = 2 if gpus > 1 and started % 4 == 0 else 1
        started += 1
        words = [str(wanted), str(slots), str(chance.uniform(0.005, 0.1))]
        with log.open("wb") as file:
            running[log] = subprocess.Popen([sys.executable, "-c", JOB, *words], env=environment, stdout=file)

    deadline = time.monotonic() + DEADLINE
    try:
        for _ in range(jobs):
            start()
        while running or killed < kills:
            if not running:  # all are done before all kills were: more to kill
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
                # It may have ended in the meantime; then it has done its work and needs no other.
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
    """Every other time one of those that hold, that wait, or that may be anywhere."""
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
    return [(slot, float(begin), end, log) for _, *slots, begin in held for slot in slots]


def _leaked(environment: dict[str, str], gpus: int, slots: int) -> int:
    """How many slots of all cannot be leased one after the other, each kept, without a wait."""
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
