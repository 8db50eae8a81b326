"""Two folders of results: what each cell is, which verdicts flip, and what the command prints and returns."""

import json
import shutil

import jsonschema
import numpy as np
import pytest

from stlight import cli
from stlight.analysis.comparison.compare import Changed
from tests.conftest import REPOSITORY
from tests.tiny_runs import record_untrained, tiny

REFERENCE = REPOSITORY / "results" / "reference" / "demo"
HEADER = "depth,data,metric,printed,published,measured,low,high,n,selection,status,runs,values"
CLAIMS = "id,experiment,section,sentence,source,protocol,verdict\n"

NUMBER = {"type": ["number", "null"]}
CAUSE = {"kind": {"type": "string"}, "name": {"type": "string"}, "a": {"type": "string"}, "b": {"type": "string"}}


def closed(**properties):
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


# A change here is a new version of the document: raise SCHEMA in text.py.
SCHEMA = closed(
    schema={"const": 1},
    a=closed(folder={"type": "string"}, scale={"type": "string"}),
    b=closed(folder={"type": "string"}, scale={"type": "string"}),
    exit_status={"enum": [0, 1, 2]},
    family_wise_error={"const": 0.05},
    counts=closed(**{
        name: {"type": "integer"}
        for name in ("same", "noise", "different", "undecided", "configuration", "only in A", "only in B")
    }),
    cells={
        "type": "array",
        "items": closed(
            **{name: {"type": "string"} for name in ("experiment", "variant", "metric", "status", "test", "why")},
            **{name: {"type": "integer"} for name in ("n_a", "n_b", "equal_seeds")},
            **dict.fromkeys(("mean_a", "mean_b", "p", "p_adjusted", "least"), NUMBER),
            causes={"type": "array", "items": closed(**CAUSE)},
        ),
    },
    diverged=closed(a={"type": "integer"}, b={"type": "integer"}, p=NUMBER, outcome={"type": "string"}),
    verdicts={
        "type": "array",
        "items": closed(
            **{name: {"type": "string"} for name in ("experiment", "claim", "source", "a", "b")}, flipped={"type": "boolean"}
        ),
    },
    verdicts_in_one_folder=closed(A={"type": "array"}, B={"type": "array"}),
    causes={"type": "array", "items": closed(**CAUSE, cells={"type": "integer"})},
    cost_ratios={"type": "object", "additionalProperties": NUMBER},
)  # fmt: skip


class Writer:
    """Writes the results of one scale: runs of two depths with an MSE each, a count, a timing, and verdicts."""

    def __init__(self, folder):
        self.folder = folder

    def write(self, losses, seeds=None, params=1000, seconds=2.0, verdict="undecided", **fields):
        rows = [HEADER, f"8,none,num_params,,,{params},,,1,-,counted,,", f"8,none,epoch_seconds,,,{seconds},,,1,-,measured,,"]
        for depth, values in losses.items():
            names = [f"taxibj/depth={depth}/seed{k}" for k in range(len(values))]
            for k, (name, value) in enumerate(zip(names, values, strict=True)):
                config = tiny(depth=depth, **fields).model_copy(update={"seed": 100 * depth + (seeds or range(99))[k]})
                status = "done" if np.isfinite(value) else "diverged"
                record_untrained(self.folder, name, config, status=status, mse=value)
            rows.append(f"{depth},stand-in,mse,,,1.0,,,{len(values)},last,done,{';'.join(names)},")
        (self.folder / "tables").mkdir(parents=True, exist_ok=True)
        (self.folder / "tables" / "mine.csv").write_text("\n".join(rows) + "\n")
        (self.folder / "claims.csv").write_text(f"{CLAIMS}deeper,mine,-,Words.,measured,reduced,{verdict}\n")


@pytest.fixture
def a(tmp_path):
    return Writer(tmp_path / "a" / "demo")


@pytest.fixture
def b(tmp_path):
    return Writer(tmp_path / "b" / "demo")


@pytest.fixture
def compared(a, b, capsys):
    """Run the command, and return its exit status and its document."""

    def run():
        status = cli.main(["compare", str(a.folder), str(b.folder), "--json", "-"])
        document = json.loads(capsys.readouterr().out)
        jsonschema.validate(document, SCHEMA)
        assert document["exit_status"] == status
        return status, document

    return run


