"""State where a run's numbers come from: the version of the code, the libraries and the data."""

import ast
import hashlib
import platform
import re
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Files and rooms of the package that compute a run's numbers. Records and checkpoints of two versions of these do not mix.
COMPUTE = ("config.py", "metrics.py", "registry", "data", "model", "kernels", "training")
# Parts of these rooms that fetch, find, store or show, and cannot change a number.
DO_NOT_COMPUTE = (
    "data/fetching",
    "kernels/prebuilt.py",
    "registry/metric_specs.py",
    "training/checkpoint.py",
    "training/progress.py",
)

_C_COMMENT = re.compile(r'("(?:\\.|[^"\\\n])*")|/\*.*?\*/|//[^\n]*', re.DOTALL)

_PACKAGE = Path(__file__).resolve().parent.parent


def provenance(data: dict[str, Any]) -> dict[str, Any]:
    """Return the versions of code, libraries and Python beside the facts about the data; the caller adds the times."""
    libraries = {name: version(name) for name in ("stlight", "torch", "numpy")}
    code = {"code": code_version(), "source": source_version()}
    return code | {"libraries": libraries, "python": platform.python_version(), "data": data}


@cache
def source_version(package: Path = _PACKAGE) -> str:
    """Return 16 hex digits that change if code that computes numbers changes.

    It is the start of a SHA-256 over the syntax of the Python files, without comments, docstrings, layout, the arguments of
    raised errors, calls of `logger` and keyword arguments of `tqdm`, and over the C files without comments and layout.
    """
    digest = hashlib.sha256()
    for path in computing_files(package):
        text = path.read_text(encoding="utf-8")
        content = _syntax(ast.parse(text)) if path.suffix == ".py" else _c_lines(text)
        digest.update(f"{path.relative_to(package).as_posix()}\0{content}\0".encode())
    return digest.hexdigest()[:16]


def computing_files(package: Path = _PACKAGE) -> list[Path]:
    """Return the sources that compute numbers."""
    excluded = [package / name for name in DO_NOT_COMPUTE]
    paths = [path for name in COMPUTE for path in ((package / name).rglob("*") if "." not in name else [package / name])]
    sources = [path for path in paths if path.suffix in (".py", ".c", ".h")]
    return sorted(path for path in sources if not any(path.is_relative_to(other) for other in excluded))


@cache
def code_version() -> str:
    """Return the git commit, with "+changes" if tracked files differ from it, or the package's version without git."""
    folder = _PACKAGE.parent
    if not (folder / ".git").exists():
        return version("stlight")
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+changes", "--abbrev=12", "--exclude=*"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        answer = ""
    return answer or version("stlight")


def _syntax(node: Any) -> str:
    """Return a text of a syntax tree without docstrings (strings that stand alone) and what only tells or shows something.

    `ast.dump` will not do because its text depends on the version of Python.
    """
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
        node.exc = node.exc.func
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "tqdm":
        node.keywords = []
    if isinstance(node, ast.AST):
        fields = ((name, getattr(node, name, None)) for name in node._fields)
        content = ",".join([f"{name}={_syntax(value)}" for name, value in fields if value is not None and value != []])
        return f"{type(node).__name__}({content})"
    if isinstance(node, list):
        return f"[{','.join([_syntax(each) for each in node if not (_is_docstring(each) or _only_logs(each))])}]"
    return repr(node)


def _is_docstring(node: Any) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _only_logs(node: Any) -> bool:
    function = node.value.func if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call) else None
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id == "logger"


def _c_lines(text: str) -> str:
    without_comments = _C_COMMENT.sub(lambda match: match[1] or " ", text)
    lines = (" ".join(line.split()) for line in without_comments.splitlines())
    return "\n".join(filter(None, lines))
