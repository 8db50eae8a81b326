"""Runs go where they settle most sentences per core second."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stlight.analysis.allocation import HOPELESS, Allocation, Question, chance
from tests.analysis.seed_placement import ITEMS, measure

LOOKS = (3, 5, 8, 12)
LEVELS = (0.005, 0.005, 0.008, 0.011)


def question(name, *cells, p=0.01, **more):
    return Question(name=name, cells=frozenset(cells), looks=LOOKS, sides=(p, 1 - p), levels=LEVELS, **more)


def allocation(questions, seeds, seconds):
    return Allocation(questions, seeds, seconds)


def test_claimed_cells_get_a_first_look_and_then_others_one_run():
    seconds = dict.fromkeys("abcd", 10.0)
    asked = [Question(name="q", cells=frozenset("ab"), looks=LOOKS)]
    assert allocation(asked, {}, seconds).choose(1000.0).seeds == {"a": 3, "b": 3}
    settled = [question("q", "a", "b", settled=True)]
    last = allocation(settled, {"a": 3, "b": 3}, seconds).choose(1000.0)
    assert (last.seeds, last.seconds, last.chosen) == ({"c": 1, "d": 1}, 20.0, ())
    assert allocation(settled, {"a": 3, "b": 3}, seconds).choose(15.0).seeds == {"c": 1}
    assert allocation(asked, {}, seconds).choose(9.0).seeds == {}


def test_the_first_round_leaves_half_of_the_budget_to_what_it_shows():
    asked = [Question(name=pair, cells=frozenset(pair), looks=LOOKS) for pair in ("ab", "cd", "ef")]
    choice = allocation(asked, {}, dict.fromkeys("abcdef", 10.0)).choose(200.0)
    assert choice.chosen == ("ab", "cd")
    assert choice.seeds == dict.fromkeys("abcd", 3)


def test_a_sentence_that_one_seed_can_decide_is_looked_at_after_one():
    asked = [Question(name="grid", cells=frozenset("ab"), looks=(1, *LOOKS))]
    first = allocation(asked, {}, dict.fromkeys("ab", 10.0)).choose(1000.0)
    assert (first.seeds, first.chosen) == ({"a": 1, "b": 1}, ("grid",))


def test_the_sentence_that_settles_soonest_per_second_comes_first():
    seconds = {"a": 10.0, "b": 10.0, "c": 100.0, "d": 100.0}
    asked = [question("cheap", "a", "b"), question("dear", "c", "d")]
    assert allocation(asked, dict.fromkeys(seconds, 3), seconds).choose(900.0).chosen == ("cheap", "dear")
    assert allocation(asked, dict.fromkeys(seconds, 3), seconds).choose(300.0, share=0.1).chosen == ("cheap",)
    doubtful = [question("cheap", "a", "b", p=0.3), question("sure", "c", "d", p=1e-6)]
    seconds = dict.fromkeys(seconds, 10.0)
    assert allocation(doubtful, dict.fromkeys(seconds, 3), seconds).choose(900.0).chosen[0] == "sure"


def test_sentences_that_share_cells_are_bought_together():
    seconds = dict.fromkeys("abcd", 10.0)
    asked = [question("one", "a", "b"), question("two", "a", "b"), question("alone", "c", "d")]
    choice = allocation(asked, dict.fromkeys(seconds, 3), seconds).choose(1000.0, share=0.01)
    assert choice.seeds == {"a": 5, "b": 5}
    assert choice.settled == pytest.approx(2 * chance((0.01, 0.99), 3, 5, 0.005))


def test_a_forecast_goes_on_with_sentences_that_no_run_has_told_anything_of():
    asked = [Question(name=name, cells=frozenset(name), looks=LOOKS) for name in ("ab", "bc")]
    state = allocation(asked, {}, dict.fromkeys("abc", 10.0))
    for look in (3, 5):
        choice = state.choose(1e6, share=0.01)
        assert set(choice.seeds.values()) == {look}
        assert choice.settled == pytest.approx(sum(q.weight for q in state.questions.values()) / 2)
        state = state.after(choice)


def test_settled_and_hopeless_sentences_get_nothing():
    seconds = dict.fromkeys("abcdef", 10.0)
    asked = [question("settled", "a", "b", settled=True), question("never", "c", "d", never="not learnt")]
    state = allocation([*asked, question("hopeless", "e", "f", p=0.5)], dict.fromkeys(seconds, 5), seconds)
    assert state.hopeless(state.questions["hopeless"])
    assert state.choose(1e6).seeds == {}


@given(
    counts=st.lists(st.sampled_from([0, 1, 3, 5, 8, 12]), min_size=6, max_size=6),
    seconds=st.lists(st.integers(1, 100), min_size=6, max_size=6),
    ps=st.lists(st.floats(1e-6, 1 - 1e-6), min_size=3, max_size=3),
    budget=st.floats(0, 5000),
)
def test_a_choice_keeps_to_the_budget_and_to_the_looks(counts, seconds, ps, budget):
    cost = dict(zip("abcdef", map(float, seconds), strict=True))
    have = dict(zip("abcdef", counts, strict=True))
    asked = [question(f"q{i}", *cells, p=p) for i, (cells, p) in enumerate(zip(("ab", "bc", "cdef"), ps, strict=True))]
    choice = allocation(asked, have, cost).choose(budget)
    spent = sum((count - have[cell]) * cost[cell] for cell, count in choice.seeds.items())
    assert spent == pytest.approx(choice.seconds)
    assert choice.seconds <= budget + 1e-9
    assert all(count > have[cell] and count in (1, *LOOKS) for cell, count in choice.seeds.items())
    assert choice == allocation(reversed(asked), have, cost).choose(budget)


def test_the_chance_is_that_of_a_simulated_test():
    """Draw means by what three seeds say of them (flat prior), and later data around them."""
    rng, n, later, level, z = np.random.default_rng(0), 3, 8, 0.01, 1.5
    drift = (z + rng.standard_normal(400_000)) / math.sqrt(n)
    sums = z * math.sqrt(n) + drift * (later - n) + math.sqrt(later - n) * rng.standard_normal(drift.shape)
    decided = np.mean(np.abs(sums) / math.sqrt(later) > 2.3263)
    p = 0.0668072
    assert chance((p, 1 - p), n, later, level) == pytest.approx(decided, abs=0.003)
    assert chance((0.0, 1.0), n, later, level) == 1
    assert chance((1.0, 1.0), n, later, level) < 1e-9
    assert HOPELESS == 0.2


def test_placed_seeds_decide_more_per_run_and_are_seldom_wrong():
    equal, placed = measure(16, 12, processes=1)
    assert placed[0] / placed[2] >= 1.5 * equal[0] / equal[2]
    assert placed[0] >= 0.85 * equal[0]
    assert placed[1] <= 0.05 * 16 * ITEMS
