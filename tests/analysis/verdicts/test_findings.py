"""Verdicts on printed numbers, worked by hand; and on records with numbers of the test's choosing."""

import json
import math
import re

import numpy as np
import pandas as pd
import pytest
import yaml

from stlight.analysis.evidence import load_evidence
from stlight.analysis.values import Values
from stlight.analysis.verdicts.findings import as_table
from stlight.analysis.verdicts.measured import Measured, all_findings, seed_spread
from stlight.analysis.verdicts.published import on_published
from stlight.experiments import load_plan
from stlight.registry.model_specs import OURS
from tests.analysis.conftest import write_counts
from tests.tiny_runs import record_untrained


def record(plan, folder, values, **told):
    """Records of the experiment: for each cell the MSE of each seed, None for one that diverged."""
    experiment = plan.experiment("mine")
    for variant, seeds in zip(experiment.variants, values, strict=True):
        for seed, mse in enumerate(seeds):
            status = "done" if mse is not None else "diverged"
            losses = told.get("losses", {}).get((variant.name, seed), (4.0, 2.0, 1.0))
            record_untrained(folder, variant.run_name(seed), variant.run_config(seed), status, losses, mse=mse)


def values_of(plan, folder, names=None):
    return {name: Values(evidence) for name, evidence in load_evidence(plan, folder, names).items()}


def measured(plan, folder, name="mine"):
    # Seeds of the other experiment tell how many are needed.
    values = values_of(plan, folder, [name, "figure1_initialization"])
    return Measured(values[name], seed_spread(values)).findings()


def around(level, spread=1.0, n=5):
    # Cells whose seeds do not move together.
    return list(level + spread * np.random.default_rng(round(level)).normal(size=n))


BETTER = {"metric": "mse", "better": {"this": {"depth": 16}, "than": {"depth": 4}}}


def test_runs_that_say_so_reproduce_and_turned_round_contradict(plan_of, tmp_path):
    plan = plan_of(BETTER)
    record(plan, tmp_path, [around(80), around(70), around(60)])
    found = measured(plan, tmp_path)["mine0"]
    assert (found.verdict, found.n) == ("reproduced", 5)
    assert found.low < 20 < found.high
    assert found.effect == pytest.approx(np.mean(around(80)) - np.mean(around(60)))
    assert 0 < found.detectable < 5
    assert set(found.runs) == {f"mmnist/{depth}/seed{k}" for depth in ("depth=4", "stlight_l") for k in range(5)}
    record(plan, tmp_path, [around(60), around(70), around(80)])
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "contradicted"
    assert found.low < found.effect < found.high < 0


def test_every_seed_s_value_is_shown(plan_of, tmp_path):
    plan = plan_of(BETTER, seeds=2)
    record(plan, tmp_path, [[81.25, 79.5], [1, 2], [60.75, 61.5]])
    assert measured(plan, tmp_path)["mine0"].parts[0].values == "60.75, 61.50 | 81.25, 79.50"


def test_too_few_seeds_are_undecided_and_say_how_many_would_do(plan_of, tmp_path):
    plan = plan_of(BETTER)
    record(plan, tmp_path, [around(61, 3), around(70, 3), around(60, 3)])
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "undecided"
    needed = int(re.search(r"about (\d+) seeds would tell", found.why).group(1))
    assert needed > 5


def test_one_seed_says_nothing_but_borrows_a_spread_to_plan(plan_of, tmp_path):
    plan = plan_of(BETTER, seeds=1)
    record(plan, tmp_path, [[80], [70], [60]])
    found = measured(plan, tmp_path)["mine0"]
    assert (found.verdict, found.n) == ("undecided", 1)
    assert math.isnan(found.low)
    assert math.isnan(found.detectable)
    assert "n = 1: one seed shows no spread, so more seeds are needed" in found.why
    figure1 = plan.experiment("figure1_initialization")
    for seed in range(5):
        variant = figure1.variants[0]
        record_untrained(tmp_path, variant.run_name(seed), variant.run_config(seed), mse=100.0 + seed)
    assert re.search(r"n = 1: about \d+ seeds .* by the spread of other cells", measured(plan, tmp_path)["mine0"].why)


def test_waiting_runs_are_untested_with_the_reason(plan_of, tmp_path):
    plan = plan_of(BETTER)
    record(plan, tmp_path, [around(80), around(70), around(60)])
    (tmp_path / "runs" / "mmnist" / "depth=4" / "seed3" / "record.json").unlink()
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "untested"
    assert "waiting: 1 of its 10 runs are not there (mmnist/depth=4/seed3: waiting)" in found.why


