import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.report.history import History, Series, broken, thin, trend

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)


def series(values, split="train"):
    steps = np.arange(1, len(values) + 1, dtype=float)
    return Series("loss", split, steps, steps / 10, np.asarray(values, dtype=float))


@settings(max_examples=60, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=600), st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_thinning_keeps_ends_and_extremes_of_every_span(values, buckets, seed):
    y = np.array(values)
    x = np.cumsum(np.random.default_rng(seed).exponential(size=len(y)))
    kept = thin(x, y, buckets)
    assert len(kept) <= max(4 * buckets, 1)
    assert (np.diff(kept) > 0).all()
    assert kept[0] == 0
    assert kept[-1] == len(y) - 1
    span = (x[-1] - x[0]) or 1.0
    place = np.minimum((x - x[0]) / span * buckets, buckets - 1).astype(int)
    for bucket in np.unique(place):
        inside = np.flatnonzero(place == bucket)
        drawn = np.intersect1d(inside, kept)
        assert y[drawn].min() == y[inside].min()
        assert y[drawn].max() == y[inside].max()


def test_a_short_series_is_not_thinned():
    y = np.random.default_rng(0).normal(size=40)
    assert np.array_equal(thin(np.arange(40.0), y, 10), np.arange(40))


def test_trend_is_the_median_of_its_window_and_knows_the_range():
    values = np.random.default_rng(1).normal(size=3000) + np.linspace(5, 0, 3000)
    values[1500] = 1e9
    found = trend(series(values), 100)
    assert found.window == 101
    middle = len(found.value) // 3
    i = int(found.step[middle]) - 1
    assert found.value[middle] == np.median(values[i - 50 : i + 51])
    assert found.value.max() < 10  # the spike does not pull the line
    assert found.high.max() == 1e9  # and is not hidden either
    assert found.low.min() == values.min()
    assert found.step[0] == 1
    assert found.step[-1] == 3000


def test_broken_runs_are_found_where_they_are():
    values = [1, math.nan, math.inf, 2, 3, -math.inf]
    assert broken(series(values)) == [(0.2, 0.3, 2), (0.6, 0.6, 1)]
    assert broken(series([1.0])) == []


def test_history_reads_text_for_what_is_not_finite_and_leaves_other_things_out():
    history = History([
        {"step": 1, "epoch": 0.5, "split": "train", "loss": "nan", "note": "hello", "flag": True},
        {"step": 2, "split": "val", "loss": "-inf", "accuracy": 1},
        {"epoch": 3, "split": "val", "loss": 1.0},
    ])  # fmt: skip
    assert sorted(history.series) == [("train", "loss"), ("val", "accuracy"), ("val", "loss")]
    assert math.isnan(history.get("train", "loss").value[0])
    assert history.get("val", "loss").epoch.tolist() == [2.0]  # the step stands in for the epoch
    assert len(history.get("val", "nothing")) == 0
    assert history.last_step == 2
