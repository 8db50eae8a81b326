"""Find the libraries of the C kernels that a wheel carries, for machines without a compiler; a checkout has none."""

import contextlib
import ctypes
import platform
import re
from pathlib import Path

from stlight.runtime.processor import processor

FOLDER = Path(__file__).parent / "built"
"""Holds `<source>-<level>-<checksum>.so`. It exists in a wheel only."""

# The levels of the x86-64 psABI, best first, and the names in /proc/cpuinfo of the instructions that each adds.
_V3 = ("avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe")
LEVELS = {
    "x86-64-v4": (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"),
    "x86-64-v3": _V3,
    "x86-64-v2": ("cx16", "popcnt", "sse4_1", "sse4_2", "ssse3"),
}
"""The instruction sets that a wheel for x86-64 is built for; one for another processor has only that processor's baseline."""


def prebuilt(source: str) -> Path | None:
    """Return the library of a C source for the best instruction set of this processor, or None if there is none."""
    found = next((path for level in levels() for path in FOLDER.glob(f"{Path(source).stem}-{level}-*.so")), None)
    if found:
        share_openmp()
    return found


def levels() -> list[str]:
    """Return the instruction sets of this processor for which a wheel may carry libraries, best first."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return [platform.machine()]
    has = set(processor().split())
    return [level for level, needed in LEVELS.items() if has.issuperset(needed)]


def share_openmp() -> None:
    """Let libraries that are opened later use the OpenMP that torch has loaded, whatever its file is called.

    A wheel's libraries name no OpenMP, because the system may have none. Most builds of torch share theirs by themselves.
    """
    if not hasattr(ctypes.CDLL(None), "GOMP_parallel"):
        mapped = Path("/proc/self/maps").read_text(encoding="utf-8", errors="replace")
        for path in set(re.findall(r"/.*/lib(?:gomp|iomp5|omp)[-.].*", mapped)):
            with contextlib.suppress(OSError):
                ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
