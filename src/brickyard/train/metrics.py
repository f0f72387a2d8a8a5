"""Metrics: what is reported of held-out data, and never trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

__all__ = [
    "accuracy", "auroc", "balanced_accuracy", "f1", "mean_absolute_error", "mean_squared_error",
    "r2", "root_mean_squared_error",
]  # fmt: skip


@brick(
    "metric", "accuracy", aliases=("acc", "top_k_accuracy"), task="classification", better="higher",
    summary="Share of samples whose class is predicted right, or is among the k likeliest.",
    use_when="Classes are about equally frequent and each mistake costs the same.",
    avoid_when="Classes are imbalanced: naming the commonest class at 99 % scores 0.99; report "
    "balanced_accuracy, f1 or auroc beside it.",
    best_for="Benchmarks with balanced classes, such as digits and ImageNet.",
    paper="Top-k as in Russakovsky et al. 2015 (arXiv:1409.0575), section 4.1.",
    tune_first="Nothing; top_k only to compare with published figures that use it.",
    cost="Three counts a class; one sort of the scores when top_k is above 1.",
    pairs_with=("balanced_accuracy", "auroc"),
)  # fmt: skip
def accuracy(outputs: int, top_k: int = 1) -> Metric:
    """Make a metric that gives the share of right predictions.

    Math:
        accuracy = #(i: y_i is among the top_k highest of logits_i) / N

    Args:
        outputs: number of classes; 1 for a single logit, whose threshold is 0.
        top_k: how many of the likeliest classes may hold the right one.

    Raises:
        ValueError: ``top_k`` below 1, or so large that every prediction is right.

    Example:
        >>> import torch
        >>> metric = accuracy(outputs=3)
        >>> metric.update(torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 2.0]]), torch.tensor([0, 1]))
        >>> float(metric.compute())
        0.5

    Reference:
        Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015, section 4.1.
    """
    from brickyard.train.scores import ClassCounts

    return ClassCounts(outputs, _accuracy, top_k)


@brick(
    "metric", "balanced_accuracy", aliases=("macro_recall",), task="classification",
    better="higher",
    summary="Mean over the classes of the share found: each class counts the same.",
    use_when="Classes are imbalanced and the rare ones matter as much as the common ones.",
    avoid_when="The true mix of classes is what you will meet and each sample counts the same: "
    "then accuracy is the cost that you pay.",
    best_for="Imbalanced classification with a handful of classes, medical tables.",
    paper="Brodersen et al. 2010, The Balanced Accuracy and Its Posterior Distribution, ICPR.",
    tune_first="Nothing to tune. Look at the number of samples of the rarest class: its recall "
    "moves the mean in steps of 1 / (classes * samples).",
    cost="Three counts a class.",
    pairs_with=("accuracy", "f1"),
)  # fmt: skip
def balanced_accuracy(outputs: int) -> Metric:
    """Make a metric that gives the mean recall of the classes that occur in the targets.

    Math:
        balanced = mean over classes c with targets of  hits_c / targets_c

    Args:
        outputs: number of classes; 1 for a single logit, whose threshold is 0.

    Example:
        >>> import torch
        >>> metric = balanced_accuracy(outputs=1)
        >>> metric.update(torch.tensor([-1.0, -1.0, -1.0, -1.0]), torch.tensor([0, 0, 0, 1]))
        >>> float(metric.compute())
        0.5

    Reference:
        Brodersen et al., The Balanced Accuracy and Its Posterior Distribution, 2010.
    """
    from brickyard.train.scores import ClassCounts

    return ClassCounts(outputs, _balanced)


@brick(
    "metric", "f1", aliases=("f1_score", "f_measure"), task="classification", better="higher",
    summary="Harmonic mean of precision and recall, averaged over classes or of the positive one.",
    use_when="Finding the rare class matters and true negatives do not: search, detection, alarms.",
    avoid_when="The threshold is still open (use auroc), or true negatives count as well. It "
    "changes with the share of positives: do not compare it across data sets.",
    best_for="Imbalanced binary problems with average='binary'; text classification with 'macro'.",
    paper="van Rijsbergen 1979, Information Retrieval, chapter 7; Opitz & Burst 2019 "
    "(arXiv:1911.03347) on the two macro averages: this is the mean of the classes' F1.",
    tune_first="average: 'binary' for one positive class, 'macro' when all classes count the same.",
    cost="Three counts a class.",
    pairs_with=("balanced_accuracy", "auroc"),
)  # fmt: skip
def f1(outputs: int, average: Literal["macro", "weighted", "micro", "binary"] = "macro") -> Metric:
    """Make a metric that gives the F1 score.

    Math:
        F1_c = 2 hits_c / (predicted_c + targets_c)
        macro: mean over classes predicted or present;  weighted: mean with weights targets_c;
        micro: 2 sum hits / sum (predicted + targets);  binary: F1_1

    Args:
        outputs: number of classes; 1 for a single logit, whose threshold is 0.
        average: how the classes' scores become one.

    Raises:
        ValueError: an unknown average, or ``"binary"`` with more than two classes.

    Example:
        >>> import torch
        >>> metric = f1(outputs=1, average="binary")
        >>> metric.update(torch.tensor([2.0, 2.0, -2.0, -2.0]), torch.tensor([1, 0, 1, 0]))
        >>> float(metric.compute())
        0.5

    Reference:
        van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    from brickyard.train.scores import ClassCounts

    if average not in _F1:
        raise ValueError(f"average must be one of {', '.join(map(repr, _F1))}; got {average!r}")
    if average == "binary" and outputs > 2:
        raise ValueError(
            f"average='binary' is for two classes; with {outputs} outputs choose 'macro', "
            "'weighted' or 'micro'"
        )
    return ClassCounts(outputs, _F1[average])


