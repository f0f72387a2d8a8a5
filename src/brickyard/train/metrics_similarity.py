"""Metrics of points: whether neighbours are of one class."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torchmetrics import Metric

__all__ = ["knn_accuracy", "recall_at_1"]


@brick(
    "metric", "recall_at_1", aliases=("r_at_1", "precision_at_1"), task="embedding, two_view",
    better="higher",
    summary="Share of held-out samples whose nearest other one, by cosine, is of their class.",
    use_when="Embeddings are for search: the first hit counts.",
    avoid_when="Several hits are shown and their order matters, or classes have one sample each.",
    best_for="Metric learning; classes that training never saw.",
    paper="Oh Song et al. 2016, Deep Metric Learning via Lifted Structured Feature Embedding, "
    "arXiv:1511.06452, section 6",
    tune_first="Nothing to tune.",
    pairs_with=("knn_accuracy", "embedding"),
    cost="Cosines of all pairs, of the first 10,000 samples at most.",
)  # fmt: skip
def recall_at_1(outputs: int) -> Metric:
    """Make a metric that looks at each held-out sample's nearest other held-out sample.

    Math:
        #(i: y_j = y_i for j = argmax_(j != i) cos(z_i, z_j)) / N

    Args:
        outputs: numbers a point.

    Example:
        >>> import torch
        >>> metric = recall_at_1(outputs=2)
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
        >>> metric.update(points, torch.tensor([3, 3, 4]))
        >>> round(float(metric.compute()), 4)
        0.6667

    Reference:
        Oh Song et al. 2016, arXiv:1511.06452, section 6.
    """
    from brickyard.train.scores_similarity import Neighbours

    return Neighbours(1)


@brick(
    "metric", "knn_accuracy", aliases=("knn",), task="embedding, two_view", better="higher",
    summary="Share of held-out samples that their k nearest other ones name rightly by vote.",
    use_when="Features are judged without training a classifier on them.",
    avoid_when="You compare with papers: those mostly vote by the training set.",
    best_for="Self-supervised features while they train.",
    paper="Wu et al. 2018, Unsupervised Feature Learning via Non-Parametric Instance "
    "Discrimination, arXiv:1805.01978, section 3.4",
    tune_first="k: 5 for some hundred samples, more for more.",
    pairs_with=("recall_at_1", "two_view"),
    cost="Cosines of all pairs, of the first 10,000 samples at most.",
)  # fmt: skip
def knn_accuracy(outputs: int, k: int = 5) -> Metric:
    """Make a metric that lets held-out samples vote on each other, each without itself.

    Every vote counts as the cosine of the voter, at least 0, so that near ones decide ties.

    Math:
        #(i: y_i = argmax_c sum over the k nearest j != i with y_j = c of max(cos(z_i, z_j), 0)) / N

    Args:
        outputs: numbers a point.
        k: how many vote; fewer where there are not so many.

    Raises:
        ValueError: ``k`` below 1.

    Example:
        >>> import torch
        >>> metric = knn_accuracy(outputs=2, k=2)
        >>> points = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
        >>> metric.update(points, torch.tensor([3, 3, 4, 4]))
        >>> float(metric.compute())
        1.0

    Reference:
        Wu et al. 2018, arXiv:1805.01978, section 3.4.
    """
    from brickyard.train.scores_similarity import Neighbours

    return Neighbours(k)
