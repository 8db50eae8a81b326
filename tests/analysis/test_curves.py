"""Learning curves in one number, by hand."""

import math

import numpy as np
import pytest

from stlight.analysis.curves import dispersion, instability, onset


def test_dispersion_by_hand():
    # Differences -2, -1, 0: standard deviation 1.
    assert dispersion(np.array([5.0, 3.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert math.isnan(dispersion(np.array([5.0, 3.0])))


def test_onset_by_hand():
    # Falls from 10 to 0: a tenth is 9, which is reached half way from 9.5 to 8.5.
    assert onset(np.array([10.0, 10.0, 9.5, 8.5, 0.0])) == pytest.approx(2.5)
    assert onset(np.array([10.0, 0.0])) == pytest.approx(0.1)
    assert onset(np.array([1.0, 1.0, 2.0])) == math.inf
    assert onset(np.array([10.0, 12.0, math.nan])) == math.inf
    assert math.isnan(onset(np.array([1.0])))


def test_instability_by_hand():
    assert instability(np.array([4.0, 2.0, 3.0, 1.0, 1.2])) == pytest.approx(0.5)
    assert instability(np.array([3.0, 2.0, 1.0])) == 0
    assert instability(np.array([3.0, 1.5, math.nan])) == 0
    assert math.isnan(instability(np.array([1.0])))
