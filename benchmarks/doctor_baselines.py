"""Rules of other tools, re-stated over recorded signals, with their published thresholds.

Curves: what alert rules of experiment trackers do, on the training loss alone: a spike of three
standard deviations over a rolling window, a rising trend, not a number.

SageMaker Debugger: its built-in rules with their default parameters, as documented in
https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html, on every step.
Its default saves tensors every 500 steps, which these short runs do not reach. ClassImbalance
and the rules that need images or a second run are left out.

DeepDiagnosis: Wardat, Cruz, Le, Rajan, "DeepDiagnosis: Automatically Diagnosing Faults and
Recommending Actionable Fixes in Deep Learning Programs", ICSE 2022 (arXiv:2112.04036), with the
thresholds of its callback (github.com/DeepDiagnosis/ICSE2022). Its rule that an output layer
without softmax is out of range belongs to Keras' losses; in torch it would hit every classifier,
so it is left out, to its advantage. Its checks run once per epoch; here once per 20 steps.
"""

import math
import statistics
from itertools import pairwise

DIM, NORM, VAR, CHANGE, SCALE, GRAD_MEAN, GRAD_MAX, SPREAD, FINITE = range(9)


def _losses(run):
    return [s["loss"] for s in run["steps"] if s["loss"] is not None]


def _series(run, column):
    """Return the values of one column over steps, by parameter."""
    series = {}
    for step in run["steps"]:
        for name, row in step["params"].items():
            if row[column] is not None:
                series.setdefault(name, []).append(row[column])
    return series


def _last_active(run):
    rows = [s["active"] for s in run["steps"] if s.get("active")]
    return rows[-1] if rows else []


def not_a_number(run):
    """Alarm on a loss that is not finite."""
    return any(not math.isfinite(v) for v in _losses(run))


def spike(run, window=20, sigmas=3.0):
    """Alarm when a loss stands three standard deviations above the last twenty."""
    losses = _losses(run)
    for i in range(window, len(losses)):
        past = losses[i - window : i]
        if not all(map(math.isfinite, past)):
            return False
        spread = statistics.pstdev(past)
        if spread > 0 and losses[i] > statistics.fmean(past) + sigmas * spread:
            return True
    return False


def rising(run, window=50):
    """Alarm when the mean of fifty losses lies above that of the fifty before."""
    losses = _losses(run)
    means = [
        statistics.fmean(losses[i : i + window]) for i in range(0, len(losses) - window + 1, window)
    ]
    return any(b > a for a, b in pairwise(means))


def plateau(run, window=100, gain=0.01):
    """Alarm when the best loss did not fall by one percent within a hundred steps."""
    losses = _losses(run)
    for i in range(window, len(losses)):
        best = min(losses[: i - window + 1])
        if min(losses[i - window + 1 : i + 1]) > best - gain * abs(best):
            return True
    return False


def vanishing_gradient(run, threshold=1e-7):
    """SageMaker: the mean absolute gradient falls below 1e-7."""
    return any(v < threshold for values in _series(run, GRAD_MEAN).values() for v in values)


def exploding_tensor(run):
    """SageMaker: a tensor is not finite."""
    finite = all(row[FINITE] for s in run["steps"] for row in s["params"].values())
    return not finite or not_a_number(run)


def loss_not_decreasing(run, num_steps=10, diff_percent=0.1):
    """SageMaker: every ten steps, the loss fell by less than 0.1 percent."""
    losses = _losses(run)[::num_steps]
    return any(b > a - abs(a) * diff_percent / 100 for a, b in pairwise(losses))


def weight_update_ratio(run, large=10.0, small=1e-8, epsilon=1e-9):
    """SageMaker: the change of a weight over the weight is above 10 or below 1e-8."""
    for step in run["steps"]:
        for row in step["params"].values():
            ratio = row[CHANGE] / (row[NORM] + epsilon)
            if ratio > large or ratio < small:
                return True
    return False


def unchanged_tensor(run, num_steps=3, rtol=1e-5, atol=1e-8):
    """SageMaker: a parameter stays as it is for three steps."""
    changes, norms = _series(run, CHANGE), _series(run, NORM)
    for name, values in changes.items():
        still = [c <= atol + rtol * n for c, n in zip(values, norms[name], strict=True)]
        if any(all(still[i : i + num_steps]) for i in range(len(still) - num_steps + 1)):
            return True
    return False


def all_zero(run):
    """SageMaker: all values of a weight or gradient are zero."""
    weights = (v == 0 for values in _series(run, SCALE).values() for v in values)
    return any(weights) or any(v == 0 for vs in _series(run, GRAD_MAX).values() for v in vs)


