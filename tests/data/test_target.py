"""Targets: which task, which classes, and what is refused."""

import numpy as np
import pytest

from brickyard.errors import DataError
from brickyard.train.data.target import read_target


@pytest.mark.parametrize(
    ("y", "table", "task", "classes"),
    [
        (np.array(["b", "a", "b"]), False, "classification", ("a", "b")),
        (np.array([b"b", b"a"]), False, "classification", ("a", "b")),
        (np.array(["b", 1, "b"], object), False, "classification", ("1", "b")),
        (np.array([True, False]), False, "classification", ("False", "True")),
        (np.array([10, 9, 10]), False, "classification", ("9", "10")),
        (np.array([[1], [-1]]), False, "classification", ("-1", "1")),
        (np.array([0.0, 1.0, 1.0]), False, "regression", ()),
        (np.array([0.0, 1.0, 1.0]), True, "classification", ("0", "1")),
        (np.arange(20), True, "classification", tuple(map(str, range(20)))),
        (np.arange(21), True, "regression", ()),
        (np.arange(21), False, "classification", tuple(map(str, range(21)))),
        (np.array([0.5, 1.0]), True, "regression", ()),
        (np.ones((4, 2)), False, "regression", ()),
    ],
)
def test_task_is_inferred(y, table, task, classes):
    target = read_target(y, table=table)
    assert (target.task, target.classes) == (task, classes)
    assert target.reason
    if classes:
        assert target.values.dtype == np.int64
        assert [classes[v] for v in target.values] == [
            str(v.decode() if isinstance(v, bytes) else v).removesuffix(".0") for v in y.flat
        ]
    else:
        assert target.values.shape == (len(y), y.size // len(y))


def test_task_is_obeyed():
    assert read_target([1, 2, 3], "regression").values.tolist() == [[1.0], [2.0], [3.0]]
    assert read_target([1.0, 2.0, 2.0], "classification").classes == ("1", "2")
    assert read_target(["1.5", "2"], "regression").values.tolist() == [[1.5], [2.0]]
    assert read_target([True, False], "regression").values.tolist() == [[1.0], [0.0]]
    assert read_target([1, 2, 3], "regression").reason == "given"


@pytest.mark.parametrize(
    ("y", "task", "message"),
    [
        ([1.0, np.nan], None, "1 missing or non-finite values, the first in row 1"),
        ([1.0, np.inf], None, "non-finite"),
        (np.array(["a", None], object), None, "missing"),
        ([], None, "empty"),
        (np.ones((2, 2, 2)), None, r"shape \(n,\) or \(n, outputs\)"),
        (3.0, None, r"shape \(n,\)"),
        (np.ones(3, complex), None, "numbers or labels; got dtype complex128"),
        (np.eye(3), "classification", r"got \(3, 3\).*argmax"),
        ([0.5, 1.5], "classification", "2 different decimal numbers"),
        (["a", "b"], "regression", "text such as 'a'"),
        (["a", "a"], None, "two classes at least; every y is 'a'"),
        ([1, 2], "ranking", "classification, regression, multi_label; got 'ranking'"),
    ],
)
def test_refusals(y, task, message):
    with pytest.raises(DataError, match=message):
        read_target(y, task)


def test_names_and_rows_in_messages():
    with pytest.raises(DataError, match=r"target 'price' has 1 .* row 2"):
        read_target([1.0, np.nan], name="target 'price'", row_base=1)
