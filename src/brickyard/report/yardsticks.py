"""Know what a constant answer and a perfect model would score: what a result is held against."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brickyard.report.facts import Facts
from brickyard.report.wording import is_share

_SHORT = {
    "mean_absolute_error": "mae", "mean_squared_error": "mse", "root_mean_squared_error": "rmse",
}  # fmt: skip


@dataclass(frozen=True)
class Yardstick:
    """Hold a metric in training and validation, between a constant answer and a perfect one."""

    metric: str
    train: float
    val: float
    constant: float
    ideal: float
    how: str


def constant(f: Facts) -> tuple[float, str] | None:
    """Return what a constant answer would score on the monitored metric, and its name."""
    target = f.evaluation.get("target")
    monitor = _SHORT.get(f.monitor, f.monitor)
    if f.monitor == "balanced_accuracy" and f.classes:
        return 1 / len(f.classes), "guessing"
    if f.task == "classification" and f.monitor in ("accuracy", "acc") and f.share:
        if target is not None and len(target):
            shares = np.unique(target, return_counts=True)[1] / len(target)
            return float(shares.max()), "always naming the most frequent class"
        return (1 / len(f.classes), "guessing") if f.classes else None
    if f.task != "regression" or monitor not in ("r2", "mse", "rmse", "mae"):
        return None
    if monitor == "r2":
        return 0.0, "always answering the mean"
    if target is None or not len(target) or not _same_units(f, target):
        return None
    centre = np.median(target) if monitor == "mae" else np.mean(target)
    return _error(monitor, target - centre), "always answering the same value"


def _same_units(f: Facts, target: np.ndarray) -> bool:
    """Say whether the metric was measured in the units of ``evaluation.npz``."""
    prediction = f.evaluation.get("prediction")
    if prediction is None or prediction.shape != target.shape:
        return False
    again = _error(_SHORT.get(f.monitor, f.monitor), target - prediction)
    return math.isclose(again, f.best, rel_tol=0.05)


def ideal(name: str) -> float:
    """Return what a perfect model scores on a metric that a constant answer is known for."""
    return 1.0 if is_share(name) or name == "r2" else 0.0


def yardsticks(f: Facts) -> tuple[Yardstick, ...]:
    """Return the metrics known in training, in validation, for a constant and a perfect model.

    The monitored one, and the loss where its value for a constant answer is known: the
    cross-entropy of uniform probabilities is the logarithm of the number of classes.
    """
    found = []
    told = constant(f)
    if told:
        best = ideal(f.monitor)
        found.append(Yardstick(f.monitor, f.train_monitor, f.best, told[0], best, told[1]))
    loss = f.recipe.get("loss")
    name = loss.get("name") if isinstance(loss, Mapping) else loss
    if name == "cross_entropy" and len(f.classes) > 1:
        train = f.train_at("loss", f.best_epoch)
        uniform = math.log(len(f.classes))
        found.append(
            Yardstick("loss", train, f.val_loss_at_best, uniform, 0.0,
                      "giving each class the same probability")
        )  # fmt: skip
    return tuple(y for y in found if not math.isnan(y.train + y.val) and y.ideal != y.constant)


def _error(name: str, difference: np.ndarray) -> float:
    if name == "mae":
        return float(np.abs(difference).mean())
    mean = float((difference.astype(np.float64) ** 2).mean())
    return math.sqrt(mean) if name == "rmse" else mean