@brick(
    "metric", "auroc", aliases=("roc_auc", "auc"), task="classification", better="higher",
    summary="Chance that a random member of the class scores above a random other sample.",
    use_when="You rank, or the threshold is chosen later: screening, credit, alarms.",
    avoid_when="Positives are very rare: a good-looking area can hide poor precision (Saito & "
    "Rehmsmeier 2015); look at f1 at your threshold too. It says nothing of calibration.",
    best_for="Binary classification with moderate imbalance.",
    paper="Hanley & McNeil 1982, Radiology 143; several classes one against the rest as in "
    "scikit-learn (Fawcett 2006); Saito & Rehmsmeier 2015, PLOS ONE 10(3).",
    tune_first="Nothing to tune: it has no threshold.",
    cost="Keeps every score until it is computed, then sorts: N log N a class.",
    pairs_with=("f1", "balanced_accuracy"),
)  # fmt: skip
def auroc(outputs: int) -> Metric:
    """Make a metric that gives the area under the ROC curve, from ranks, ties counted half.

    Math:
        A_c = (sum of ranks of members of c - m (m + 1) / 2) / (m n),  m members, n others
        two classes: A_1 of logit_1 - logit_0;  more: mean of A_c over the softmax's columns,
        classes without members or without others left out (NaN when none is left)

    Args:
        outputs: number of classes; 1 for a single logit.

    Example:
        >>> import torch
        >>> metric = auroc(outputs=1)
        >>> metric.update(torch.tensor([0.1, 0.4, 0.35, 0.8]), torch.tensor([0, 0, 1, 1]))
        >>> float(metric.compute())
        0.75

    Reference:
        Hanley & McNeil, The meaning and use of the area under a ROC curve, 1982.
    """
    from brickyard.train.scores import AreaUnderRoc

    return AreaUnderRoc(outputs)


@brick(
    "metric", "mean_absolute_error", aliases=("mean_abs_error",), task="regression", better="lower",
    summary="Mean distance between prediction and target, in the target's units.",
    use_when="You want a figure that people understand, and one bad sample must not decide it.",
    avoid_when="Large misses cost more than in proportion: report root_mean_squared_error.",
    best_for="Forecasts and measurements reported in their own units.",
    paper="Willmott & Matsuura 2005, Climate Research 30, who prefer it to RMSE; Chai & Draxler "
    "2014, Geosci. Model Dev. 7, who do not.",
    tune_first="Nothing to tune.",
    cost="Two sums.",
    pairs_with=("root_mean_squared_error", "r2"),
)  # fmt: skip
def mean_absolute_error(outputs: int = 1) -> Metric:
    """Make a metric that gives the mean absolute error over all elements.

    Math:
        mean over elements of |prediction - target|

    Args:
        outputs: number of values a sample; all count the same.

    Example:
        >>> import torch
        >>> metric = mean_absolute_error(outputs=1)
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
        >>> float(metric.compute())
        2.0

    Reference:
        Willmott & Matsuura, Advantages of the mean absolute error over the RMSE, 2005.
    """
    from brickyard.train.scores import ErrorMean

    return ErrorMean(_absolute)


