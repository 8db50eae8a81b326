"""Build what pyproject.toml cannot state: the workflow as package data, and the C kernels compiled for common processors.

Both are in a wheel only. An editable install uses the checkout's workflow, and compiles the kernels when they are first used.
"""

import ast
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
KERNELS = HERE / "stlight" / "kernels"


def strings(path: Path, name: str) -> list[str]:
    """Return the strings in a list, or the keys in a dictionary, that a module assigns to a name.

    The module is not imported, because its package needs torch, which an isolated build lacks.
    """
    statements = ast.parse(path.read_text(encoding="utf-8")).body
    value = next(s.value for s in statements if isinstance(s, ast.Assign) and ast.unparse(s.targets[0]) == name)
    nodes = value.keys if isinstance(value, ast.Dict) else ast.walk(value)
    return [node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def flags(level: str) -> list[str]:
    """Return the flags of `stlight.kernels.compile` for a level of processors instead of this machine's."""
    common = [flag for flag in strings(KERNELS / "compile.py", "_FLAGS") if flag != "-march=native"]
    if not level.startswith("x86-64"):
        return common
    return [*common, f"-march={level}", f"-mprefer-vector-width={512 if level == 'x86-64-v4' else 256}"]


def levels() -> list[str]:
    """Return the names under which `stlight.kernels.prebuilt` looks for this machine's libraries."""
    x86 = platform.machine() in ("x86_64", "AMD64")
    return strings(KERNELS / "prebuilt.py", "LEVELS") if x86 else [platform.machine()]


def compile_kernel(source: Path, level: str, built: Path) -> str:
    """Compile a C source for a level. Return what the compiler said if it failed, else an empty text."""
    compiler = shlex.split(os.environ.get("CC") or "gcc")
    compiled, library = built / f"{source.stem}-{level}.o", built / f"{source.stem}-{level}.so"
    try:
        for command in (
            [*(flag for flag in flags(level) if flag != "-shared"), "-c", "-o", compiled, source],
            # Linked without -fopenmp, the library takes the OpenMP that torch has loaded and needs none of the system.
            ["-shared", "-o", library, compiled, "-lm"],
        ):
            subprocess.run([*compiler, *command], check=True, capture_output=True, encoding="utf-8", errors="replace")
        # The cache of measured times knows a library by its name, so that another one must have another name.
        library.rename(library.with_stem(f"{library.stem}-{hashlib.sha256(library.read_bytes()).hexdigest()[:16]}"))
    except (OSError, subprocess.CalledProcessError) as error:
        return (getattr(error, "stderr", None) or str(error)).strip()
    finally:
        compiled.unlink(missing_ok=True)
    return ""


class BuildWithKernels(build_py):
    """Copy the workflow into the package and compile the kernels, but for an editable install."""

    def run(self) -> None:
        """Fill the folder from which a wheel is made."""
        super().run()
        if self.editable_mode:
            return
        package = Path(self.build_lib) / "stlight"
        for origin, target in (("workflow", "workflow"), ("profiles", "workflow/profiles")):
            shutil.rmtree(package / target, ignore_errors=True)
            shutil.copytree(HERE / origin, package / target, ignore=shutil.ignore_patterns(".*", "__pycache__"))
        built = package / "kernels" / "built"
        shutil.rmtree(built, ignore_errors=True)
        if sys.platform == "linux":
            built.mkdir()
            jobs = [(source, level, built) for level in levels() for source in sorted(KERNELS.glob("*.c"))]
            with ThreadPoolExecutor(os.cpu_count()) as threads:
                failures = dict.fromkeys(filter(None, threads.map(lambda job: compile_kernel(*job), jobs)))
            for failure in failures:
                self.warn(f"a kernel was not compiled: {failure}")


class PlatformWheel(bdist_wheel):
    """Name the platform in the wheel's tag if the wheel holds compiled kernels. They depend on no version of Python."""

    def run(self) -> None:
        """Build first, because only then it is known if there are compiled kernels."""
        self.run_command("build")
        built = Path(self.get_finalized_command("build_py").build_lib) / "stlight" / "kernels" / "built"
        if any(built.glob("*.so")):
            self.root_is_pure = False
            self.distribution.has_ext_modules = lambda: True
        super().run()

    def get_tag(self) -> tuple[str, str, str]:
        """Return the tag of Python, that of its binary interface, and that of the platform."""
        return super().get_tag() if self.root_is_pure else ("py3", "none", super().get_tag()[2])


if __name__ == "__main__":
    setup(cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel})