def test_a_diverged_run_counts_as_the_worst(plan_of, tmp_path):
    plan = plan_of(BETTER)
    record(plan, tmp_path, [[None] * 5, around(70), around(60)])
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "reproduced"
    assert "5 of 10 runs diverged and count as the worst" in found.why
    assert "ranks" in found.why
    # Also where its last number looks good.
    record(plan, tmp_path, [around(80), around(70), [None, None, None, None, None]])
    assert measured(plan, tmp_path)["mine0"].verdict == "contradicted"


def test_optima_steps_margins_and_gains(plan_of, tmp_path):
    cells = {"metric": "mse"}
    plan = plan_of(
        cells | {"optimum_in": {"depth": 16}},
        cells | {"optimum_in": {"depth": [4, 8]}},
        cells | {"improves_along": "depth"},
        cells | {"as_good_as_best": {"places": {"depth": 8}, "margin": 15}},
        cells | {"as_good_as_best": {"places": {"depth": 8}, "margin": 5}},
        cells | {"gains": {"this": {"depth": 16}, "over": {"depth": 4}, "by": 20, "margin": 5}},
        cells | {"gains": {"this": {"depth": 16}, "over": {"depth": 4}, "by": 10, "margin": 5}},
        published=[{"depth": d, "mse": m} for d, m in ((4, 80), (8, 70), (16, 60))],
    )
    record(plan, tmp_path, [around(80, 0.5), around(70, 0.5), around(60, 0.5)])
    expected = ["reproduced", "contradicted", "reproduced", "reproduced", "contradicted", "reproduced", "contradicted"]
    assert [f.verdict for f in measured(plan, tmp_path).values()] == expected
    # Amounts are the paper's: at a tenth of its MSE a margin is a tenth as wide.
    record(plan, tmp_path, [around(8, 0.05), around(7, 0.05), around(6, 0.05)])
    assert [f.verdict for f in measured(plan, tmp_path).values()] == expected


def test_spreads_are_compared(plan_of, tmp_path):
    claim = {"metric": "mse", "smaller_spread": {"this": {"depth": 16}, "than": {"depth": 4}}}
    plan = plan_of(claim, seeds=10)
    record(plan, tmp_path, [around(80, 20, 10), around(70, 1, 10), around(60, 1, 10)])
    assert measured(plan, tmp_path)["mine0"].verdict == "reproduced"
    record(plan, tmp_path, [around(80, 1, 10), around(70, 1, 10), around(60, 20, 10)])
    assert measured(plan, tmp_path)["mine0"].verdict == "contradicted"


def test_sides_of_one_model_are_told_apart_by_what_differs(plan_of, tmp_path):
    sides = {"this": {"model": "STLight-L", "depth": 16}, "than": {"model": "STLight-L", "depth": 4}}
    plan = plan_of(
        {"metric": "mse", "better": sides},
        grid={"model": ["STLight-L"], "depth": [4, 16]},
        metrics=["mse"],
        figure={"kind": "dots"},
    )
    record(plan, tmp_path, [around(70), around(60)])
    (part,) = measured(plan, tmp_path)["mine0"].parts
    assert re.search(r"\(depth = 16.*against.*\(depth = 4", part.label)


def test_curves_are_claimed_about(plan_of, tmp_path):
    sides = {"better": {"this": {"depth": 16}, "than": {"depth": 4}}}
    plan = plan_of(*({"metric": m} | sides for m in ("steps_to_learn", "largest_rise", "roughness", "dispersion")))
    rng = np.random.default_rng(0)
    losses = {}
    for seed in range(5):
        shift = rng.normal(size=2) * 0.01
        # One stays above a black frame's 1.75 for three epochs, and jumps on its way.
        losses["depth=4", seed] = (4.0, 4.0 + shift[0], 1.8, 1.5, 3.0 + shift[1], 3.0, 1.7, *[1.0] * 13)
        losses["stlight_l", seed] = (4.0 + shift[0], 1.7, 1.6, 1.5 + shift[1], 1.4, 1.3, 1.2, *[1.0] * 13)
    record(plan, tmp_path, [around(80), around(70), around(60)], losses=losses)
    found = [f.verdict for f in measured(plan, tmp_path).values()]
    # The other's dispersion is its first fall.
    assert found == ["reproduced"] * 3 + ["undecided"]


@pytest.mark.parametrize("apart", [True, False])
def test_holm_is_over_the_item_s_sentences(plan_of, tmp_path, apart):
    rng = np.random.default_rng(3)
    values = [list(70 + shift + rng.normal(size=5)) for shift in (2.2, 0.0, 0.0)]
    for others, verdict in ((0, "reproduced"), (40, "undecided" if apart else "reproduced")):
        # Claims that repeat a test in one sentence's words cost nothing.
        claim = {"metric": "mse", "better": {"this": {"depth": 8}, "than": {"depth": 4}}}
        rest = [claim | {"sentence": f"So is {i}." if apart else "It is so."} for i in range(others)]
        plan = plan_of(BETTER, *rest)
        record(plan, tmp_path, values)
        assert measured(plan, tmp_path)["mine0"].verdict == verdict


