"""Metric learning by distances: pairs, triplets, and mining triplets in a batch."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_choice,
    check_interval,
    check_modes,
    check_number,
    check_same_shape,
    reduce,
    shape,
)
from brickyard.losses._fused import through
from brickyard.losses._similarity import check_embeddings, check_labels, full_precision, length

__all__ = [
    "BatchTripletLoss", "ContrastiveLoss", "TripletLoss", "batch_triplet_loss",
    "contrastive_loss", "triplet_loss",
]  # fmt: skip

Mining = Literal["all", "hard", "semi_hard"]
_MINING = ("all", "hard", "semi_hard")


def triplet_loss(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float = 1.0, p: float = 2.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return how far triplets miss the margin; see :class:`TripletLoss`."""
    who = "triplet_loss"
    check_modes(who, reduction, validate)
    _check_margin(who, margin, p)
    anchor = check_embeddings(who, "anchor", anchor, validate, 1)
    positive = check_embeddings(who, "positive", positive, validate, 1)
    negative = check_embeddings(who, "negative", negative, validate, 1)
    check_same_shape(who, anchor, positive, "anchor and positive")
    check_same_shape(who, anchor, negative, "anchor and negative")
    near, far = _norm(anchor - positive, p), _norm(anchor - negative, p)
    return reduce(who, (near - far + margin).clamp_min(0), reduction)


