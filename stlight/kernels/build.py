"""Compiles the C sources once for this machine and opens them; without a compiler there is simply no library."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

logger = logging.getLogger(__name__)

_FOLDER = Path(__file__).parent

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
def library(source: str, *flags: str) -> ctypes.CDLL | None:
    """A C file of this folder, compiled with these flags besides the usual; None, said once, where that cannot be had."""
    if os.environ.get("STLIGHT_KERNELS") == "off":
        return None
    wanted = shlex.split(os.environ.get("CC", ""))
    compilers = [wanted] if wanted else []
    compilers += [[found] for name in ("gcc", "cc") if (found := shutil.which(name))]
    reasons = []
    for compiler in compilers:
        try:
            return _open(_FOLDER / source, [*compiler, *_FLAGS, *flags])
        except (OSError, subprocess.CalledProcessError) as error:
            detail = error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else error
            reasons.append(f"{shlex.join(compiler)}: {detail}")
    why = "; ".join(reasons) or "no C compiler (gcc or cc) is there"
    logger.warning("no compiled kernels (%s): computing by plain PyTorch, slower on a CPU", why)
    return None


def _open(source: Path, command: list[str]) -> ctypes.CDLL:
    """The library for this source, compiler and processor: from the user's cache, or built there or in a temporary folder."""
    key = "\0".join([source.read_text(), *command, platform.machine(), processor()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    folder = cache_folder()
    if folder and (folder / name).exists():
        try:
            return ctypes.CDLL(str(folder / name))
        except OSError:
            # Damaged, or of another system in a shared home.
            logger.warning("%s cannot be opened: building it again", folder / name)
    scratch = Path(tempfile.mkdtemp(dir=folder))
    try:
        built = scratch / name
        subprocess.run([*command, "-o", str(built), str(source), "-lm"], check=True, capture_output=True, text=True)
        opened = ctypes.CDLL(str(built))
        if folder:
            # Several runs may start at once: each builds its own, and the last to finish leaves it for the next.
            built.replace(folder / name)
        return opened
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def cache_folder() -> Path | None:
    """The user's own folder for what can be made again; None where there is none to write to, as in some containers."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stlight"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


@cache
def processor() -> str:
    """What -march=native depends on: a cache in a shared home serves machines of several kinds."""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
    return platform.processor()