@brick(
    "metric", "mean_squared_error", aliases=("mean_sq_error",), task="regression", better="lower",
    summary="Mean square of the miss, in squared units of the target.",
    use_when="You compare with published figures in squared units, or with the mse loss itself.",
    avoid_when="People read it: squared units mislead; give root_mean_squared_error.",
    best_for="Comparing models on one data set.",
    paper="Gneiting 2011, Making and Evaluating Point Forecasts (arXiv:0912.0902): the score that "
    "the mean of the distribution makes smallest.",
    tune_first="Nothing to tune.",
    cost="Two sums.",
    pairs_with=("r2",),
)  # fmt: skip
def mean_squared_error(outputs: int = 1) -> Metric:
    """Make a metric that gives the mean squared error over all elements.

    Math:
        mean over elements of (prediction - target)^2

    Args:
        outputs: number of values a sample; all count the same.

    Example:
        >>> import torch
        >>> metric = mean_squared_error(outputs=1)
        >>> metric.update(torch.tensor([1.0, 5.0]), torch.tensor([2.0, 2.0]))
        >>> float(metric.compute())
        5.0

    Reference:
        Gneiting, Making and Evaluating Point Forecasts, 2011.
    """
    from brickyard.train.scores import ErrorMean

    return ErrorMean(_square)


@brick(
    "metric", "root_mean_squared_error", aliases=("rmse",), task="regression", better="lower",
    summary="Root of the mean squared miss, in the target's units; large misses weigh more.",
    use_when="Large misses cost more than in proportion and the figure shall have the target's "
    "units.",
    avoid_when="A few outliers would decide the figure: report mean_absolute_error too.",
    best_for="Regression with roughly normal errors.",
    paper="Chai & Draxler 2014, Geosci. Model Dev. 7: the better summary when errors are normal.",
    tune_first="Nothing to tune.",
    cost="Two sums.",
    pairs_with=("mean_absolute_error", "r2"),
)  # fmt: skip
def root_mean_squared_error(outputs: int = 1) -> Metric:
    """Make a metric that gives the root of the mean squared error over all elements.

    With several outputs it is the root of one mean over all of them, not a mean of roots.

    Math:
        sqrt(mean over elements of (prediction - target)^2)

    Args:
        outputs: number of values a sample; all count the same.

    Example:
        >>> import torch
        >>> metric = root_mean_squared_error(outputs=1)
        >>> metric.update(torch.tensor([1.0, 6.0]), torch.tensor([2.0, -1.0]))
        >>> float(metric.compute())
        5.0

    Reference:
        Chai & Draxler, Root mean square error (RMSE) or mean absolute error (MAE)?, 2014.
    """
    from brickyard.train.scores import ErrorMean

    return ErrorMean(_square, _root)


@brick(
    "metric", "r2", aliases=("r_squared", "coefficient_of_determination"), task="regression",
    better="higher",
    summary="Share of the targets' variance explained: 1 is perfect, 0 is guessing their mean.",
    use_when="You want to know whether the model beats the mean, free of units.",
    avoid_when="The validation set is small or its targets hardly vary: it then swings widely. "
    "Comparing data sets with different spread: the same error gives another r2.",
    best_for="Tables; the first look at any regression.",
    paper="Kvalseth 1985, Cautionary Note about R2, The American Statistician 39(4): equation 1 "
    "of the eight in use, which can be negative.",
    tune_first="Nothing to tune.",
    cost="Four sums an output, in float64.",
    pairs_with=("mean_absolute_error", "root_mean_squared_error"),
)  # fmt: skip
def r2(outputs: int = 1) -> Metric:
    """Make a metric that gives the coefficient of determination, averaged over outputs.

    Math:
        r2 = 1 - sum (y - prediction)^2 / sum (y - mean y)^2      (NaN where all y are equal)

    Args:
        outputs: number of values a sample; each has its r2, and the mean is reported.

    Example:
        >>> import torch
        >>> metric = r2(outputs=1)
        >>> metric.update(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 3.0]))
        >>> float(metric.compute())
        0.5

    Reference:
        Kvalseth, Cautionary Note about R2, 1985, equation 1.
    """
    from brickyard.train.scores import Explained

    return Explained(outputs)


# --- From counts by class to a score --------------------------------------------------------------


def _accuracy(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return hits.sum() / actual.sum()


def _balanced(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    present = actual > 0
    return (hits[present] / actual[present]).mean()


def _class_f1(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return 2 * hits / (predicted + actual).clamp_min(1)


def _macro(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return _class_f1(hits, predicted, actual)[predicted + actual > 0].mean()


def _weighted(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return (_class_f1(hits, predicted, actual) * actual).sum() / actual.sum()


def _micro(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return 2 * hits.sum() / (predicted + actual).sum()


def _binary(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return _class_f1(hits, predicted, actual)[1]


_F1 = {"macro": _macro, "weighted": _weighted, "micro": _micro, "binary": _binary}


def _absolute(error: Tensor) -> Tensor:
    return error.abs()


def _square(error: Tensor) -> Tensor:
    return error.square()


def _root(mean: Tensor) -> Tensor:
    return mean.sqrt()
