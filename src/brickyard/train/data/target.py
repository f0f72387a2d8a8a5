"""Read targets: find the task, turn labels into class indices, check what is there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from brickyard.errors import DataError
from brickyard.train.data.base import TASKS as _INFERRED

#: What targets can be read as; several labels a sample only when that is said.
TASKS = (*_INFERRED, "multi_label")
#: In a table, a number column with at most so many distinct whole values is taken for labels.
FEW = 20


@dataclass(frozen=True)
class Target:
    """Hold targets as numbers.

    Args:
        task: ``"classification"``, ``"regression"`` or ``"multi_label"``.
        values: class indices, int64 of shape (n,), or targets, float64 of shape (n, outputs); of
            labels 0.0 and 1.0.
        classes: names of the classes by index; empty for regression.
        reason: why the task is this one.
    """

    task: str
    values: np.ndarray
    classes: tuple[str, ...] = ()
    reason: str = ""

    @property
    def outputs(self) -> int:
        """Return the number of classes or of regression targets."""
        return len(self.classes) if self.classes else self.values.shape[1]


def read_target(
    y: Any, task: str | None = None, *, name: str = "y", table: bool = False, row_base: int = 0
) -> Target:
    """Turn raw targets into class indices or numbers.

    Text and booleans are labels. In arrays, whole-number types are labels too and decimals are
    not. A table's numbers are labels when they are whole and at most 20 different ones.

    Args:
        y: shape (n,), or (n, outputs) for regression.
        task: what the user says it is; None to infer it.
        name: what messages call it.
        table: it is a column of a table.
        row_base: the number of the first row in messages.

    Raises:
        DataError: non-finite or missing values, a shape or type that the task cannot have, or one
            class only.
    """
    if task is not None and task not in TASKS:
        raise DataError(f"task must be one of {', '.join(TASKS)}; got {task!r}")
    values = np.asarray(y)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2):
        raise DataError(f"{name} must have shape (n,) or (n, outputs); got {values.shape}")
    if values.dtype.kind not in "biufUSO":
        raise DataError(f"{name} must hold numbers or labels; got dtype {values.dtype}")
    if len(values) == 0:
        raise DataError(f"{name} is empty: there are no samples")
    _check_present(values, name, row_base)
    inferred, reason = _infer(values, table)
    if (task or inferred) == "classification":
        return _labels(values, name, "given" if task else reason)
    if task == "multi_label":
        return _several(values, name)
    return _numbers(values, name, "given" if task else reason)


def _several(values: np.ndarray, name: str) -> Target:
    if values.ndim != 2 or values.dtype.kind not in "biuf" or not np.isin(values, (0, 1)).all():
        raise DataError(
            f"multi_label takes 0 or 1 for every label, {name} of shape (n, labels); got "
            f"{values.dtype} of shape {values.shape}"
        )
    return Target("multi_label", values.astype(np.float64), (), "given")


def _check_present(values: np.ndarray, name: str, row_base: int) -> None:
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values)
    elif values.dtype.kind == "O":
        bad = np.array([v is None or v != v for v in values.flat]).reshape(values.shape)
    else:
        return
    if bad.any():
        rows = np.unique(np.nonzero(bad)[0])
        raise DataError(
            f"{name} has {len(rows)} missing or non-finite values, the first in row "
            f"{', '.join(str(r + row_base) for r in rows[:5])}; a sample without a target cannot "
            "be learned from: take these rows out"
        )


def _infer(values: np.ndarray, table: bool) -> tuple[str, str]:
    kind = values.dtype.kind
    if kind in "USO":
        return "classification", "the target is text"
    if kind == "b":
        return "classification", "the target is true or false"
    if values.ndim == 2:
        return "regression", "the target has several columns"
    if not table:
        task = "classification" if kind in "iu" else "regression"
        return task, f"the target's dtype is {values.dtype}"
    whole = kind in "iu" or bool((values == np.round(values)).all())
    count = len(np.unique(values))
    if whole and count <= FEW:
        return "classification", f"the target holds {count} different whole numbers"
    return "regression", f"the target holds {count} different numbers"


def _labels(values: np.ndarray, name: str, reason: str) -> Target:
    if values.ndim == 2:
        raise DataError(
            f"classification takes one label per sample, {name} of shape (n,); got {values.shape}. "
            "Turn one-hot rows into labels with argmax(1)"
        )
    if values.dtype.kind == "f" and (values != np.round(values)).any():
        count = len(np.unique(values))
        raise DataError(
            f"classification takes labels: text or whole numbers; {name} holds {count} different "
            "decimal numbers. Set task to 'regression', or give labels"
        )
    if values.dtype.kind in "SO":
        values = np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values.flat])
    distinct, codes = np.unique(values, return_inverse=True)
    if len(distinct) < 2:
        raise DataError(
            f"classification needs two classes at least; every {name} is {distinct[0].item()!r}"
        )
    if distinct.dtype.kind == "f":
        distinct = distinct.astype(np.int64)
    classes = tuple(str(v) for v in distinct.tolist())
    return Target("classification", codes.astype(np.int64), classes, reason)


def _numbers(values: np.ndarray, name: str, reason: str) -> Target:
    if values.dtype.kind in "USO":
        try:
            values = values.astype(np.float64)
        except (TypeError, ValueError):
            raise DataError(
                f"regression takes numbers; {name} holds text such as {str(values.flat[0])!r}. "
                "Set task to 'classification', or give numbers"
            ) from None
    values = values.astype(np.float64)
    if values.ndim == 1:
        values = values[:, None]
    return Target("regression", values, (), reason)
