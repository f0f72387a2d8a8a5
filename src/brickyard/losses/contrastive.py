"""Contrastive cross-entropies: InfoNCE, NT-Xent and supervised contrast, also across ranks."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_modes,
    check_number,
    check_same_shape,
    reduce,
    shape,
)
from brickyard.losses._similarity import (
    check_embeddings,
    check_equal_batches,
    check_labels,
    contrast,
    full_precision,
    gather_rows,
    join_ranks,
    unit,
    world,
)

__all__ = [
    "InfoNCELoss", "NTXentLoss", "SupConLoss", "info_nce_loss", "nt_xent_loss", "sup_con_loss",
]  # fmt: skip


def info_nce_loss(
    query: Tensor, positive: Tensor, negatives: Tensor | None = None, temperature: float = 0.07,
    symmetric: bool = False, gather: bool = False, reduction: str = "mean",
    validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the cross-entropy of finding each query's positive; see :class:`InfoNCELoss`."""
    who = "info_nce_loss"
    _check(who, temperature, reduction, validate)
    least = 1 if negatives is not None else _least(gather)
    query = check_embeddings(who, "query", query, validate, least)
    positive = check_embeddings(who, "positive", positive, validate, least).to(query.dtype)
    check_same_shape(who, query, positive, "query and positive")
    if negatives is not None and (symmetric or gather):
        raise ValueError(
            f"{who}: symmetric and gather belong to in-batch negatives; drop them, or negatives"
        )
    with full_precision(query):
        query, positive = unit(query), unit(positive)
        if negatives is not None:
            loss = _against(who, query, positive, negatives, temperature)
            return reduce(who, loss, reduction)
        joined, start = _joined(who, gather, query if symmetric else None, positive)
        match = torch.arange(len(query), device=query.device) + start
        scale = 1 / temperature
        loss = contrast(query, joined[1], None, match, scale)
        if symmetric:
            loss = (loss + contrast(positive, joined[0], None, match, scale)) / 2
    return _reduced(who, loss, None, reduction, gather)


def _against(
    who: str, query: Tensor, positive: Tensor, negatives: Tensor, temperature: float
) -> Tensor:
    """Contrast each query with given negatives, ``(M, D)`` for all or ``(N, M, D)`` each."""
    count, size = query.shape
    good = negatives.dim() in (2, 3) and negatives.shape[-1] == size and negatives.shape[-2] > 0
    if not good or (negatives.dim() == 3 and negatives.shape[0] != count):
        raise ValueError(
            f"{who}: negatives must have shape (M, {size}) or ({count}, M, {size}); got "
            f"{shape(negatives)}"
        )
    negatives = unit(negatives.to(query.dtype))
    match = (query * positive).sum(1, keepdim=True)
    if negatives.dim() == 2:
        rest = query @ negatives.T
    else:
        rest = (negatives @ query.unsqueeze(2)).squeeze(2)
    scores = torch.cat([match, rest], 1) / temperature
    return F.cross_entropy(
        scores, torch.zeros_like(scores[:, 0], dtype=torch.long), reduction="none"
    )