def statuses(document, metric="mse"):
    return {cell["variant"]: cell["status"] for cell in document["cells"] if cell["metric"] == metric}


def test_copies_are_the_same_to_the_bit(a, b, compared):
    a.write({6: [1.0, 2.0], 9: [3.0, np.inf]})
    shutil.copytree(a.folder, b.folder)
    status, document = compared()
    assert status == 0
    assert statuses(document) == {"depth = 6": "same", "depth = 9": "same"}
    assert document["causes"] == []


def test_a_different_cell_is_found_beside_one_within_noise(a, b, compared):
    a.write({6: [1.0, 2.0, 3.0, 2.5], 9: [1.0, 2.0, 3.0, 2.5]})
    b.write({6: [1.5, 1.7, 2.9, 2.0], 9: [91.0, 92.1, 93.0, 92.4]})
    status, document = compared()
    assert status == 1
    assert statuses(document) == {"depth = 6": "noise", "depth = 9": "different"}


def test_a_count_that_differs_is_different_and_a_timing_is_told_as_a_ratio(a, b, compared):
    a.write({6: [1.0, 2.0]})
    b.write({6: [1.0, 2.0]}, params=1001, seconds=3.0)
    status, document = compared()
    assert status == 1
    assert statuses(document, "num_params") == {"depth = 8": "different"}
    assert document["cost_ratios"] == {"epoch_seconds": 1.5}
    assert statuses(document, "epoch_seconds") == {}


def test_a_cell_of_another_configuration_is_not_tested(a, b, compared):
    a.write({6: [1.0, 1.1, 1.0], 9: [1.0]})
    b.write({6: [91.0, 91.1, 91.0], 9: [1.0]}, max_lr=0.5)
    status, document = compared()
    assert status == 2
    assert statuses(document) == {"depth = 6": "configuration", "depth = 9": "configuration"}
    assert document["cells"][-1]["why"] == "different max_lr"
    assert [(cause["kind"], cause["name"], cause["cells"]) for cause in document["causes"]] == [("configuration", "max_lr", 2)]


def test_kernels_may_differ_and_are_named(a, b, compared):
    a.write({6: [1.0, 2.0]})
    b.write({6: [1.0, 2.5]}, kernels="plain")
    status, document = compared()
    assert (status, statuses(document)) == (0, {"depth = 6": "noise"})
    assert [(cause["kind"], cause["name"]) for cause in document["causes"]] == [("backend", "kernels")]
    assert document["cells"][-1]["equal_seeds"] == 1


def test_cells_of_one_folder_are_told(a, b, compared):
    a.write({6: [1.0], 9: [1.0]})
    b.write({6: [1.0], 12: [1.0]})
    status, document = compared()
    assert status == 0
    assert statuses(document) == {"depth = 6": "same", "depth = 9": "only in A", "depth = 12": "only in B"}


def test_other_seeds_in_other_numbers_are_compared(a, b, compared):
    a.write({6: [1.0, 2.0, 3.0]})
    b.write({6: [1.0, 2.0]}, seeds=[50, 51])
    status, document = compared()
    (cell,) = [cell for cell in document["cells"] if cell["metric"] == "mse"]
    assert (status, cell["status"], cell["test"], cell["n_a"], cell["n_b"]) == (0, "noise", "Welch's t", 3, 2)
    assert [cause["kind"] for cause in document["causes"]] == ["seed"]


def test_runs_that_diverge_on_one_side_only_are_different_although_each_cell_is_undecided(a, b, compared):
    cells = range(6, 36, 3)
    a.write({depth: [1.0] for depth in cells})
    b.write({depth: [np.inf] for depth in cells}, seeds=[7])
    status, document = compared()
    assert status == 1
    assert set(statuses(document).values()) == {"undecided"}
    assert document["diverged"] == {"a": 0, "b": 10, "p": pytest.approx(2 * 0.5**10), "outcome": "different"}


