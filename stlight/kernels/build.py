"""Compiles mixer.c once for this machine and opens it; without a compiler there is simply no library."""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_SOURCE = Path(__file__).with_name("mixer.c")

# What -ffast-math has of use, without what it breaks: NaN stays NaN, so that divergence is seen, and linking does not turn
# on flushing to zero for the whole process.
_FLAGS = [
    *("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno", "-freciprocal-math"),
]
if platform.machine() in ("x86_64", "AMD64"):
    # Some processors, and virtual ones taken for them, are tuned for half of the registers' width.
    _FLAGS += ["-mprefer-vector-width=256"]


@cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None, said once, where they cannot be had: no compiler, or one that fails."""
    if os.environ.get("STLIGHT_KERNELS") == "off":
        return None
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        logger.warning("no C compiler (gcc or cc): training by plain PyTorch, several times slower on a CPU")
        return None
    try:
        return ctypes.CDLL(str(_compiled(compiler)))
    except (OSError, subprocess.CalledProcessError) as error:
        detail = error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else error
        logger.warning("%s cannot build the kernels (%s): training by plain PyTorch, slower on a CPU", compiler, detail)
        return None


def _compiled(compiler: str) -> Path:
    """The shared library for this source, compiler and processor, built if it is not in the user's cache."""
    key = "\0".join([_SOURCE.read_text(), compiler, *_FLAGS, platform.machine(), _processor()])
    name = f"mixer-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    path = _cache_folder() / name
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        # Several runs may start at once: each builds its own, and the last to finish takes the name.
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".so", delete=False) as partial:
            command = [compiler, *_FLAGS, "-o", partial.name, str(_SOURCE), "-lm"]
        subprocess.run(command, check=True, capture_output=True, text=True)
        Path(partial.name).replace(path)
    return path


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stlight"


def _processor() -> str:
    """What -march=native depends on: a cache in a shared home serves machines of several kinds."""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
    return platform.processor()
