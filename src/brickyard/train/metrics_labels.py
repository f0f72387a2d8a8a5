"""Metrics of labels that are rare, or of which several hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["average_precision", "label_f1"]


@brick(
    "metric", "average_precision", aliases=("map", "auprc", "pr_auc"),
    task="classification, multi_label", better="higher",
    summary="Precision averaged over all recalls, mean over the labels: how well rare ones rank.",
    use_when="A class is rare and you rank: search, alarms; or several labels may hold.",
    avoid_when="Data sets with different shares of positives are compared: chance is that share.",
    best_for="Imbalanced tables and tagging.",
    paper="Davis & Goadrich 2006, The Relationship Between Precision-Recall and ROC Curves, ICML",
    tune_first="Nothing to tune.",
    pairs_with=("auroc", "bce", "page_blocks0"),
    cost="A sort of the scores, a label.",
)  # fmt: skip
def average_precision(outputs: int) -> Metric:
    """Make a metric that gives the mean average precision; equal scores share one threshold.

    With two classes it is that of class 1, with more the mean of each against the others.

    Math:
        AP = sum_n (R_n - R_(n-1)) * P_n   over the thresholds, from the highest score down

    Args:
        outputs: number of classes or labels; 1 for a single logit.

    Example:
        >>> import torch
        >>> metric = average_precision(outputs=1)
        >>> metric.update(torch.tensor([3.0, 2.0, 1.0]), torch.tensor([1, 0, 1]))
        >>> round(float(metric.compute()), 4)  # 1/2 * 1 + 1/2 * 2/3
        0.8333

    Reference:
        Davis & Goadrich 2006, ICML; the sum as scikit-learn has it, without interpolation.
    """
    from brickyard.train.scores_labels import AveragePrecision

    return AveragePrecision(outputs)


@brick(
    "metric", "label_f1", aliases=("multilabel_f1",), task="multi_label", better="higher",
    summary="Harmonic mean of precision and recall of labels, at the threshold 1/2.",
    use_when="Labels are handed out, and both false and missing ones count.",
    avoid_when="The thresholds are still open: take average_precision.",
    best_for="Tagging.",
    paper="van Rijsbergen 1979, Information Retrieval, chapter 7; Opitz & Burst 2019, "
    "arXiv:1911.03347, on the averages",
    tune_first="average: 'macro' where all labels count the same, 'micro' where all tags do.",
    pairs_with=("average_precision", "bce"),
    cost="Three counts a label.",
)  # fmt: skip
def label_f1(outputs: int, average: Literal["macro", "micro"] = "macro") -> Metric:
    """Make a metric that gives the F1 score of labels.

    Math:
        F1_k = 2 hits_k / (said_k + true_k);  macro: mean over labels said or true;
        micro: 2 sum hits / sum (said + true)

    Args:
        outputs: number of labels.
        average: how the labels' scores become one.

    Raises:
        ValueError: an unknown average.

    Example:
        >>> import torch
        >>> metric = label_f1(outputs=2, average="micro")
        >>> metric.update(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), torch.tensor([[1, 0], [0, 1]]))
        >>> round(float(metric.compute()), 4)
        0.8

    Reference:
        van Rijsbergen, Information Retrieval, 2nd edition, 1979, chapter 7.
    """
    from brickyard.train.scores_labels import LabelF1

    if average not in ("macro", "micro"):
        raise ValueError(f"average must be 'macro' or 'micro'; got {average!r}")
    return LabelF1(outputs, average)
