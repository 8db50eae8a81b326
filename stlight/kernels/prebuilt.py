"""Find the libraries of the C kernels that a wheel carries, for machines without a compiler; a checkout has none."""

import platform
from pathlib import Path

from stlight.runtime.processor import processor

FOLDER = Path(__file__).parent / "built"
"""Holds `<source>-<level>.so`. It exists in a wheel only."""

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
    if platform.machine() in ("x86_64", "AMD64"):
        has = set(processor().split())
        levels = [level for level, needed in LEVELS.items() if has.issuperset(needed)]
    else:
        levels = [platform.machine()]
    paths = [FOLDER / f"{Path(source).stem}-{level}.so" for level in levels]
    return next((path for path in paths if path.is_file()), None)
