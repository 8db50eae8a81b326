"""What may decide: cells that have learnt, dispersions that are noise, and values that a scale has; and what would decide."""

import json
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from stlight.analysis.protocol import least_exact, protocol_of
from stlight.analysis.verdicts.eligibility import LEAST_NOISE, noise_share
from stlight.analysis.verdicts.findings import as_table
from tests.analysis.conftest import write_counts
from tests.analysis.verdicts.test_findings import BETTER, around, measured, record
from tests.tiny_runs import record_untrained


def test_a_black_frame_does_not_win(plan_of, tmp_path):
    """One that predicts black has the lower MAE, and no run is better than a black frame."""
    sides = {"better": {"this": {"depth": 16}, "than": {"depth": 4}}}
    plan = plan_of({"metric": "mse"} | sides, {"metric": "mae"} | sides, {"metric": "ssim"} | sides)
    trivial = {"all_zeros": {"mse": 175.0, "mae": 202.0, "ssim": 0.77}, "repeat_last_frame": {"mse": 288.0, "mae": 337.0}}
    scores = {"depth=4": (140, 340, 0.4), "depth=8": (140, 340, 0.4), "stlight_l": (174, 201.9, 0.7701)}
    experiment = plan.experiment("mine")
    for variant in experiment.variants:
        for seed, noise in enumerate(np.random.default_rng(0).normal(size=5)):
            mse, mae, ssim = scores[variant.name]
            told = {"mse": mse + noise / 10, "mae": mae + noise / 10, "ssim": ssim + noise / 1e4}
            record_untrained(tmp_path, variant.run_name(seed), variant.run_config(seed), trivial=trivial, **told)
    mse, mae, ssim = measured(plan, tmp_path).values()
    # Its MSE of 174 is within 1 % of a black frame's 175, too.
    assert [one.verdict for one in (mse, mae, ssim)] == ["undecided"] * 3
    assert (
        "not learnt at this scale: MAE 1.00 × that of a black frame (all zeros) (depth = 16), and 1 more of the 2 cells"
        in mae.why
    )
    assert "SSIM 1.00 × that of a black frame" in ssim.why
    assert "MSE 0.99 × that of a black frame (all zeros) (depth = 16)" in mse.why
    assert mae.remedy == "training until every cell learns"


def test_the_first_fall_does_not_decide_about_dispersion(plan_of, tmp_path):
    sides = {"better": {"this": {"depth": 16}, "than": {"depth": 4}}}
    plan = plan_of(*({"metric": m} | sides for m in ("dispersion", "late_dispersion", "roughness")))
    epochs, rng = np.arange(20), np.random.default_rng(0)
    # One starts twice as high and falls as smoothly to the same level: its dispersion is twice as large.
    curves = {"depth=4": (2.0, 0.01), "depth=8": (1.0, 0.01), "stlight_l": (1.0, 0.01)}

    def losses():
        return {
            (name, seed): 1 + height * np.exp(-epochs / 2) + noise * rng.normal(size=20)
            for name, (height, noise) in curves.items()
            for seed in range(5)
        }

    record(plan, tmp_path, [around(80), around(70), around(60)], losses=losses())
    dispersion, late, roughness = measured(plan, tmp_path).values()
    assert dispersion.verdict == late.verdict == roughness.verdict == "undecided"
    assert re.fullmatch(r"dispersion measures the fall of these curves: \d% of it is noise", dispersion.why)
    assert dispersion.remedy == "longer curves"
    # If one is noisier than the other beyond the fall, that decides.
    curves |= {"depth=4": (0.05, 0.2), "stlight_l": (0.05, 0.02)}
    record(plan, tmp_path, [around(80), around(70), around(60)], losses=losses())
    assert [one.verdict for one in measured(plan, tmp_path).values()] == ["reproduced"] * 3


def test_exploded_runs_are_the_worst_and_never_finished_cells(plan_of, tmp_path):
    plan = plan_of(BETTER)
    exploded = [1e22, 3e25, 7e37, 2e23, 5e30]
    record(plan, tmp_path, [exploded, around(70), around(60)])
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "undecided"
    assert "not learnt at this scale: MSE" in found.why
    for seed, mse in enumerate(exploded):
        variant = plan.experiment("mine").variants[0]
        record_untrained(tmp_path, variant.run_name(seed), variant.run_config(seed), "diverged", mse=mse)
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == "reproduced"
    assert "5 of 10 runs diverged and count as the worst" in found.why


@pytest.mark.parametrize(("of_tau", "verdict"), [(44_660_000, "reproduced"), (3_090_000, "undecided")])
def test_models_are_compared_at_the_paper_s_relative_sizes_only(plan_of, tmp_path, of_tau, verdict):
    plan = plan_of(
        {"metric": "mse", "better": {"this": {"model": "STLight-L"}, "than": {"model": "TAU"}}},
        grid={"model": ["STLight-L", "TAU"]},
        metrics=["num_params", "mse"],
        figure={"kind": "dots"},
    )
    # Both runs have as many parameters.
    record(plan, tmp_path, [around(60), around(70)])
    path = write_counts(plan.experiment("mine"), tmp_path)
    counts = json.loads(path.read_text())
    counts["mmnist/model=TAU"]["parameters"]["total"] = of_tau
    path.write_text(json.dumps(counts))
    found = measured(plan, tmp_path)["mine0"]
    assert found.verdict == verdict
    if verdict == "undecided":
        words = "TAU has 1 times the parameters of STLight-L here, 0.094 times in the paper"
        assert found.why == f"not the paper's comparison at this scale: {words}"
        assert found.remedy == "a larger scale"