@pytest.mark.parametrize(
    ("ours", "theirs", "status", "flipped"),
    [
        ("reproduced", "contradicted", 1, [True]),
        ("holds at this scale", "reversed at this scale", 1, [True]),
        ("holds at this scale", "undecided", 0, [False]),
        ("holds at this scale", "reproduced", 0, []),
        ("undecided", "undecided", 0, []),
    ],
)
def test_a_verdict_flips_from_one_decision_to_the_opposite(ours, theirs, status, flipped, a, b, compared):
    a.write({6: [1.0]}, verdict=ours)
    b.write({6: [1.0]}, verdict=theirs)
    found, document = compared()
    assert (found, [claim["flipped"] for claim in document["verdicts"]]) == (status, flipped)


def test_a_lost_decision_is_no_flip():
    assert Changed("e", "c", "measured", "reproduced", "undecided").decided_in_one
    assert not Changed("e", "c", "measured", "untested", "undecided").decided_in_one


def test_the_short_text_lists_what_differs_and_all_lists_the_rest(a, b, capsys):
    a.write({6: [1.0, 2.0, 3.0, 2.5], 9: [1.0, 2.0, 3.0, 2.5]}, verdict="reproduced")
    b.write({6: [1.5, 1.7, 2.9, 2.0], 9: [91.0, 92.1, 93.0, 92.4]}, verdict="contradicted")
    short, long = [], []
    for lines, more in ((short, []), (long, ["--all"])):
        assert cli.main(["compare", str(a.folder), str(b.folder), *more]) == 1
        lines.extend(capsys.readouterr().out.splitlines())
    assert [line.split()[0:4] for line in short if line.startswith("mine")] == [["mine", "depth", "=", "9"]]
    assert sum(line.startswith("mine") for line in long) == 3
    assert "  FLIPPED mine: deeper (measured): reproduced → contradicted" in short
    assert short[-1] == "B does not agree with A"


def test_the_document_is_written_to_a_file(a, tmp_path, capsys):
    a.write({6: [1.0]})
    path = tmp_path / "found.json"
    assert cli.main(["compare", str(a.folder), str(a.folder), "--json", str(path)]) == 0
    jsonschema.validate(json.loads(path.read_text()), SCHEMA)
    assert "B agrees with A to the bit" in capsys.readouterr().out


def test_the_reference_is_the_same_as_itself(capsys):
    assert cli.main(["compare", str(REFERENCE), str(REFERENCE), "--json", "-"]) == 0
    document = json.loads(capsys.readouterr().out)
    jsonschema.validate(document, SCHEMA)
    assert document["counts"]["same"] == len(document["cells"]) > 300


def remove(folder):
    shutil.rmtree(folder)


def empty(folder):
    shutil.rmtree(folder)
    folder.mkdir()


def only_header(folder):
    (folder / "tables" / "mine.csv").write_text(HEADER + "\n")


def other_columns(folder):
    (folder / "tables" / "mine.csv").write_text("depth,mse\n6,1\n")


def no_record(folder):
    shutil.rmtree(folder / "runs")


def other_version(folder):
    path = next(folder.rglob("record.json"))
    content = json.loads(path.read_text())
    content["provenance"] = {"libraries": {"stlight": "9.9"}, "source": "feedfeed"}
    path.write_text(json.dumps(content | {"new_field": 1}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (remove, "is missing: compare takes two folders of results of a scale"),
        (empty, "has no tables to compare; finish its runs"),
        (only_header, "has tables without a single number"),
        (other_columns, "has no column metric: another version of the suite wrote it"),
        (no_record, "record.json is missing, although a table lists its run"),
        (other_version, "stlight 9.9 with code feedfeed wrote it, this is stlight"),
    ],
)
def test_what_cannot_be_compared_is_said_in_one_line(change, words, a, b, capsys):
    a.write({6: [1.0]})
    b.write({6: [1.0]})
    change(b.folder)
    assert cli.main(["compare", str(a.folder), str(b.folder)]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.count("\n") == 1
    assert words in told.err


def test_a_folder_of_scales_is_refused_with_their_names(a, capsys):
    a.write({6: [1.0]})
    assert cli.main(["compare", str(a.folder.parent), str(a.folder)]) == 2
    assert "name one of its scales: demo" in capsys.readouterr().err


def test_different_scales_are_said(a, tmp_path, capsys):
    a.write({6: [1.0]})
    shutil.copytree(a.folder, tmp_path / "small")
    assert cli.main(["compare", str(a.folder), str(tmp_path / "small")]) == 0
    assert "different scales, demo and small" in capsys.readouterr().out