def nt_xent_loss(
    z1: Tensor, z2: Tensor, temperature: float = 0.5, gather: bool = False,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return SimCLR's loss of two views per sample; see :class:`NTXentLoss`."""
    who = "nt_xent_loss"
    _check(who, temperature, reduction, validate)
    z1 = check_embeddings(who, "z1", z1, validate, _least(gather))
    z2 = check_embeddings(who, "z2", z2, validate, _least(gather)).to(z1.dtype)
    check_same_shape(who, z1, z2, "z1 and z2")
    with full_precision(z1):
        views = unit(torch.cat([z1, z2]))
        columns, skip, match = views, torch.arange(len(views), device=z1.device), None
        if gather and world() > 1:
            joined, start = _joined(who, gather, views[: len(z1)], views[len(z1) :])
            columns = torch.cat([joined[0], joined[1]])
            first = torch.arange(len(z1), device=z1.device) + start
            skip = torch.cat([first, first + len(joined[0])])
        match = (skip + len(columns) // 2) % len(columns)
        loss = contrast(views, columns, skip, match, 1 / temperature)
    return _reduced(who, loss, None, reduction, gather)


def sup_con_loss(
    embeddings: Tensor, labels: Tensor, temperature: float = 0.07, gather: bool = False,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the supervised contrastive loss of a labelled batch; see :class:`SupConLoss`."""
    who = "sup_con_loss"
    _check(who, temperature, reduction, validate)
    embeddings = check_embeddings(who, "embeddings", embeddings, validate, _least(gather))
    check_labels(who, embeddings, labels)
    with full_precision(embeddings):
        rows = unit(embeddings)
        columns, others, start = rows, labels, 0
        if gather and world() > 1:
            joined, start = _joined(who, gather, None, rows)
            columns = joined[1]
            others = gather_rows(labels)
        index = torch.arange(len(rows), device=rows.device) + start
        classes, of_column = others.unique(return_inverse=True)
        of_row = of_column[index]
        # the sum over a row's positives is its class's sum without the row: no N x N mask
        sums = rows.new_zeros(len(classes), rows.shape[1]).index_add(0, of_column, columns)
        count = torch.bincount(of_column, minlength=len(classes))[of_row] - 1
        match = ((sums[of_row] - rows) * rows).sum(1) / count.clamp_min(1)
        scale = 1 / temperature
        loss = contrast(rows, columns, index, None, scale) - match * scale
        some = count > 0
        loss = torch.where(some, loss, 0)
    return _reduced(who, loss, some.to(loss.dtype), reduction, gather)


def _check(who: str, temperature: float, reduction: str, validate: str) -> None:
    check_modes(who, reduction, validate)
    check_number(who, "temperature", temperature, 0.0, open_low=True)


def _least(gather: bool) -> int:
    """Return the smallest local batch: across ranks, the others bring the negatives."""
    return 1 if gather and world() > 1 else 2


def _joined(
    who: str, gather: bool, first: Tensor | None, second: Tensor
) -> tuple[tuple[Tensor, Tensor], int]:
    """Return both batches joined across ranks, and where this rank's part starts."""
    if not gather or world() == 1:
        return (second if first is None else first, second), 0
    check_equal_batches(who, second)
    both = (second if first is None else gather_rows(first), gather_rows(second))
    return both, dist.get_rank() * len(second)


def _reduced(who: str, loss: Tensor, share: Tensor | None, reduction: str, gather: bool) -> Tensor:
    if not gather or world() == 1:
        return reduce(who, loss, reduction, share=share)
    count = torch.tensor(float(len(loss)), device=loss.device) if share is None else share.sum()
    return join_ranks(loss, count, reduction)


@brick(
    "loss", "info_nce", public="brickyard.losses", output="embeddings", target="pairs",
    summary="Cross-entropy of picking each query's positive among negatives, by cosine.",
    use_when="Pairs that belong together are at hand: two views, image and text, query and answer.",
    avoid_when="Batches are small and no memory of negatives is kept.",
    best_for="MoCo (with negatives), CLIP (symmetric), retrieval towers.",
    paper="van den Oord et al. 2018, Contrastive Predictive Coding, eq. 4",
    tune_first="temperature (0.05 to 0.2), then the batch size",
    cost="One N x N similarity matrix.",
    pairs_with=("nt_xent", "adamw"),
)  # fmt: skip
class InfoNCELoss(Loss):
    """Ask each query to find its positive among negatives.

    Embeddings are scaled to length 1, so scores are cosines over the temperature. Without
    ``negatives`` the other positives of the batch serve, and with ``symmetric=True`` each
    positive also has to find its query, as in CLIP.

    Math:
        s_ij = cos(q_i, k_j) / temperature
        l_i = -s_ii + log(sum_j exp(s_ij)),  j over the batch, or over i and the negatives

    Args:
        temperature: divides the cosines; above 0.
        symmetric: average both directions; in-batch negatives only.
        gather: join the batch across ranks (torch.distributed) first; see :class:`NTXentLoss`.
        reduction: ``"mean"`` or ``"sum"`` over the queries, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        query and positive ``(N, D)``; negatives ``(M, D)`` for all queries or ``(N, M, D)``.

    Raises:
        ValueError: shapes do not match, one sample without negatives, ``symmetric`` or
            ``gather`` with negatives, ``temperature`` not above 0.
        TypeError: embeddings are not floating point.

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> InfoNCELoss(temperature=1.0)(z, z)  # log(1 + exp(-1))
        tensor(0.3133)

    Reference:
        van den Oord et al. 2018, Representation Learning with Contrastive Predictive Coding,
        eq. 4; Radford et al. 2021, CLIP, figure 3 (symmetric).
    """

    def __init__(
        self, temperature: float = 0.07, symmetric: bool = False, gather: bool = False,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("InfoNCELoss", "temperature", temperature, 0.0, open_low=True)
        self.temperature, self.symmetric, self.gather = temperature, symmetric, gather

    def forward(self, query: Tensor, positive: Tensor, negatives: Tensor | None = None) -> Tensor:
        """Return the loss of ``query`` against ``positive`` and negatives."""
        return info_nce_loss(
            query, positive, negatives, self.temperature, self.symmetric, self.gather,
            self.reduction, self.validate,
        )  # fmt: skip


@brick(
    "loss", "nt_xent", public="brickyard.losses", output="embeddings", target="pairs",
    summary="SimCLR's loss: each of 2N views must find its partner among the 2N - 1 others.",
    use_when="Learning without labels from two random views of every sample.",
    avoid_when="Labels exist (take sup_con), or the batch is small: it needs many negatives.",
    best_for="Self-supervised pretraining of encoders.",
    paper="Chen et al. 2020, A Simple Framework for Contrastive Learning, eq. 1",
    tune_first="temperature (0.1 to 0.5), then the batch size",
    cost="One 2N x 2N similarity matrix.",
    pairs_with=("sup_con", "info_nce", "adamw"),
)  # fmt: skip
class NTXentLoss(Loss):
    """Ask each of 2N views to find its partner among all others.

    Symmetric in its arguments. With ``gather=True`` under ``torch.distributed`` every rank's
    views meet all views of all ranks. The value is then the loss of the joined batch on every
    rank, and parameter gradients are the joined batch's after the averaging that
    DistributedDataParallel does. Tested on CPU with gloo.

    Math:
        s_ij = cos(z_i, z_j) / temperature;  p(i) the other view of i
        l_i = -s_{i,p(i)} + log(sum_{j != i} exp(s_ij))

    Args:
        temperature: divides the cosines; above 0.
        gather: join the batch across ranks (torch.distributed) first; equal local batches.
        reduction: ``"mean"`` or ``"sum"`` over the 2N views, or ``"none"`` (local views).
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        z1 and z2 ``(N, D)``, row i of both from sample i; N at least 2.

    Raises:
        ValueError: shapes do not match, fewer than 2 samples, unequal batches across ranks,
            ``temperature`` not above 0.
        TypeError: embeddings are not floating point.

    Example:
        >>> import torch
        >>> z = torch.eye(2)
        >>> NTXentLoss(temperature=1.0)(z, z)  # log(e + 2) - 1
        tensor(0.5514)

    Reference:
        Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual Representations,
        eq. 1 and algorithm 1.
    """

    def __init__(
        self, temperature: float = 0.5, gather: bool = False, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("NTXentLoss", "temperature", temperature, 0.0, open_low=True)
        self.temperature, self.gather = temperature, gather

    def forward(self, z1: Tensor, z2: Tensor) -> Tensor:
        """Return the loss of the views ``z1`` and ``z2``."""
        return nt_xent_loss(z1, z2, self.temperature, self.gather, self.reduction, self.validate)


@brick(
    "loss", "sup_con", public="brickyard.losses", output="embeddings", target="labels",
    summary="Contrast with labels: every sample of the same class is a positive.",
    use_when="Labels exist and you want an embedding, or a better start for a linear head.",
    avoid_when="Most classes have one sample per batch: those anchors do not count.",
    best_for="Embeddings of labelled images, retrieval, few-shot heads.",
    paper="Khosla et al. 2020, Supervised Contrastive Learning, eq. 2",
    tune_first="temperature (0.05 to 0.2), then samples per class in a batch",
    cost="One N x N similarity matrix.",
    pairs_with=("nt_xent", "cross_entropy"),
)  # fmt: skip
class SupConLoss(Loss):
    """Pull samples of one class together against all others.

    The mean over positives stands outside the logarithm (the paper's L_out, its better form).
    Anchors without a positive do not count; if there is none at all the loss is 0.

    Math:
        s_ij = cos(z_i, z_j) / temperature;  P(i) the others of i's class
        l_i = -1/|P(i)| * sum_{p in P(i)} s_ip + log(sum_{j != i} exp(s_ij))

    Args:
        temperature: divides the cosines; above 0.
        gather: join the batch across ranks (torch.distributed) first; see :class:`NTXentLoss`.
        reduction: ``"mean"`` or ``"sum"`` over the anchors with a positive, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        embeddings ``(N, D)``; labels integers ``(N,)``; N at least 2.

    Raises:
        ValueError: shapes do not match, fewer than 2 samples, ``temperature`` not above 0.
        TypeError: embeddings are not floating point, labels are not integers.

    Example:
        >>> import torch
        >>> SupConLoss(temperature=1.0)(torch.eye(2).repeat(2, 1), torch.tensor([0, 1, 0, 1]))
        tensor(0.5514)

    Reference:
        Khosla et al. 2020, Supervised Contrastive Learning, eq. 2.
    """

    def __init__(
        self, temperature: float = 0.07, gather: bool = False, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("SupConLoss", "temperature", temperature, 0.0, open_low=True)
        self.temperature, self.gather = temperature, gather

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of ``embeddings`` under ``labels``."""
        return sup_con_loss(
            embeddings, labels, self.temperature, self.gather, self.reduction, self.validate
        )
