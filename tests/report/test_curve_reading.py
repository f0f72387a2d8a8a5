"""What is said of a curve's noise, rise and rest, on curves made for it and on borderline ones."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

from brickyard.reading import NOISY, rise, settled, spread, unsteady


def curve(noise, n=20, gained=1.0, seed=0, level=0.2):
    """Fall by ``gained`` in the first half and stay, with noise in units of that."""
    rng = np.random.default_rng(seed)
    t = np.arange(n)
    return level + gained * np.exp(-t / 2) + noise * gained * rng.standard_normal(n)


@pytest.mark.parametrize("seed", range(5))
def test_spread_is_the_deviation_of_noise_whatever_the_trend(seed):
    v = np.random.default_rng(seed).normal(3, 0.5, 4000)
    assert_allclose(spread(v), 0.5, rtol=0.06)
    assert_allclose(spread(v + np.arange(4000)), spread(v), rtol=1e-9)
    steps = v + 40 * (np.arange(4000) // 1000)  # a rate that is lowered three times
    assert_allclose(spread(steps), spread(v), rtol=0.02)
    assert_allclose(spread(-2 * v), 2 * spread(v))


def test_spread_of_straight_and_of_short_curves_is_nothing():
    assert spread(np.linspace(5, 1, 30)) < 1e-15
    assert spread([1, 9, 2]) == 0
    assert spread([]) == 0


@pytest.mark.parametrize("seed", range(30))
def test_noise_far_from_the_threshold_is_told_apart(seed):
    assert unsteady(curve(3 * NOISY, 40, seed=seed)) is not None
    assert unsteady(curve(0.35 * NOISY, seed=seed)) is None
    assert unsteady(1 - curve(3 * NOISY, 40, seed=seed)) is not None  # a score that rises


def test_the_threshold_is_where_it_says():
    """With many values the estimate is sharp: a tenth of the gain parts the two."""
    sharp = [unsteady(curve(share * NOISY, 2000, level=0)) is not None for share in (0.9, 1.1)]
    assert sharp == [False, True]


def test_evidence_in_numbers():
    found = unsteady(curve(0.3, 400))
    assert found.count == 200
    assert_allclose([found.spread, found.gained], [0.3, 1.0], rtol=0.3)
    assert found.trend < 0.1


def test_what_is_not_noise():
    rng = np.random.default_rng(1)
    falling = np.linspace(3, 0.5, 12) + 0.2 * rng.standard_normal(12)
    assert unsteady(falling) is None, "its trend is larger"
    assert unsteady(2.3 + 0.01 * rng.standard_normal(40)) is None, "flat to two digits"
    assert unsteady(curve(0.5)[:9]) is None, "too short"
    assert unsteady(np.repeat([1.0, 0.1, 0.01], 8)) is None, "steps of a schedule"
    restarts = 0.2 + np.exp(-np.arange(40) / 4) + 0.05 * (10 - np.arange(40) % 10) / 10
    assert unsteady(restarts) is None, "warm restarts"
    assert unsteady(curve(0.3), floor=10) is None, "its samples explain it"
    small = np.concatenate([[3.0, 1.0, 0.3], 0.002 * rng.random(20)])
    assert unsteady(small) is None, "all was gained long ago"


def test_rise():
    fell = np.exp(-np.arange(100) / 30)
    assert rise(fell) is None
    start, low, end = rise(np.concatenate([fell, 2 * fell[::-1]]))
    assert low < start < end
    assert rise(np.concatenate([fell, fell[::-1]])) is None, "back at its start, not above"
    assert rise(1 + 0.15 * np.arange(100) / 100) is None
    assert rise(fell[:10]) is None
    assert rise(np.concatenate([fell, -2 * fell[::-1]])) is None, "may be negative: no claim"


def test_settled():
    assert settled([1, 5, 9, 9.5, 9.4], 0.6) == 2
    assert settled([1, 5, 9, 9.5, 9.4], 0.0) == 3
    assert settled([3], 0.0) == 0