def test_verdicts_below_the_paper_s_size_are_about_the_scale(plan_of, tmp_path):
    plan = plan_of(BETTER, {"metric": "mse", "better": {"this": {"depth": 4}, "than": {"depth": 16}}})
    record(plan, tmp_path, [around(80), around(70), around(60)])
    table = as_table(measured(plan, tmp_path).values())
    assert list(table["verdict"]) == ["holds at this scale", "reversed at this scale"]
    assert set(table["protocol"]) == {"reduced"}


def test_values_of_the_paper_s_size_are_tested_at_that_size_only(plan_of, tmp_path, paper):
    plan = plan_of(BETTER | {"absolute": True})
    record(plan, tmp_path, [around(80), around(70), around(60)])
    found = measured(plan, tmp_path)["mine0"]
    assert (found.verdict, found.protocol) == ("untested", "reduced")
    assert "a value that only the paper's own size and data have" in found.why
    found = measured(paper, tmp_path, "table4_learning_rate_epochs")["optimal_lr"]
    assert found.protocol == "exact"
    assert found.why.startswith("waiting")


def test_the_paper_s_own_runs_are_exact_and_stand_ins_are_named(paper, demo):
    assert {protocol_of(v) for one in paper.experiments.values() for v in one.variants} == {"exact"}
    found = {v.dataset: protocol_of(v) for v in demo.experiment("table1_literature").variants}
    assert found == {"mmnist": "reduced", "taxibj": "stand-in", "kth": "stand-in"}
    assert least_exact(found.values()) == "stand-in"


@settings(deadline=None)
@given(
    noise=arrays(float, 200, elements=st.floats(-1, 1)).filter(lambda a: np.ptp(a) > 0.1),
    scale=st.floats(1e-3, 1e3),
    level=st.floats(-10, 10),
    slope=st.floats(-10, 10),
)
def test_the_share_of_noise_knows_neither_unit_nor_level_nor_slope(noise, scale, level, slope):
    share = noise_share(noise)
    assert 0 <= share <= 4 / 3 / 0.8 * (1 + 0.02)
    assert noise_share(scale * (noise + slope * np.arange(200)) + level) == pytest.approx(share, rel=1e-4, abs=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), falls_over=st.floats(1, 100), rate=st.floats(0.5, 20), size=st.floats(1e-3, 1e3))
def test_the_share_of_noise_separates_pure_falls_from_pure_noise(seed, falls_over, rate, size):
    """From curves of forty evaluations on, no fall of an exponential or a power counts as noise, and no noise as a fall."""
    steps = np.arange(40)
    for fall in (np.exp(-steps / falls_over), (1 + steps / falls_over) ** (-rate / 10)):
        assert noise_share(5 + size * fall) < LEAST_NOISE / 2
    assert noise_share(5 + size * np.random.default_rng(seed).normal(size=400)) > LEAST_NOISE


@pytest.mark.parametrize("metric", ["roughness", "late_roughness", "largest_rise", "dispersion"])
def test_short_curves_decide_nothing(plan_of, tmp_path, metric):
    plan = plan_of({"metric": metric, "better": {"this": {"depth": 16}, "than": {"depth": 4}}})
    sizes, rng = {"depth=4": 0.2, "depth=8": 0.02, "stlight_l": 0.002}, np.random.default_rng(0)

    def judged(evaluations):
        losses = {(n, k): np.exp(sd * rng.normal(size=evaluations)) for n, sd in sizes.items() for k in range(5)}
        record(plan, tmp_path, [around(80), around(70), around(60)], losses=losses)
        return measured(plan, tmp_path)["mine0"]

    found = judged(19)
    assert (found.verdict, found.remedy) == ("undecided", "longer curves")
    assert found.why.endswith(": the curve has 19 evaluations; at least 20 are needed")
    assert judged(20).verdict == "reproduced"


def test_the_share_of_noise_tells_noise_from_a_fall(rng):
    steps = np.arange(400)
    assert noise_share(rng.normal(size=400)) == pytest.approx(1, abs=0.1)
    assert noise_share(100 * np.exp(-steps / 40)) < 0.01
    # A curve that first rises and then falls, as short ones do, is no noise either.
    assert noise_share(np.array([81.0, 172, 38, *np.linspace(33, 27, 17)])) < 0.01


def test_more_seeds_are_asked_for_only_if_they_would_help(plan_of, tmp_path):
    def remedy(*values, claim=BETTER, seeds=5, grid=None):
        plan = plan_of(claim, seeds=seeds, grid=grid)
        record(plan, tmp_path, values)
        found = measured(plan, tmp_path)["mine0"]
        assert found.verdict == "undecided"
        return found.remedy, found.why

    assert remedy(around(61, 3), around(70, 3), around(60, 3))[0] == "more seeds"
    assert remedy([60 + 1e-9, 61, 62, 63, 64], around(70), [63.0, 60, 64, 62, 61])[0] == "more than 1000 seeds"
    found, why = remedy([None] * 3, around(70, n=3), around(60, n=3), seeds=3)
    assert found == "more seeds"
    assert "n = 3: only ranks can be compared, which decide from 4 seeds on" in why
    assert remedy([None, 60.0, 61], around(70, n=3), [None, 60.0, 61], seeds=3)[0] == "training without divergence"
    # A scale makes both one configuration.
    same = remedy(
        [60.0] * 5,
        [60.0] * 5,
        claim=BETTER | {"better": {"this": {"depth": 17}, "than": {"depth": 16}}},
        grid={"depth": [16, 17]},
    )
    assert same[0] == "a larger scale"
    assert "equal by design: both cells are one configuration at this scale" in same[1]
