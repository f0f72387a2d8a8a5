"""The split: exact shares, nothing on both sides, the same on every machine."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from brickyard.errors import DataError
from brickyard.train.data import first_equal, split
from brickyard.train.data.splitting import Plan, partition, validation_size
from brickyard.train.data.target import read_target


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 40), min_size=1, max_size=6),
    val=st.floats(0.05, 0.95),
    seed=st.integers(0, 2**40),
)
def test_shares_are_exact(sizes, val, seed):
    y = np.repeat(np.arange(len(sizes)), sizes)
    n, k = len(y), len(sizes)
    total = round(val * n)
    if not (k <= total <= n - k):
        with pytest.raises(DataError, match=r"change val|empty"):
            split(n, y, val, seed, True)
        return
    train, held = split(n, y, val, seed, True)
    assert sorted([*train, *held]) == list(range(n))
    assert len(held) == total
    counts = np.bincount(y[held], minlength=k)
    exact = np.array(sizes) * total / n
    assert (counts >= 1).all()
    assert (counts <= np.array(sizes) - 1).all()
    if (exact >= 1).all() and (exact <= np.array(sizes) - 1).all():
        assert (np.abs(counts - exact) < 1 + 1e-9).all()


@settings(max_examples=100, deadline=None)
@given(
    content=st.lists(st.integers(0, 12), min_size=12, max_size=80),
    val=st.floats(0.1, 0.6),
    seed=st.integers(0, 999),
    stratify=st.booleans(),
)
def test_groups_are_never_torn(content, val, seed, stratify):
    rows = np.array(content)
    y = rows % 3
    try:
        train, held = split(len(rows), y, val, seed, stratify, groups=rows)
    except DataError:
        return
    assert not set(rows[train]) & set(rows[held])
    assert len(train) > 0
    assert len(held) > 0
    assert sorted([*train, *held]) == list(range(len(rows)))


def test_groups_leave_the_shares_exact_when_few():
    y = np.repeat([0, 1], [600, 400])
    groups = np.arange(1000)
    groups[1:5] = 0
    groups[601:603] = 600
    _, held = split(1000, y, 0.2, 3, True, groups=groups)
    assert np.bincount(y[held]).tolist() == [120, 80]


def test_split_is_frozen():
    """A changed stream would break the comparison of runs across versions."""
    _, held = split(12, np.array([0, 1] * 6), 4, 7, True)
    assert held.tolist() == [1, 2, 3, 8]


def test_seed_decides():
    runs = [tuple(split(50, None, 10, seed, False)[1]) for seed in (0, 0, 1, 2**33)]
    assert runs[0] == runs[1]
    assert len(set(runs)) == 3


def test_stratify_makes_the_difference():
    y = np.array([0] * 90 + [1] * 10)
    spread = [(y[split(100, y, 20, s, False)[1]] == 1).sum() for s in range(30)]
    assert len(set(spread)) > 1
    assert {(y[split(100, y, 20, s, True)[1]] == 1).sum() for s in range(30)} == {2}
    with pytest.raises(ValueError, match="needs the labels"):
        split(10, None, 0.2, 0, True)


@pytest.mark.parametrize(
    ("n", "val", "message"),
    [
        (10, 0.01, "leaves the validation split empty"),
        (10, 0.99, "leaves the training split empty"),
        (10, 10, "leaves the training split empty"),
        (10, 0.0, "fraction between 0 and 1"),
        (10, -0.5, "fraction between 0 and 1"),
        (10, 1.5, "whole number"),
        (10, True, "whole number"),
        (10, float("nan"), "fraction between 0 and 1"),
    ],
)
def test_impossible_sizes(n, val, message):
    with pytest.raises(DataError, match=message):
        validation_size(n, val)


def test_sizes():
    assert validation_size(10, 0.25) == 2
    assert validation_size(10, 3) == 3
    assert validation_size(10, 3.0) == 3
    assert validation_size(10, 1) == 1


def test_class_with_one_member():
    with pytest.raises(DataError, match="class 'cat' has one member only"):
        split(5, np.array([0, 1, 1, 1, 1]), 2, 0, True, names=["cat", "dog"])


def test_class_of_identical_samples():
    y = np.array([0, 0, 0, 1, 1, 1])
    with pytest.raises(DataError, match=r"class 'cat' has 3 samples, but all are identical.*allow"):
        split(6, y, 2, 0, True, groups=np.array([0, 0, 0, 1, 2, 3]), names=["cat", "dog"])
    with pytest.raises(DataError, match="all 6 samples are identical"):
        split(6, None, 2, 0, False, groups=np.zeros(6))


def test_too_small_for_the_classes():
    with pytest.raises(DataError, match=r"validation split of 2 cannot hold .* each of 3 classes"):
        split(9, np.arange(9) % 3, 2, 0, True)
    with pytest.raises(DataError, match="training split of 2 cannot hold"):
        split(9, np.arange(9) % 3, 7, 0, True)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=60),
    st.sampled_from(["u1", "i8", "f4", "f8"]),
)
def test_first_equal_agrees_with_a_dictionary(rows, dtype):
    array = np.array(rows, dtype)
    seen = {}
    assert first_equal(array).tolist() == [seen.setdefault(r, i) for i, r in enumerate(rows)]


def test_first_equal_on_odd_bytes():
    rows = np.array([[0.0, np.nan], [-0.0, np.nan], [1.0, np.nan]])
    assert first_equal(rows).tolist() == [0, 0, 2]
    images = np.zeros((3, 1, 3, 3), np.uint8)  # 9 bytes a row: no wider lane fits
    images[1, 0, 2, 2] = 1
    assert first_equal(images).tolist() == [0, 1, 0]


def test_first_equal_survives_collisions(monkeypatch):
    """With a useless hash the bytes still decide."""
    from brickyard.train.data import splitting as module

    monkeypatch.setattr(module, "_hash_rows", lambda flat: np.zeros(len(flat), np.uint64))
    rows = np.array([[1.0], [2.0], [1.0], [2.0], [3.0]])
    assert first_equal(rows).tolist() == [0, 1, 0, 1, 4]


def _rows_and_target():
    rows = np.arange(20.0)[:, None]
    return rows, read_target(np.arange(20) % 2)


def test_own_split_that_overlaps_is_an_error():
    rows, target = _rows_and_target()
    rows[16] = rows[3]
    rows[19] = rows[0]
    with pytest.raises(DataError, match=r"2 of 6 validation samples are training samples too"):
        partition(rows, target, Plan(given=14))
    with pytest.raises(DataError, match=r"sample 2 \(training sample 3\), 5 \(training sample 0\)"):
        partition(rows, target, Plan(given=14))
    parts = partition(rows, target, Plan(given=14, duplicates="allow"))
    assert parts.facts["split"]["overlap"] == 2
    assert "2 of 6" in parts.facts["warnings"][-1]


def test_duplicates_option():
    rows, target = _rows_and_target()
    rows = rows % 10  # every sample twice
    together = [partition(rows, target, Plan(seed=s)) for s in range(10)]
    allowed = [partition(rows, target, Plan(seed=s, duplicates="allow")) for s in range(10)]
    assert all(p.facts["split"]["overlap"] == 0 for p in together)
    assert any(p.facts["split"]["overlap"] > 0 for p in allowed)
    assert together[0].facts["split"]["identical"] == 10
    with pytest.raises(DataError, match="'together' or 'allow'; got 'drop'"):
        Plan(duplicates="drop")


def test_contradicting_labels_are_named():
    rows, target = _rows_and_target()
    rows[1] = rows[0]
    assert partition(rows, target, Plan()).facts["warnings"] == [
        "1 samples repeat another sample with a different label"
    ]


def test_own_split_with_one_sided_classes():
    rows = np.arange(6.0)[:, None]
    with pytest.raises(DataError, match="the training split lacks: 'c'"):
        partition(rows, read_target(np.array(list("ababac"))), Plan(given=4))
    parts = partition(rows, read_target(np.array(list("abcaab"))), Plan(given=4))
    assert parts.facts["warnings"] == ["the validation split has no sample of 'c'"]
