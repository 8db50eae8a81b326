"""Compile the C sources once for this machine and open them; without a compiler there is no library."""

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

# The useful parts of -ffast-math. The others would hide a divergence, because NaN would not stay NaN, and linking would turn on
# flushing to zero for the whole process.
_FLAGS = [
    *("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared"),
    *("-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math", "-fno-math-errno", "-freciprocal-math"),
]
if platform.machine() in ("x86_64", "AMD64"):
    # Because gcc tunes for half of the registers' width on some processors, and on virtual ones that it takes for them.
    _FLAGS += ["-mprefer-vector-width=256"]


@cache
def library(source: str, *flags: str) -> ctypes.CDLL | None:
    """Compile and open a C file of this folder with additional flags. Return None, with one warning, if that fails."""
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
    why = "; ".join(reasons) or "no C compiler (gcc or cc) was found"
    logger.warning("no compiled kernels (%s): computing with plain PyTorch, which is slower on a CPU", why)
    return None


def _open(source: Path, command: list[str]) -> ctypes.CDLL:
    """Open the library for this source, compiler and processor, from the user's cache if possible; otherwise build it."""
    sources = [path.read_text() for path in (source, *sorted(_FOLDER.glob("*.h")))]
    key = "\0".join([*sources, *command, platform.machine(), processor()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    folder = cache_folder()
    if folder and (folder / name).exists():
        try:
            return ctypes.CDLL(str(folder / name))
        except OSError:
            # Damaged, or built by another system that shares the home.
            logger.warning("%s cannot be opened: building it again", folder / name)
    scratch = Path(tempfile.mkdtemp(dir=folder))
    try:
        built = scratch / name
        subprocess.run([*command, "-o", str(built), str(source), "-lm"], check=True, capture_output=True, text=True)
        opened = ctypes.CDLL(str(built))
        if folder:
            # Runs that start at the same time each build the library; the last to finish leaves it in the cache.
            built.replace(folder / name)
        return opened
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def cache_folder() -> Path | None:
    """Return the user's cache folder, or None if it cannot be written, as in some containers."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stlight"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


@cache
def processor() -> str:
    """Describe the processor, on which -march=native depends, because machines of several kinds may share a cache."""
    if sys.platform == "linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return "\n".join(dict.fromkeys(line for line in lines if line.startswith(("flags", "Features", "model name"))))
    return platform.processor()
