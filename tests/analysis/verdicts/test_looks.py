"""Looks at a growing number of seeds, and one error budget for an item: what they cost and what they keep."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from stlight.analysis.verdicts.comparisons import looks_of
from stlight.analysis.verdicts.differences import Difference
from stlight.analysis.verdicts.judging import LEVEL, Reading, Test, judge
from stlight.analysis.verdicts.looks import shares
from stlight.experiments.grid_cells import GridCell
from tests.analysis.verdicts.error_rates import claim, grid

LOOKS = (3, 5, 8, 12)


def test_one_look_may_spend_all():
    assert shares((5,), 0.04) == pytest.approx((1.0,))


@pytest.mark.parametrize("looks", [(3, 5), LOOKS, (1, 3, 5, 8, 12)])
@pytest.mark.parametrize("level", [0.04, 0.004])
def test_looks_spend_the_level_and_no_more(looks, level):
    n = np.array(looks)
    correlation = np.sqrt(np.minimum(n[:, None], n) / np.maximum(n[:, None], n))
    bounds = stats.norm.isf(np.array(shares(looks, level)) * level)
    for k in range(1, len(looks) + 1):
        means = stats.multivariate_normal(cov=correlation[:k, :k], seed=0, maxpts=400_000)
        within = means.cdf(bounds[:k])
        # Nine tenths, in proportion to the seeds.
        assert 1 - within == pytest.approx(0.9 * level * looks[k - 1] / looks[-1], rel=0.02)


def test_shares_of_a_lower_level_are_safe_at_a_higher_one():
    low, high = shares(LOOKS, 0.001), shares(LOOKS, 0.04)
    assert all(a <= b + 1e-9 for a, b in zip(low, high, strict=True))


def difference(a, b):
    return Test((((Difference(a, b),),),))


def over(a, b, looks, level=LEVEL):
    return tuple((difference(a[:n], b[:n]), share) for n, share in zip(looks, shares(LOOKS, level), strict=False))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 4))
def test_a_verdict_stays_once_it_is_found(seed, effect):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, 12))
    found = [judge({"x": Reading("s", over(a, b + effect, LOOKS[:k]))})["x"] for k in range(1, 5)]
    decided = [one.verdict for one in found if one.verdict != "undecided"]
    assert len(set(decided)) <= 1
    first = len(found) - len(decided)
    assert all(one.verdict != "undecided" for one in found[first:])
    # What is reported is the look that decided, not the last one.
    assert {one.deciding.n for one in found[first:]} <= {LOOKS[first]} if decided else True


@pytest.mark.parametrize(("shared", "looks"), [(False, (1, *LOOKS)), (True, LOOKS)])
def test_a_grid_is_looked_at_after_one_seed_if_its_blocks_are_independent(shared, looks):
    places = grid(size=(1, 2, 3), decoder=("a", "b"))
    stated = claim("better", {"this": {"decoder": "a"}, "than": {"decoder": "b"}}, on_average=["size"])
    cells = [
        GridCell(str(i), {"model": "STLight", **p}, SimpleNamespace(label=str(i), seed_group="all" if shared else str(i)))
        for i, p in enumerate(places)
    ]
    experiment = SimpleNamespace(quoted=[], axes=["size", "decoder"])
    assert looks_of(experiment, stated, cells, LOOKS) == looks
    # Two cells show no spread at one seed, and without looks there are none.
    pair = claim("better", {"this": {"size": 1, "decoder": "a"}, "than": {"size": 1, "decoder": "b"}})
    assert looks_of(experiment, pair, cells, LOOKS) == LOOKS
    assert looks_of(experiment, stated, cells, ()) == ()


def test_before_the_first_look_nothing_is_spent():
    a, b = np.arange(2.0), np.arange(2.0) + 1e6
    assert judge({"x": Reading("s", ((difference(a, b), 0.0),))})["x"].verdict == "undecided"


def at_p(p):
    """A test with this p-value."""
    a = np.array([0.0, 1.0, 2.0, 3.0])
    shift = stats.t.isf(p, 6) * np.hypot(stats.sem(a), stats.sem(a))
    return difference(a, a + shift)


def verdicts(**readings):
    """Verdicts by name; a reading is its sentence and its p-value, None without data."""
    stated = {name: Reading(s, () if p is None else ((at_p(p), 1.0),)) for name, (s, p) in readings.items()}
    return {name: judgement.verdict for name, judgement in judge(stated).items()}


def test_a_direction_costs_nothing():
    assert verdicts(x=("s", 0.039)) == {"x": "reproduced"}
    assert verdicts(x=("s", 1 - 0.039)) == {"x": "contradicted"}
    assert verdicts(x=("s", 0.041)) == {"x": "undecided"}


def test_sentences_share_the_level_and_readings_share_the_sentence_s():
    # Two sentences: 2 % for each; the second reading of one gets 1 %.
    assert verdicts(x=("s", 0.019), y=("t", 0.5))["x"] == "reproduced"
    assert verdicts(x=("s", 0.021), y=("t", 0.5))["x"] == "undecided"
    assert verdicts(x=("s", 0.009), z=("s", 0.5), y=("t", 0.5))["x"] == "reproduced"
    assert verdicts(x=("s", 0.011), z=("s", 0.5), y=("t", 0.5))["x"] == "undecided"
    # A decided reading leaves its part to the other of its sentence; a decided sentence to the other sentence.
    assert verdicts(x=("s", 0.009), z=("s", 0.019), y=("t", 0.5))["z"] == "reproduced"
    assert verdicts(x=("s", 0.019), y=("t", 0.039))["y"] == "reproduced"
    # A sentence that is decided in part keeps its level.
    assert verdicts(x=("s", 0.001), z=("s", 0.5), y=("t", 0.039))["y"] == "undecided"
    # Runs that may still come keep their part.
    assert verdicts(x=("s", 0.021), y=("t", None)) == {"x": "undecided"}


def test_repeated_opposite_and_dead_tests_cost_nothing():
    test, dead = at_p(0.03), difference(np.array([1.0]), np.array([2.0]))
    opposite = Test((test.fails,))
    readings = {"x": Reading("s", ((test, 1.0),)), "y": Reading("s", ((opposite, 1.0),)), "z": Reading("t", ((dead, 1.0),))}
    found = {name: judgement.verdict for name, judgement in judge(readings).items()}
    assert found == {"x": "reproduced", "y": "contradicted", "z": "undecided"}


@settings(deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.sampled_from("stu"), st.floats(0.0001, 0.9999)), min_size=1, max_size=7))
def test_corrections_never_decide_more_than_the_readings_alone(stated):
    readings = {f"r{i}": reading for i, reading in enumerate(stated)}
    together = verdicts(**readings)
    for name, reading in readings.items():
        alone = verdicts(**{name: reading})[name]
        assert together[name] in (alone, "undecided")