def poor_initialization(run, threshold=10.0, distribution=0.001, patience=5, steps=10):
    """SageMaker: at the start, variances differ tenfold, or gradients do not spread."""
    for step in run["steps"][:steps]:
        rows = [r for r in step["params"].values() if r[DIM] > 1]
        variances = [r[VAR] for r in rows if r[VAR] > 0]
        spreads = [r[SPREAD] for r in rows if r[SPREAD] is not None]
        if variances and max(variances) / min(variances) > threshold:
            return True
        if spreads and min(spreads) < distribution:
            return True
    losses = _losses(run)[:steps]
    return len(losses) > patience and min(losses[1 : patience + 1]) > losses[0]


def dead_relu(run, layer=0.5):
    """SageMaker: more than half of the units of a ReLU are active in under one percent."""
    return any(a[0] == "ReLU" and a[1] > layer for s in run["steps"] for a in s.get("active") or [])


def saturated_activation(run, layer=0.5):
    """SageMaker: more than half of the inputs of tanh or sigmoid are in its flat part."""
    return any(a[0] != "ReLU" and a[1] > layer for s in run["steps"] for a in s.get("active") or [])


def tensor_variance(run, largest=10.0, smallest=1e-5):
    """SageMaker: a weight's variance is above 10 or below 1e-5 (its documented example)."""
    for step in run["steps"]:
        for row in step["params"].values():
            if row[DIM] > 1 and not smallest <= row[VAR] <= largest:
                return True
    return False


def overfit(run, ratio=0.1):
    """SageMaker: validation loss is a tenth above training loss."""
    losses = _losses(run)
    for step, value in run["validation"]:
        recent = losses[max(0, step - 20) : step]
        if recent and value - statistics.fmean(recent) > ratio * abs(statistics.fmean(recent)):
            return True
    return False


def overtraining(run, patience_train=5, patience_validation=10, delta=0.01):
    """SageMaker: training loss has not improved for 5 steps, validation loss for 10."""

    def stuck(values, patience):
        best, since = math.inf, 0
        for v in values:
            best, since = (v, 0) if v < best - delta else (best, since + 1)
            if since >= patience:
                return True
        return False

    validation = [v for _, v in run["validation"]]
    return stuck(_losses(run), patience_train) and stuck(validation, patience_validation)


def _epochs(run, every=20):
    return run["steps"][every - 1 :: every]


def numerical_error(run):
    """DeepDiagnosis: a mean is not finite, or exactly zero."""
    if exploding_tensor(run):
        return True
    rows = [r for s in _epochs(run) for r in s["params"].values() if r[DIM] > 1]
    return any(r[SCALE] == 0 or r[GRAD_MAX] == 0 for r in rows)


def dead_node(run, layer=0.7):
    """DeepDiagnosis: at the end, 70 percent of what leaves a ReLU is zero."""
    return any(a[0] == "ReLU" and a[2] >= layer for a in _last_active(run))


def saturated(run, layer=0.5):
    """DeepDiagnosis: half of the inputs of tanh or sigmoid are beyond 5."""
    rows = [a for s in _epochs(run) for a in s.get("active") or []]
    return any(a[0] != "ReLU" and a[2] > layer for a in rows)


def loss_unchanged(run, epochs=5):
    """DeepDiagnosis: the loss is the same for five epochs."""
    losses = [s["loss"] for s in _epochs(run) if s["loss"] is not None]
    groups = (losses[i : i + epochs] for i in range(0, len(losses) - epochs + 1, epochs))
    return any(len(set(group)) == 1 for group in groups)


def unchanged_weight(run, epochs=5):
    """DeepDiagnosis: a weight is the same for five epochs."""
    series = {}
    for step in _epochs(run):
        for name, row in step["params"].items():
            series.setdefault(name, []).append((row[NORM], row[SCALE]))
    return any(
        len(set(v[i : i + epochs])) == 1
        for v in series.values()
        for i in range(0, len(v) - epochs + 1, epochs)
    )


def vanishing(run, threshold=1e-7):
    """DeepDiagnosis: a mean absolute gradient falls below 1e-7."""
    rows = [r for s in _epochs(run) for r in s["params"].values() if r[DIM] > 1]
    return any(r[GRAD_MEAN] is not None and r[GRAD_MEAN] < threshold for r in rows)


SETS = {
    "Curves": (not_a_number, spike, rising, plateau),
    "SageMaker Debugger": (
        vanishing_gradient, exploding_tensor, loss_not_decreasing, weight_update_ratio,
        unchanged_tensor, all_zero, poor_initialization, dead_relu, saturated_activation,
        tensor_variance, overfit, overtraining,
    ),
    "DeepDiagnosis": (
        numerical_error, dead_node, saturated, loss_unchanged, unchanged_weight, vanishing,
    ),
}  # fmt: skip


def apply(rules, run):
    """Return the names of the rules that alarm on a recorded run."""
    return [rule.__name__ for rule in rules if rule(run)]
