"""Open the libraries of the C sources: those that a wheel carries, or compiled once for this machine."""

import contextlib
import ctypes
import hashlib
import logging
import os
import platform
import re
import shlex
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from stlight.kernels.prebuilt import prebuilt
from stlight.runtime.process import kernels_are_off
from stlight.runtime.processor import processor
from stlight.runtime.trust import private_folder, sha256, weakness

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
    _FLAGS += [f"-mprefer-vector-width={512 if 'avx512f' in processor() else 256}"]


@cache
def library(source: str) -> ctypes.CDLL | None:
    """Open the library of a C file of this folder, and compile it first if no wheel carries it.

    Returns None, with one warning, if that fails.

    Raises `ValueError` if STLIGHT_KERNELS has another value than off.
    """
    if kernels_are_off():
        return None
    compiler = os.environ.get("CC") or "gcc"
    try:
        opened = _prebuilt(source) or _compiled(_FOLDER / source, [*shlex.split(compiler), *_FLAGS])
    except (OSError, ValueError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
        why = f"CC={compiler}: {said or 'it failed without a word'}"
        logger.warning("no compiled kernels (%s): computing with plain PyTorch, which is slower on a CPU", why)
        return None
    for name, parameters in re.findall(
        r"^(?:int|void) (\w+)\((.*?)\) \{", (_FOLDER / source).read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        getattr(opened, name).argtypes = [_ctype(parameter) for parameter in parameters.split(",")]
    return opened


def _ctype(parameter: str) -> type:
    """Return the type for ctypes of a parameter as it is declared in C. Addresses have no type, so that None is one."""
    if "*" in parameter:
        return ctypes.c_void_p
    return {"int": ctypes.c_int, "long": ctypes.c_long, "double": ctypes.c_double}[parameter.split()[0]]


def _prebuilt(source: str) -> ctypes.CDLL | None:
    # One that needs a library which this system lacks does not open.
    with contextlib.suppress(OSError):
        if path := prebuilt(source):
            return ctypes.CDLL(str(path))
    return None


def _compiled(source: Path, command: list[str]) -> ctypes.CDLL:
    """Open the library for this source, compiler and processor, from the user's cache if it is whole; otherwise build it.

    The name of a cached library ends in its checksum, because to open one that is cut short kills the process.
    """
    sources = [path.read_text(encoding="utf-8") for path in (source, *sorted(_FOLDER.glob("*.h")))]
    key = "\0".join([*sources, *command, platform.machine(), processor()])
    name = f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    folder = cache_folder()
    for path in folder.glob(f"{name}-*.so") if folder else ():
        # Another system that shares the home may have built it: then it is whole, but does not open here.
        with contextlib.suppress(OSError):
            if path.stem == f"{name}-{_checksum(path)}" and not weakness(path):
                return ctypes.CDLL(str(path))
            logger.warning("%s is damaged or not only yours: it is built again", path)
            path.unlink()
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        built = Path(scratch) / f"{name}.so"
        subprocess.run(
            [*command, "-o", str(built), str(source), "-lm"],
            check=True,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
        )
        built.chmod(0o700)
        built = built.rename(built.with_stem(f"{name}-{_checksum(built)}"))
        opened = ctypes.CDLL(str(built))
        if folder:
            with built.open("rb") as file:
                os.fsync(file.fileno())
            # Runs that start at the same time each build the library; the last to finish leaves it in the cache.
            built.replace(folder / built.name)
        return opened


def _checksum(path: Path) -> str:
    return sha256(path.read_bytes())[:32]


def cache_folder() -> Path | None:
    """Return the user's cache folder, or None if others could write to it, or it cannot be written, as in some containers."""
    try:
        folder = private_folder(Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stlight")
    except PermissionError as error:
        _warn_once(f"nothing is cached: {error}")
        return None
    except (OSError, RuntimeError):
        return None
    return folder if os.access(folder, os.W_OK) else None


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)