def contrastive_loss(
    a: Tensor, b: Tensor, y: Tensor, sample_weight: Tensor | None = None, margin: float = 1.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the pair loss of Hadsell et al.; see :class:`ContrastiveLoss`."""
    who = "contrastive_loss"
    check_modes(who, reduction, validate)
    check_number(who, "margin", margin, 0.0, open_low=True)
    a = check_embeddings(who, "a", a, validate, 1)
    b = check_embeddings(who, "b", b, validate, 1)
    check_same_shape(who, a, b, "a and b")
    if y.shape != a.shape[:1]:
        raise ValueError(f"{who}: y must have shape ({a.shape[0]},); got {shape(y)}")
    why = "0 marks a pair of the same class, 1 a pair of different classes."
    if y.dtype != torch.bool:
        check_interval(who, "y", y, 0, 1, why, validate == "full")
    y = y.to(a.dtype)
    apart = a - b
    short = (margin - length(apart)).clamp_min(0)
    loss = 0.5 * ((1 - y) * apart.square().sum(1) + y * short.square())
    return reduce(who, loss, reduction, sample_weight)


def batch_triplet_loss(
    embeddings: Tensor, labels: Tensor, margin: float = 1.0, mining: str = "hard",
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the triplet loss of triplets mined in a batch; see :class:`BatchTripletLoss`."""
    who = "batch_triplet_loss"
    check_modes(who, reduction, validate)
    _check_margin(who, margin)
    check_choice(who, "mining", mining, _MINING)
    embeddings = check_embeddings(who, "embeddings", embeddings, validate)
    check_labels(who, embeddings, labels)
    with full_precision(embeddings):
        if mining == "hard":
            loss = _hardest(embeddings, labels, margin)
            count = (loss.detach() > 0).sum()
        else:
            mined = _mine(embeddings.detach(), labels, margin, mining == "semi_hard")
            far = _WeighedDistances.apply(embeddings, mined.weight)
            loss = far + margin * mined.active.to(far.dtype)
            count = mined.active.sum()
    if reduction == "mean":
        return loss.sum() / count.clamp_min(1)
    return loss.sum() if reduction == "sum" else loss


def _check_margin(who: str, margin: float, p: float = 2.0) -> None:
    check_number(who, "margin", margin, 0.0, open_low=True)
    check_number(who, "p", p, 1.0)


def _norm(difference: Tensor, p: float) -> Tensor:
    return length(difference) if p == 2 else torch.linalg.vector_norm(difference, ord=p, dim=1)


def _masks(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return which pairs are positives (same class, not the sample itself) and which are not."""
    same = labels.unsqueeze(1) == labels
    other = ~same
    same.diagonal().fill_(False)
    return same, other


def _hardest(embeddings: Tensor, labels: Tensor, margin: float) -> Tensor:
    """Return one loss per anchor: its farthest positive against its nearest negative.

    Only the search looks at all pairs; distances with gradients are taken of the pairs found.
    """
    same, other = _masks(labels)
    with torch.no_grad():
        centred = embeddings - embeddings.mean(0)  # products of centred rows cancel less
        square = centred.square().sum(1)
        apart = torch.addmm(square.unsqueeze(0), centred, centred.T, alpha=-2)
        far = torch.where(same, apart, float("-inf")).argmax(1)
        near = apart.masked_fill_(~other, float("inf")).argmin(1)
        usable = same.any(1) & other.any(1)
    to_far = length(embeddings - embeddings.index_select(0, far))
    to_near = length(embeddings - embeddings.index_select(0, near))
    return torch.where(usable, (to_far - to_near + margin).clamp_min(0), 0)


class _Mined(NamedTuple):
    """Hold what mining found, per anchor.

    ``weight[i, j]`` is in how many active triplets of anchor i the pair (i, j) is the positive,
    minus in how many it is the negative. ``active[i]`` counts the triplets.
    """

    weight: Tensor
    active: Tensor


def _mine(embeddings: Tensor, labels: Tensor, margin: float, semi: bool) -> _Mined:
    """Find the active triplets of every anchor without ever listing them.

    With an anchor's negatives sorted by distance, those active with a positive at distance d are
    a stretch: up to d + margin, and for semi-hard mining from d on. Counting stretches costs
    N^2 log N where the triplets are N^3.
    """
    same, other = _masks(labels)
    apart = _distances(embeddings)
    sorted_far, order = apart.masked_fill(~other, float("inf")).sort(1)
    limit = (apart + margin).masked_fill(~same, float("-inf"))
    end = torch.searchsorted(sorted_far, limit)
    start = torch.zeros_like(end)
    if semi:
        near = apart.masked_fill(~same, float("-inf"))
        start = torch.searchsorted(sorted_far, near, right=True)
    found = (end - start).clamp_min(0) * same
    mark = torch.where(found > 0, 1, 0)
    steps = torch.zeros(len(labels), len(labels) + 1, dtype=torch.long, device=labels.device)
    steps.scatter_add_(1, start, mark).scatter_add_(1, end, -mark)
    uses = torch.zeros_like(order).scatter_(1, order, steps.cumsum(1)[:, :-1])
    return _Mined((found - uses).to(embeddings.dtype), found.sum(1))


def _distances(embeddings: Tensor) -> Tensor:
    """Return all pairwise distances, accurate for near pairs too."""
    centred = embeddings - embeddings.mean(0)
    if centred.device.type != "mps":  # which has no fp64
        centred = centred.double()
    square = centred.square().sum(1)
    apart = torch.addmm(square.unsqueeze(0), centred, centred.T, alpha=-2)
    apart.add_(square.unsqueeze(1))
    noise = 8 * torch.finfo(apart.dtype).eps * (square.unsqueeze(1) + square)
    return apart.masked_fill_(apart < noise, 0).sqrt_()


class _WeighedDistances(torch.autograd.Function):
    """Add up weighed distances of each row to all others, with gradient 0 at distance 0.

    Math:
        s_i = sum_j W_ij * |e_i - e_j|;  with V_ij = g_i*W_ij/d_ij and S = V + V^T:
        dL/de_i = (sum_j S_ij) * e_i - (S e)_i
    """

    @staticmethod
    def forward(ctx: Any, embeddings: Tensor, weight: Tensor) -> Tensor:
        apart = _distances(embeddings)
        ctx.save_for_backward(embeddings, weight, apart)
        return (apart * weight).sum(1).to(embeddings.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        embeddings, weight, apart = ctx.saved_tensors
        if torch.is_grad_enabled():
            return through(lambda e: _plain_weighed(e, weight), [embeddings], grads)[0], None
        pull = grads[0].to(apart.dtype).unsqueeze(1) * weight
        pull = torch.where(apart > 0, pull / apart, 0)
        pull = pull + pull.T
        wide = embeddings.to(apart.dtype)
        return (pull.sum(1, keepdim=True) * wide - pull @ wide).to(embeddings.dtype), None


def _plain_weighed(embeddings: Tensor, weight: Tensor) -> Tensor:
    """Compute the weighed distances in differentiable operations."""
    return (length(embeddings.unsqueeze(1) - embeddings) * weight).sum(1)


@brick(
    "loss", "triplet", public="brickyard.losses", output="embeddings", target="none",
    summary="An anchor must be closer to its positive than to its negative by a margin.",
    use_when="Triplets are given, or mined outside; only the order of distances matters.",
    avoid_when="Labels exist and triplets are drawn at random: most soon cost nothing.",
    best_for="Face verification, retrieval, few-shot embeddings.",
    paper="Schroff et al. 2015, FaceNet, eq. 3",
    tune_first="margin, in units of the embedding's distances (0.2 on the unit sphere)",
    cost="Three distances per triplet.",
    pairs_with=("contrastive", "batch_triplet"),
)  # fmt: skip
class TripletLoss(Loss):
    """Ask anchors to be closer to positives than to negatives by a margin.

    Distances are plain p-norms: FaceNet squares them, and torch's ``TripletMarginLoss`` adds
    1e-6 to every difference. At distance 0 the gradient is 0.

    Math:
        l_i = max(0, |a_i - p_i|_p - |a_i - n_i|_p + margin)

    Args:
        margin: lead in units of the distance; above 0.
        p: order of the norm; at least 1.
        reduction: ``"mean"`` or ``"sum"`` over the triplets, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        anchor, positive and negative ``(N, D)``.

    Raises:
        ValueError: shapes do not match, the batch is empty, an option is out of range.
        TypeError: embeddings are not floating point.

    Example:
        >>> import torch
        >>> a, p, n = torch.tensor([[0.0]]), torch.tensor([[1.0]]), torch.tensor([[1.5]])
        >>> TripletLoss(margin=1.0)(a, p, n)
        tensor(0.5000)

    Reference:
        Schroff et al. 2015, FaceNet: A Unified Embedding for Face Recognition, eq. 3.
    """

    def __init__(
        self, margin: float = 1.0, p: float = 2.0, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        _check_margin("TripletLoss", margin, p)
        self.margin, self.p = margin, p

    def forward(self, anchor: Tensor, positive: Tensor, negative: Tensor) -> Tensor:
        """Return the loss of the triplets, row by row."""
        return triplet_loss(
            anchor, positive, negative, self.margin, self.p, self.reduction, self.validate
        )


@brick(
    "loss", "batch_triplet", public="brickyard.losses", output="embeddings", target="labels",
    summary="Triplet loss that mines its triplets in a labelled batch: all, hard or semi-hard.",
    use_when="Labels exist and batches hold several samples of several classes.",
    avoid_when="Labels are noisy and mining is hard: it looks for exactly the wrong ones.",
    best_for="Person and face re-identification, product retrieval.",
    paper="Hermans et al. 2017, In Defense of the Triplet Loss, eq. 5 and 6",
    tune_first="mining (semi_hard while hard collapses to a point), then margin",
    cost="One N x N distance matrix; all and semi_hard sort its rows.",
    pairs_with=("triplet", "sup_con"),
)  # fmt: skip
class BatchTripletLoss(Loss):
    """Mine triplets in a labelled batch and average those that cost something.

    ``"hard"``: per anchor, the farthest positive and the nearest negative. ``"all"``: every
    triplet. ``"semi_hard"``: triplets whose negative is farther than the positive, but by less
    than the margin. Euclidean distances; at distance 0 the gradient is 0. A batch without any
    triplet has loss 0. ``"all"`` and ``"semi_hard"`` count instead of listing triplets: N^2
    memory, not N^3.

    Math:
        l_apn = max(0, |a - p| - |a - n| + margin);  mean = sum l / #{l > 0}

    Args:
        margin: lead in units of the distance; above 0.
        mining: ``"all"``, ``"hard"`` or ``"semi_hard"``.
        reduction: ``"mean"`` over the triplets that cost something, ``"sum"``, or ``"none"``:
            the sum of each anchor's triplets.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        embeddings ``(N, D)``; labels integers ``(N,)``; N at least 2.

    Raises:
        ValueError: shapes do not match, fewer than 2 samples, an option is out of range.
        TypeError: embeddings are not floating point, labels are not integers.

    Example:
        >>> import torch
        >>> z, labels = torch.tensor([[0.0], [1.0], [1.5], [4.0]]), torch.tensor([0, 0, 1, 1])
        >>> BatchTripletLoss(margin=1.0)(z, labels)  # (0.5 + 1.5 + 3 + 0.5) / 4
        tensor(1.3750)

    Reference:
        Hermans et al. 2017, In Defense of the Triplet Loss for Person Re-Identification, eq. 5
        (hard) and 6 (all), section 3; Schroff et al. 2015, FaceNet, section 3.2 (semi-hard).
    """

    def __init__(
        self, margin: float = 1.0, mining: Mining = "hard", reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        _check_margin("BatchTripletLoss", margin)
        check_choice("BatchTripletLoss", "mining", mining, _MINING)
        self.margin, self.mining = margin, mining

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of the triplets found in the batch."""
        return batch_triplet_loss(
            embeddings, labels, self.margin, self.mining, self.reduction, self.validate
        )


@brick(
    "loss", "contrastive", public="brickyard.losses", output="embeddings", target="pairs",
    summary="Pull pairs of one class together, push pairs of different classes to a margin.",
    use_when="The data are pairs marked same (0) or different (1).",
    avoid_when="Only the order of distances matters: take triplet; labels exist: sup_con.",
    best_for="Siamese networks: signatures, faces, duplicates.",
    paper="Hadsell, Chopra & LeCun 2006, Dimensionality Reduction by Learning an Invariant Mapping",
    tune_first="margin, in units of the embedding's distances",
    cost="One distance per pair.",
    pairs_with=("triplet",),
)  # fmt: skip
class ContrastiveLoss(Loss):
    """Pull equal pairs together and push different ones apart up to a margin.

    ``y`` is 0 for the same class and 1 for different ones, as in the paper; others use the
    opposite. At distance 0 the push has no direction, and its gradient is 0.

    Math:
        d = |a_i - b_i|;  l_i = 0.5*(1 - y)*d^2 + 0.5*y*max(0, margin - d)^2

    Args:
        margin: distance from which different pairs cost nothing; above 0.
        reduction: ``"mean"`` over the pairs (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that y lies in [0, 1];
            ``"full"`` also refuses non-finite values.

    Shape:
        a and b ``(N, D)``; y and ``sample_weight`` ``(N,)``.

    Raises:
        ValueError: shapes do not match, y outside [0, 1], the batch is empty, ``margin`` is not
            above 0.
        TypeError: embeddings are not floating point.

    Example:
        >>> import torch
        >>> a, b = torch.zeros(2, 1), torch.tensor([[0.5], [0.5]])
        >>> ContrastiveLoss(margin=2.0, reduction="none")(a, b, torch.tensor([0, 1]))
        tensor([0.1250, 1.1250])

    Reference:
        Hadsell, Chopra & LeCun 2006, Dimensionality Reduction by Learning an Invariant Mapping,
        eq. 4.
    """

    def __init__(
        self, margin: float = 1.0, reduction: Reduction = "mean", validate: Validate = "cheap"
    ):
        super().__init__(reduction, validate)
        check_number("ContrastiveLoss", "margin", margin, 0.0, open_low=True)
        self.margin = margin

    def forward(
        self, a: Tensor, b: Tensor, y: Tensor, sample_weight: Tensor | None = None
    ) -> Tensor:
        """Return the loss of the pairs ``a`` and ``b`` under ``y``."""
        return contrastive_loss(a, b, y, sample_weight, self.margin, self.reduction, self.validate)
