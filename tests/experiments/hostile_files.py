"""Files that an experiment's folder may hold by accident or malice, and what loading them must answer.

`python -m tests.experiments.hostile_files MINUTES` tries files for so long and prints how many it tried, and what failed.
"""

import re
import shutil
import sys
import tempfile
import time
from pathlib import Path

import yaml
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from stlight.experiments import ExperimentError, load_plan
from tests.conftest import WORKFLOW

GOOD = """\
title: Mine
paper: {section: "-", item: Mine}
summary: Words.
seeds: 2
shorter: {demo: 0.5}
base: {max_lr: 1e-3, skip: true}
grid: {depth: [8, 16], k1: [3, 5]}
metrics: [mse, num_params]
published: [{depth: 8, k1: 3, mse: 21.80}, {model: Other, mse: 22}]
table: {rows: depth, columns: k1}
figure: {kind: heatmap, x: depth, y: k1, metric: mse}
data_sets: {balls: {clips_per_epoch: 9, validation_clips: 3, test_clips: 3, context_frames: 4, horizon_frames: 4, channels: 1,
  height: 16, width: 16}}
claims:
  - {id: first, sentence: Words., metric: mse, better: {this: {depth: 8}, than: {depth: 16}}}
  - {id: second, sentence: Words., metric: mse, trend: {axis: depth, becomes: better}}
"""
_SOURCES = [GOOD, *(path.read_text() for path in sorted((WORKFLOW / "experiments").glob("*.yaml")))]

# What PyYAML turns into numbers, dates, bytes and errors, and what the suite does with names and numbers.
_TOKENS = [
    "&a",
    "*a",
    "<<",
    "!!int x",
    "!!map x",
    "!!set {a}",
    "!!binary x",
    "!!timestamp x",
    "!!python/name:os.system",
    "0x" + "f" * 5000,
]
_TOKENS += [
    "0b_",
    "1" + "0" * 400,
    "1" + "0" * 5000,
    ".nan",
    "-.inf",
    "1e999",
    "5e-324",
    "2020-13-45",
    "1:99",
    "~",
    "yes",
    "=",
    "[" * 99,
]
_TOKENS += [
    "{" * 99,
    "- - - -",
    "? ",
    "---",
    "...",
    "%YAML 9",
    "\t",
    "\0",
    "\ufeff",
    "\x85",
    "'",
    '"\\ud800"',
    '"\\x07"',
    "|",
    ">-",
    "#",
    "__class__",
]
_TOKENS += [
    "others",
    "model",
    "STLight-L",
    "taxibj",
    "kth",
    "balls",
    "9007199254740993",
    "-1",
    "0",
    "1e-3",
    "true",
    "null",
    "depth",
    "mse",
]

_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.text(max_size=20)
    | st.dates()
    | st.sampled_from(
        ["depth", "k1", "mse", "num_params", "model", "others", "STLight-L", "TAU", "demo", "-", "taxibj", "cosine", "rollout"]
    )
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | _scalars, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def damaged_text(draw: st.DrawFn) -> bytes:
    """Return a file of the suite with tokens and bytes put in and parts taken out."""
    text = draw(st.sampled_from(_SOURCES)).encode()
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(text)))
        end = start + draw(st.integers(0, 40))
        token = draw(st.sampled_from(_TOKENS).map(str.encode) | st.binary(max_size=6))
        text = text[:start] + token + text[end:]
    return text


@st.composite
def other_values(draw: st.DrawFn) -> bytes:
    """Return a valid file with some of its values replaced by other ones, wherever they lie."""
    content = yaml.safe_load(GOOD)
    for _ in range(draw(st.integers(1, 3))):
        here = content
        while True:
            key = draw(st.sampled_from(list(here if isinstance(here, dict) else range(len(here)))))
            if not (isinstance(here[key], dict | list) and here[key]) or draw(st.integers(0, 2)) == 0:
                break
            here = here[key]
        here[key] = draw(_values)
    return yaml.safe_dump(content, allow_unicode=True).encode("utf-8", "surrogatepass")


FILES = damaged_text() | other_values()


def loads_or_answers(workflow: Path, content: bytes) -> str:
    """Load a workflow of one file and return "loaded" or the answer, which must be an `ExperimentError` of one line."""
    (workflow / "experiments" / "mine.yaml").write_bytes(content)
    try:
        load_plan(workflow, "demo")
    except ExperimentError as error:
        answer = str(error)
        # The file itself, or the published numbers that it names.
        assert answer.startswith((f"{workflow}/experiments/mine.yaml: ", f"{workflow}/published/")), answer
        assert len(answer.splitlines()) == 1, answer
        assert len(answer) < 2000, answer
        return answer
    return "loaded"


def small_workflow(folder: Path) -> Path:
    """Make a workflow folder with no experiment, and with the scales without what they say about experiments."""
    (folder / "experiments").mkdir(parents=True)
    shutil.copytree(WORKFLOW / "published", folder / "published")
    for path in shutil.copytree(WORKFLOW / "scales", folder / "scales").iterdir():
        path.write_text(re.sub(r"^more_seeds:\n(  .*\n)+", "", path.read_text(), flags=re.MULTILINE))
    return folder


def _search(minutes: float) -> None:
    tried, loaded, slowest, round_ = 0, 0, (0.0, b""), 0
    failures: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as scratch:
        workflow, end = small_workflow(Path(scratch) / "workflow"), time.monotonic() + 60 * minutes

        def try_one(content: bytes) -> None:
            nonlocal tried, loaded, slowest
            start = time.monotonic()
            try:
                loaded += loads_or_answers(workflow, content) == "loaded"
            except Exception as error:
                failures.setdefault(f"{type(error).__name__}: {str(error)[:300]}", content)
            tried, slowest = tried + 1, max(slowest, (time.monotonic() - start, content))

        while time.monotonic() < end:
            round_ += 1
            checks = list(HealthCheck)
            seed(round_)(
                settings(max_examples=500, database=None, deadline=None, suppress_health_check=checks)(given(FILES)(try_one))
            )()
    print(f"{tried} files, {loaded} of them valid, slowest {slowest[0]:.2f} s; {len(failures)} kinds of failures")
    for words, content in failures.items():
        print(f"{words}\n    {content!r}")


if __name__ == "__main__":
    _search(float(sys.argv[1]))
