"""Metrics of learning curves: by hand, and what must hold for any curve."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stlight.analysis.curves import (
    BY_EVALUATION,
    dispersion,
    largest_rise,
    late_dispersion,
    late_roughness,
    roughness,
    steps_to_learn,
)

errors = st.floats(0.01, 1000)
curves_of_twenty = st.lists(errors, min_size=20, max_size=60).map(np.array)


def steps_of(losses, error, every=1):
    """Count steps where each loss is the mean of `every` steps."""
    steps = every * np.arange(1, len(losses) + 1)
    return steps_to_learn(steps, np.array(losses, float), error, int(steps[-1]))


def test_dispersion_by_hand():
    # Differences -2, -1, 0: standard deviation 1.
    assert dispersion(np.array([5.0, 3.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert math.isnan(dispersion(np.array([5.0, 3.0])))


def test_the_first_tenth_does_not_count_for_the_late_dispersion():
    curve = np.array([100.0, 50.0, *(5.0, 3.0, 2.0, 2.0) * 4, 2.0, 2.0])
    assert late_dispersion(curve) == pytest.approx(dispersion(curve[2:]))
    assert dispersion(curve) > 10


@settings(deadline=None)
@given(curves_of_twenty, st.floats(-1000, 1000), st.sampled_from([-4.0, -0.5, 0.25, 8.0]))
@pytest.mark.parametrize("name", ["dispersion", "loss_dispersion", "late_dispersion", "late_loss_dispersion"])
def test_a_dispersion_is_a_spread_of_steps(name, curve, shift, factor):
    metric = BY_EVALUATION[name]
    # The standard deviation of all steps, or of those after the first tenth of the evaluations.
    kept = curve[math.ceil(len(curve) / 10) :] if name.startswith("late_") else curve
    steps = kept[1:] - kept[:-1]
    expected = math.sqrt(((steps - steps.mean()) ** 2).sum() / (len(steps) - 1))
    assert metric(curve) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    # A level does not count, and a unit multiplies.
    assert metric(curve + shift) == pytest.approx(expected, abs=1e-9)
    assert metric(factor * curve) == pytest.approx(abs(factor) * expected, abs=1e-9)
    # A steady fall has none, and adds none.
    line = shift * np.arange(len(curve))
    assert metric(line) == pytest.approx(0, abs=1e-9)
    assert metric(curve + line) == pytest.approx(expected, abs=1e-8)


def test_steps_to_learn_by_hand():
    # Ten rows of 100 steps: 2 % of the steps are less than a row, so nothing is smoothed.
    assert steps_of([9, 8, 7, 6, 5, 4, 3, 2, 1, 1], 5.5, every=100) == 500
    assert steps_of([9.0] * 10, 5.5) == math.inf
    # The window is 2 % of 200 rows, so four: one low loss among high ones is noise.
    losses = np.full(200, 9.0)
    losses[50] = 1.0
    losses[100:] = 1.0
    # Mean 9, 1, 1, 1 = 3 is the first below 5 but not below 3.
    assert steps_of(losses, 5.0) == 103
    assert steps_of(losses, 3.0) == 104
    # Not before the window is full.
    assert steps_of(np.ones(200), 5.0) == 4


def test_steps_to_learn_of_a_run_that_ended_early_or_whose_loss_is_no_squared_error():
    # The window is a share of the steps that the run should have had.
    steps, losses = np.arange(1, 11), np.array([9.0] * 5 + [1.0] * 5)
    assert steps_to_learn(steps, losses, 5.0, num_steps=10) == 6
    assert steps_to_learn(steps, losses, 5.0, num_steps=200) == 8
    assert steps_to_learn(steps, losses, 5.0, num_steps=10_000) == math.inf
    assert steps_to_learn(steps, np.array([9.0, math.inf, *[1.0] * 8]), 5.0, 10) == 3
    assert math.isnan(steps_to_learn(steps, losses * math.nan, 5.0, 10))
    assert math.isnan(steps_to_learn(steps, losses, math.nan, 10))
    assert math.isnan(steps_to_learn(steps[:0], losses[:0], 5.0, 10))


def test_a_smaller_fall_of_its_own_is_no_faster_start():
    # Shares of each run's own fall call the second one faster; at a common error the first is.
    fast, slow = 175 * np.exp(-np.arange(100) / 20), 175 - 5 * (1 - np.exp(-np.arange(100) / 5))
    assert steps_of(fast, 160) < steps_of(slow, 160) == math.inf


@given(st.lists(errors, min_size=60, max_size=300), errors, st.floats(0, 100), st.floats(0.1, 10))
def test_steps_to_learn_does_not_grow_with_the_error_and_has_no_unit(losses, error, more, factor):
    losses = np.array(losses)
    found = steps_of(losses, error)
    assert steps_of(losses, error + more) <= found
    assert found == math.inf or found in range(1, len(losses) + 1)
    # Powers of two keep every digit.
    factor = 2.0 ** round(factor)
    assert steps_of(factor * losses, factor * error) == found
    # A lower curve never learns later.
    assert steps_of(losses / 2, error) <= found


def test_largest_rise_by_hand():
    # Means of three logarithms: 4, 3, 2, 2, 3, then falling. The rise is one.
    logs = np.array([5.0, 4.0, 3.0, 2.0, 1.0, 3.0, 5.0, 0.0, 0.0])
    assert largest_rise(np.exp(logs)) == pytest.approx(1.0)
    assert largest_rise(np.array([8.0, 4.0, 2.0, 1.0])) == 0
    # The last evaluation of a diverged run does not count.
    assert largest_rise(np.array([8.0, 4.0, 2.0, 1.0, math.nan])) == 0
    assert math.isnan(largest_rise(np.array([3.0, 1.0, 2.0])))


@given(curves_of_twenty, st.floats(0.01, 100))
def test_largest_rise_is_the_log_of_a_ratio_and_zero_only_without_a_rise(curve, factor):
    rise = largest_rise(curve)
    assert 0 <= rise <= np.log(curve.max() / curve.min()) + 1e-9
    assert largest_rise(factor * curve) == pytest.approx(rise, abs=1e-9)
    assert largest_rise(np.sort(curve)[::-1]) == pytest.approx(0, abs=1e-9)
    # A curve that ends higher by a factor than all before it has risen by it.
    window = 3
    tail = np.full(window, 2000.0)
    assert largest_rise(np.concatenate([curve, tail])) >= np.log(2000 / curve.max()) - 1e-9


def test_roughness_by_hand():
    # Second differences of the log: -4, 4, -4, ... of ±1 in turn, so 4/√6.
    zigzag = np.exp(np.array([1.0, -1.0] * 10))
    assert roughness(zigzag) == pytest.approx(4 / math.sqrt(6))
    assert late_roughness(zigzag) == pytest.approx(4 / math.sqrt(6))
    # The first two of twenty do not count, and of the end only the last seven do; of fifty, the last fifth.
    assert roughness(np.array([900.0, 1.0, *[2.0] * 18])) == 0
    assert late_roughness(np.array([*[1.0, 9.0] * 6, 9.0, *[2.0] * 7])) == 0
    assert late_roughness(np.array([*[1.0, 9.0] * 7, *[2.0] * 6])) > 0
    assert late_roughness(np.array([*[1.0, 9.0] * 20, *[2.0] * 10])) == 0
    assert math.isnan(roughness(np.array([1.0, 2.0, 3.0])))
    assert math.isnan(late_roughness(np.arange(1.0, 7.0)))


@given(st.floats(0.01, 0.5), st.floats(-0.2, 0.2), st.integers(0, 10_000))
def test_roughness_estimates_the_noise_whatever_the_slope(sd, slope, seed):
    noise = np.random.default_rng(seed).normal(size=1000) * sd
    curve = 100 * np.exp(noise + slope * np.arange(1000) / 10)
    # 900 and 200 values: five standard errors.
    assert roughness(curve) == pytest.approx(sd, rel=0.25)
    assert late_roughness(curve) == pytest.approx(sd, rel=0.5)


@given(curves_of_twenty, st.floats(0.01, 100), st.floats(-0.1, 0.1))
def test_roughness_depends_on_neither_unit_nor_steady_fall(curve, factor, slope):
    changed = factor * curve * np.exp(slope * np.arange(len(curve)))
    for metric in (roughness, late_roughness):
        assert metric(changed) == pytest.approx(metric(curve), abs=1e-6)
