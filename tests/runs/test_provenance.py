"""The version of the code changes if, and only if, code that computes numbers does."""

import shutil
from pathlib import Path

import pytest

import stlight
from stlight.runs import provenance
from stlight.runs.provenance import COMPUTE, DO_NOT_COMPUTE, computing_files, source_version

PACKAGE = Path(stlight.__file__).parent
# Rooms of the package that compute no number of a run. A new room belongs here or in `COMPUTE`.
OTHER_ROOMS = {"__init__.py", "__main__.py", "cli.py", "workflow_support"}
OTHER_ROOMS |= {"analysis", "commands", "costs", "experiments", "openstl", "runs", "runtime"}


@pytest.fixture
def package(tmp_path):
    """A copy of the package to change."""
    return shutil.copytree(PACKAGE, tmp_path / "stlight", ignore=shutil.ignore_patterns("__pycache__"))


def version(package):
    return source_version.__wrapped__(package)


def replace(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_every_room_either_computes_numbers_or_does_not():
    rooms = {path.name for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms == set(COMPUTE) | OTHER_ROOMS, "add a new room to COMPUTE in stlight/runs/provenance.py or to OTHER_ROOMS"
    assert set(COMPUTE).isdisjoint(OTHER_ROOMS)
    assert [name for name in DO_NOT_COMPUTE if not (PACKAGE / name).exists()] == []


@pytest.mark.parametrize(
    ("room", "suffix"), [*((room, ".py") for room in COMPUTE), ("kernels", ".c"), ("model/baselines", ".py")]
)
def test_a_changed_line_of_code_in_a_computing_room_changes_the_version(package, room, suffix):
    before = version(package)
    files = [path for path in computing_files(package) if path.is_relative_to(package / room)]
    path = next(path for path in files if path.suffix == suffix)
    path.write_text(path.read_text() + ("\nADDED = 1\n" if suffix == ".py" else "\nint added;\n"))
    assert version(package) != before


PYTHON = '''"""A module."""
LIMIT = 0.5  # a comment

def loss(x, scale=2):
    """Return the loss."""
    if x > LIMIT:
        raise ValueError(f"{x} is above {LIMIT}")
    return scale * (x + 1)
'''
C = """/* a comment */
#define SCALE 2 // another
float loss(float x) { return SCALE * x + 1; }
char *text = "/* no comment */";
"""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another"),
        ("A module", "A changed module"),
        ("Return the loss", "Return the other loss"),
        ('    """Return the loss."""\n', ""),
        ("{x} is above", "{x!r} is greater than"),
        ("scale=2):\n", "\n  scale=2,\n):\n\n"),
        ("(x + 1)", "(x+1)"),
    ],
)
def test_a_comment_docstring_layout_or_error_message_does_not_change_the_version(package, old, new):
    path = package / "model" / "added.py"
    path.write_text(PYTHON)
    before = version(package)
    replace(path, old, new)
    assert version(package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 0.5", "LIMIT = 0.25"),
        ("x + 1", "x - 1"),
        ("scale=2", "scale=3"),
        ("ValueError", "TypeError"),
        ("x > L", "x >= L"),
    ],
)
def test_a_constant_operator_default_or_error_type_changes_the_version(package, old, new):
    path = package / "model" / "added.py"
    path.write_text(PYTHON)
    before = version(package)
    replace(path, old, new)
    assert version(package) != before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("training/run.py", '"%s: resumes from epoch', '"%s: goes on from epoch'),
        ("training/run.py", 'logger.warning("%s: resumes', 'logger.info("%s: resumes'),
        ("kernels/race.py", "dropped out while being timed: %s%s", "failed: %s%s"),
        ("kernels/compile.py", "        logger.warning(", "        logger.info("),
        ("data/prepare.py", 'desc=f"reading', 'desc=f"converting'),
        ("data/prepare.py", 'unit=" frames"', 'unit=" pictures"'),
    ],
)
def test_a_log_message_or_progress_bar_does_not_change_the_version(package, file, old, new):
    before = version(package)
    replace(package / file, old, new)
    assert version(package) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("logger.info(x)", "x = logger.info(x)"),
        ("logger.info(x)", "other.info(x)"),
        ("logger.info(x)", "x += 1"),
        ("tqdm(x, ", "tqdm(x + 1, "),
        ("tqdm(x, desc=", "sum(x, start="),
    ],
)
def test_other_calls_and_what_a_progress_bar_iterates_over_change_the_version(package, old, new):
    path = package / "model" / "added.py"
    path.write_text("def f(x):\n    logger.info(x)\n    return [*tqdm(x, desc='f')]\n")
    before = version(package)
    replace(path, old, new)
    assert version(package) != before


def test_in_c_only_comments_and_blank_space_do_not_count(package):
    path = package / "kernels" / "added.c"
    path.write_text(C)
    before = version(package)
    path.write_text(C.replace("/* a comment */", "").replace("// another", "").replace("float x)", "float  x)\t"))
    assert version(package) == before
    for old, new in (("SCALE 2", "SCALE 3"), ("x + 1", "x - 1"), ("/* no comment */", "")):
        path.write_text(C.replace(old, new))
        assert version(package) != before


def test_progress_bar_downloader_checkpoint_and_commands_do_not_change_the_version(package):
    before = version(package)
    files = [
        path
        for name in DO_NOT_COMPUTE
        for path in ([package / name] if name.endswith(".py") else (package / name).rglob("*.py"))
    ]
    for path in [*files, *(package / "commands").glob("*.py"), package / "cli.py", package / "runs" / "record.py"]:
        path.write_text(path.read_text() + "\nADDED = 1\n")
    assert version(package) == before


def test_without_git_the_package_s_version_stands_for_the_commit(monkeypatch, tmp_path):
    (tmp_path / ".git").mkdir()
    monkeypatch.setattr(provenance, "_PACKAGE", tmp_path / "stlight")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert provenance.code_version.__wrapped__() == stlight.__version__
