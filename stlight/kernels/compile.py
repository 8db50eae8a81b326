"""Compile the C sources once for this machine and open them; without a compiler there is no library."""

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
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


@cache
def processor() -> str:
    """Describe the processor, on which -march=native depends, because machines of several kinds may share a cache."""
    if sys.platform == "linux":
        found = re.findall("^(?:flags|Features|model name).*", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
        return "\n".join(dict.fromkeys(found))
    return platform.processor()


if platform.machine() in ("x86_64", "AMD64"):
    # Because gcc tunes for half of the registers' width on some processors, and on virtual ones that it takes for them.
    _FLAGS += [f"-mprefer-vector-width={512 if 'avx512f' in processor() else 256}"]


@cache
def library(source: str) -> ctypes.CDLL | None:
    """Compile and open a C file of this folder. Return None, with one warning, if that fails."""
    if os.environ.get("STLIGHT_KERNELS") == "off":
        return None
    try:
        opened = _open(_FOLDER / source, [*shlex.split(os.environ.get("CC") or "gcc"), *_FLAGS])
    except (OSError, subprocess.CalledProcessError) as error:
        why = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else error
        logger.warning("no compiled kernels (%s): computing with plain PyTorch, which is slower on a CPU", why)
        return None
    for name, parameters in re.findall(
        r"^(?:int|void) (\w+)\((.*?)\) \{", (_FOLDER / source).read_text(), re.MULTILINE | re.DOTALL
    ):
        getattr(opened, name).argtypes = [_ctype(parameter) for parameter in parameters.split(",")]
    return opened


def _ctype(parameter: str) -> type:
    """Return the type for ctypes of a parameter as it is declared in C. Addresses have no type, so that None is one."""
    if "*" in parameter:
        return ctypes.c_void_p
    return {"int": ctypes.c_int, "long": ctypes.c_long, "double": ctypes.c_double}[parameter.split()[0]]


def _open(source: Path, command: list[str]) -> ctypes.CDLL:
    """Open the library for this source, compiler and processor, from the user's cache if possible; otherwise build it."""
    sources = [path.read_text() for path in (source, *sorted(_FOLDER.glob("*.h")))]
    key = "\0".join([*sources, *command, platform.machine(), processor()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    folder = cache_folder()
    if folder and (folder / name).exists():
        # It may be damaged, or built by another system that shares the home: then it is built again.
        with contextlib.suppress(OSError):
            return ctypes.CDLL(str(folder / name))
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / name
        subprocess.run([*command, "-o", str(built), str(source), "-lm"], check=True, capture_output=True, text=True)
        opened = ctypes.CDLL(str(built))
        if folder:
            # Runs that start at the same time each build the library; the last to finish leaves it in the cache.
            built.replace(folder / name)
        return opened


def cache_folder() -> Path | None:
    """Return the user's cache folder, or None if it cannot be written, as in some containers."""
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stlight"
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None