def test_other_models_are_quoted_not_measured(plan_of, tmp_path):
    claim = {"metric": "mse", "better": {"this": {"depth": 16}, "than": {"model": "others"}}}
    plan = plan_of(claim, published=[{"model": "Other", "mse": 20}, {"depth": 16, "mse": 10}])
    record(plan, tmp_path, [around(80), around(70), around(60)])
    experiment = plan.experiment("mine")
    assert on_published(experiment, experiment.claims[0], {}).verdict == "reproduced"
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "untested"
    assert "Other: quoted, not trained for this item" in found.why


def test_table_1_is_judged_on_runs_once_every_row_of_a_data_set_is_trained(workflow, tmp_path):
    path, scale = workflow / "experiments" / "table1_literature.yaml", workflow / "scales" / "demo.yaml"
    stated, settings = (yaml.safe_load(file.read_text()) for file in (path, scale))
    trained = {model for grid in stated["grid"] for model in grid["model"]}
    stated["published"] = [row for row in stated["published"] if row["model"] in trained]
    stated["published"] += [{"model": "Other", "dataset": "taxibj", "mse_x100": 37}]
    path.write_text(yaml.safe_dump(stated | {"seeds": 5}))
    del settings["baselines"]["max_lr"], settings["data"]["taxibj"]["baselines"]
    scale.write_text(yaml.safe_dump(settings))
    plan = load_plan(workflow, "demo")
    experiment = plan.experiment("table1_literature")
    assert experiment.counts
    write_counts(experiment, tmp_path)
    for number, variant in enumerate(experiment.variants):
        # On KTH, another model is the best.
        best = variant.axes["model"] == ("TAU" if variant.dataset == "kth" else OURS)
        for seed, noise in enumerate(around(0, n=5)):
            metrics = {"mse": (60 if best else 70 + number) + noise, "ssim": (0.9 if best else 0.8) + noise / 1000}
            record_untrained(tmp_path, variant.run_name(seed), variant.run_config(seed), **metrics)
    found = measured(plan, tmp_path, "table1_literature")
    assert found["best_in_table1_mmnist"].verdict == "reproduced"
    assert found["best_in_table1_kth"].verdict == "contradicted"
    assert found["best_in_table1_taxibj"].why.startswith("Other: quoted, not trained for this item")


def test_counts_are_exact(paper, tmp_path):
    experiment = paper.experiment("section_b_complexity")
    counts = {}
    for variant in experiment.variants:
        d, depth = variant.axes["hidden_dim"], variant.axes["depth"]
        forms = {"patch_encoder": 160 * d, "mixers": depth * (d * d + 58 * d), "patch_reassemble": 10 * d // 4}
        parameters = {name: n + d for name, n in forms.items()} | {"mixers": 2 * forms["mixers"]}
        total = {"total": sum(parameters.values())}
        count = {"parameters": parameters | total, "closed_forms": forms, "benchmark_flops": 1}
        counts[f"mmnist/{variant.name}"] = count | {"weights": parameters | {"patch_shuffle": 0}}
    (tmp_path / "complexity").mkdir()
    (tmp_path / "complexity" / "section_b_complexity.json").write_text(json.dumps(counts))
    found = measured(paper, tmp_path, "section_b_complexity")
    assert (found["encoder_count"].verdict, found["encoder_count"].effect) == ("reproduced", pytest.approx(1 / 160))
    assert (found["patch_shuffle_count"].verdict, found["patch_shuffle_count"].effect) == ("reproduced", 0)
    # Twice the formula is not the formula, and yet grows as it does.
    assert (found["mixers_count"].verdict, found["mixers_count"].effect) == ("contradicted", pytest.approx(1))
    assert found["mixers_linear_in_depth"].effect == pytest.approx(0, abs=1e-9)
    assert found["mixers_quadratic_in_d"].verdict == "reproduced"


def test_both_findings_of_every_claim_as_a_table(demo, tmp_path):
    table = as_table(finding for both in all_findings(demo, values_of(demo, tmp_path)) for finding in both)
    columns = "id experiment section sentence source protocol verdict effect low high n detectable why"
    assert list(table.columns) == columns.split()
    assert set(table["source"]) == {"published", "measured"}
    assert set(table.loc[table["source"] == "measured", "verdict"]) == {"untested"}
    assert not table["why"].eq("").any()
    assert (table.groupby("id").size() == 2).all()
    assert len(pd.unique(table["id"])) >= 50
