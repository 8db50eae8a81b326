"""Learning curves in one number, by hand."""

import math

import numpy as np
import pytest

from stlight.analysis.curves import dispersion, instability, late_dispersion, late_instability, onset


def test_dispersion_by_hand():
    # Differences -2, -1, 0: standard deviation 1.
    assert dispersion(np.array([5.0, 3.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert math.isnan(dispersion(np.array([5.0, 3.0])))


def test_the_first_tenth_does_not_count_for_the_late_dispersion():
    curve = np.array([100.0, 50.0, *(5.0, 3.0, 2.0, 2.0) * 4, 2.0, 2.0])
    assert late_dispersion(curve) == pytest.approx(dispersion(curve[2:]))
    assert dispersion(curve) > 10


def test_onset_by_hand():
    # Falls from 10 to 0: a tenth is 9, which is reached half way from 9.5 to 8.5.
    assert onset(np.array([10.0, 10.0, 9.5, 8.5, 0.0])) == pytest.approx(2.5)
    assert onset(np.array([10.0, 0.0])) == pytest.approx(0.1)
    # It falls at once, comes back above 9, and is below for good from half way between the fourth and the fifth epoch.
    assert onset(np.array([10.0, 5.0, 12.0, 10.0, 8.0, 0.0])) == pytest.approx(3.5)
    assert onset(np.array([10.0, 0.0, 11.0])) == math.inf
    assert onset(np.array([1.0, 1.0, 2.0])) == math.inf
    assert onset(np.array([10.0, 12.0, math.nan])) == math.inf
    assert math.isnan(onset(np.array([1.0])))


def test_instability_by_hand():
    assert instability(np.array([4.0, 2.0, 3.0, 1.0, 1.2])) == pytest.approx(0.5)
    assert instability(np.array([3.0, 2.0, 1.0])) == 0
    # The last fifth of ten epochs is two; their values are compared with everything before them.
    assert late_instability(np.array([9.0, 2.0, 8.0, 4.0, 4.0, 4.0, 4.0, 4.0, 3.0, 2.5])) == pytest.approx(0.5)
    assert instability(np.array([3.0, 1.5, math.nan])) == 0
    assert math.isnan(instability(np.array([1.0])))
