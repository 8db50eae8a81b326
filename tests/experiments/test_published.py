"""Every published number in the experiments' files is the supplement's, cell by cell and digit by digit."""

import os
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPOSITORY, WORKFLOW

# A text of the supplement, to check the quoted tables against: named by the environment, or in a folder beside the checkout.
# It is the authors', so no copy is kept here.
BESIDE = [str(path) for path in REPOSITORY.parent.glob("*/supplement.txt")]
FULL_TEXT = os.environ.get("STLIGHT_SUPPLEMENT") or next(iter(BESIDE), "")


def quoted_tables():
    tables, current = {}, None
    for line in (REPOSITORY / "tests" / "supplement_tables.txt").read_text().splitlines():
        if line.startswith("["):
            current = tables.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            current.append(line.split("\t"))
    return tables


def published(name):
    """The entries as text, so that 21.80 stays 21.80."""
    content = yaml.load((WORKFLOW / "experiments" / f"{name}.yaml").read_text(), Loader=yaml.BaseLoader)
    return content["published"]


def test_table_1():
    expected = Counter()
    registered = {"ConvLSTM": "ConvLSTM-S", "PredRNNv2": "PredRNN.V2"}
    datasets = [("mmnist", "mse"), ("taxibj", "mse_x100"), ("kth", "ssim")]
    for label, *cells in quoted_tables()["Table 1"][1:]:
        model, _, source = label.partition(" [")
        for (dataset, metric), cell in zip(datasets, cells, strict=True):
            if cell != "-":
                ours = "Ours" in model
                expected[
                    "STLight-L" if ours else registered.get(model, model), "" if ours else f"[{source}", dataset, metric, cell
                ] += 1
    found = Counter(
        (entry.get("model", "STLight-L"), entry.get("source", ""), entry["dataset"], metric, entry[metric])
        for entry in published("table1_literature")
        for metric in ("mse", "mse_x100", "ssim")
        if metric in entry
    )
    assert found == expected


def test_table_2():
    metrics = ["num_params", "benchmark_flops", "mse", "mae", "ssim"]
    expected = {row[0].removesuffix(" (Ours)"): row[1:] for row in quoted_tables()["Table 2"][1:]}
    found = {e.get("model", "STLight-L"): [e[metric] for metric in metrics] for e in published("table2_openstl")}
    assert found == expected


def two_way(table, entries, row, column):
    header, *rows = quoted_tables()[table]
    expected = {(cells[0], name): cell for cells in rows for name, cell in zip(header[1:], cells[1:], strict=True)}
    assert {(e[row], e[column]): e["mse"] for e in entries} == expected
    assert len(entries) == len(expected)


def test_table_3():
    two_way("Table 3", published("table3_kernel_sizes"), "k1", "k2")


def test_table_5():
    two_way("Table 5", published("table5_final_div_factor"), "final_div_factor", "max_lr")


def test_table_4():
    rows = [row for row in quoted_tables()["Table 4"][1:] if "" not in row]
    expected = [[lr, epochs, mse, mae, ssim] for lr, _, epochs, mse, mae, ssim in rows]
    columns = ["max_lr", "num_epochs", "mse", "mae", "ssim"]
    assert [[e[c] for c in columns] for e in published("table4_learning_rate_epochs")] == expected
    assert {row[1] for row in rows} == {"10000"}


def test_no_other_experiment_claims_published_numbers():
    names = {path.stem for path in (WORKFLOW / "experiments").glob("*.yaml") if "\npublished:" in path.read_text()}
    of_the_main_paper = {name for name in names if name.startswith("main_")}
    assert {name.split("_")[0] for name in names - of_the_main_paper} == {"table1", "table2", "table3", "table4", "table5"}
    assert of_the_main_paper == {"main_table3_sizes", "main_table4_skip"}


@pytest.mark.skipif(not FULL_TEXT, reason="no text of the supplement: STLIGHT_SUPPLEMENT names none")
def test_the_quoted_tables_are_in_the_supplement_s_text():
    lines = {" ".join(line.split()) for line in Path(FULL_TEXT).read_text().splitlines()}
    for rows in quoted_tables().values():
        for row in rows:
            assert " ".join(" ".join(row).split()) in lines
