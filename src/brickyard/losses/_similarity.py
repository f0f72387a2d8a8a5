"""Similarities of embeddings: cosine, log-sum-exp over a batch, gathering across ranks."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from brickyard.losses._contracts import check_finite, check_floating, shape, single
from brickyard.losses._fused import on_host, through

#: Exponents up to this size neither overflow nor lose anything in fp32 when summed as they are.
_SAFE_EXPONENT = 32.0


def check_embeddings(who: str, name: str, value: Tensor, validate: str, least: int = 2) -> Tensor:
    """Check a batch of embeddings ``(N, D)``; return it in the precision to compute in."""
    check_floating(who, name, value)
    if value.dim() != 2:
        raise ValueError(f"{who}: {name} must have shape (N, D); got {shape(value)}")
    if value.shape[0] < least:
        raise ValueError(
            f"{who}: {name} needs a batch of at least {least}: with one sample there is nothing to "
            f"compare it with; got {shape(value)}. Use a larger batch, or drop_last=True"
        )
    if validate == "full":
        check_finite(who, **{name: value})
    return single(value)


def check_labels(who: str, embeddings: Tensor, labels: Tensor) -> None:
    """Refuse labels that are no integers, or not one per embedding."""
    if labels.is_floating_point() or labels.is_complex():
        raise TypeError(f"{who}: labels must be integers; got {labels.dtype}")
    if labels.shape != embeddings.shape[:1]:
        raise ValueError(
            f"{who}: labels must have shape ({embeddings.shape[0]},), one per embedding; got "
            f"{shape(labels)}"
        )


def unit(z: Tensor) -> Tensor:
    """Return rows of length 1; a row of zeros stays, with a finite gradient."""
    return _Unit.apply(z) if on_host(z) else _plain_unit(z)


def _plain_unit(z: Tensor) -> Tensor:
    size = length(z).unsqueeze(-1)
    return z / torch.where(size > 0, size, 1)


class _Unit(torch.autograd.Function):
    """Scale rows to length 1 in as few passes as torch's operations allow.

    Math:
        y = z/|z|;  dL/dz = (g - y * (g . y)) / |z|
    """

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(z, dim=-1, keepdim=True)
        size = torch.where(size > 0, size, 1)
        y = z / size
        ctx.save_for_backward(z, size, y)
        return y

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        z, size, y = ctx.saved_tensors
        if torch.is_grad_enabled():
            return through(_plain_unit, [z], grads)[0]
        along = (grads[0] * y).sum(-1, keepdim=True)
        return torch.addcmul(grads[0], y, along, value=-1).div_(size)


def length(difference: Tensor) -> Tensor:
    """Return the Euclidean length of rows; all its derivatives are 0 at length 0."""
    square = difference.square().sum(-1)
    some = square > 0
    return torch.where(some, torch.where(some, square, 1).sqrt(), 0)


def full_precision(tensor: Tensor) -> torch.autocast:
    """Return a context in which autocast does not lower products to half precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def contrast(
    rows: Tensor, columns: Tensor, skip: Tensor | None, match: Tensor | None, scale: float
) -> Tensor:
    """Return log sum_j exp(s * r_i . c_j) - s * r_i . c_match(i) for each row i.

    Args:
        rows: ``(N, D)``, of length 1 or 0.
        columns: ``(M, D)``, of length 1 or 0.
        skip: one column per row to leave out (the sample itself), ``(N,)``; None keeps all.
        match: the column of each row's positive, ``(N,)``; None subtracts nothing.
        scale: s, the inverse of the temperature.
    """
    if on_host(rows):
        return _Contrast.apply(rows, columns, skip, match, scale)
    return _plain_contrast(rows, columns, skip, match, scale)


def _plain_contrast(
    rows: Tensor, columns: Tensor, skip: Tensor | None, match: Tensor | None, scale: float
) -> Tensor:
    products = scale * (rows @ columns.T)
    if skip is not None:
        products = products.scatter(1, skip.unsqueeze(1), float("-inf"))
    if match is None:
        return products.logsumexp(1)
    return F.cross_entropy(products, match, reduction="none")


class _Contrast(torch.autograd.Function):
    """Compute contrastive losses; the exponentials are kept, the products are never copied.

    Math:
        E_ij = exp(s*r_i . c_j - m_i);  Z_i = sum_j E_ij;  l_i = log Z_i + m_i - s*r_i . c_k(i)
        dL/dr_i = s*g_i * ((E c)_i / Z_i - c_k(i))
        dL/dc_j = s*(E^T (g/Z * r))_j - s*sum_{k(i)=j} g_i*r_i
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, columns: Tensor, skip: Tensor | None, match: Tensor | None,
        scale: float,
    ) -> Tensor:  # fmt: skip
        powers = torch.addmm(rows.new_zeros(()), rows, columns.T, beta=0, alpha=scale)
        if skip is not None:
            powers.scatter_(1, skip.unsqueeze(1), float("-inf"))
        own = rows.new_zeros(())
        if match is not None:
            own = powers.gather(1, match.unsqueeze(1)).squeeze(1)
        if scale <= _SAFE_EXPONENT:  # no shift: one pass less
            total = powers.exp_().sum(1)
            losses = (total * torch.exp(-own)).log()
        else:
            top = powers.amax(1, keepdim=True)
            total = powers.sub_(top).exp_().sum(1)
            losses = total.log() + (top.squeeze(1) - own)
        ctx.save_for_backward(rows, columns, skip, match)
        ctx.powers, ctx.total, ctx.scale = powers, total, scale
        return losses

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        rows, columns, skip, match = ctx.saved_tensors
        grad = grads[0]
        if torch.is_grad_enabled():

            def plain(r: Tensor, c: Tensor) -> Tensor:
                return _plain_contrast(r, c, skip, match, ctx.scale)

            return *through(plain, [rows, columns], [grad]), None, None, None
        grad = (ctx.scale * grad).unsqueeze(1)
        share = grad / ctx.total.unsqueeze(1)
        to_rows = to_columns = None
        if ctx.needs_input_grad[0]:
            to_rows = (ctx.powers @ columns).mul_(share)
            if match is not None:
                to_rows.addcmul_(grad, columns[match], value=-1)
        if ctx.needs_input_grad[1]:
            to_columns = ctx.powers.T @ (share * rows)
            if match is not None:
                to_columns.index_add_(0, match, grad * rows, alpha=-1)
        return to_rows, to_columns, None, None, None


class _Gather(torch.autograd.Function):
    """Join a batch across ranks; the backward adds up what every rank asks of the local part."""

    @staticmethod
    def forward(ctx: Any, local: Tensor) -> Tensor:
        ctx.size = local.shape[0]
        parts = [torch.empty_like(local) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, local.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous().clone()
        dist.all_reduce(grad)
        return grad.narrow(0, dist.get_rank() * ctx.size, ctx.size)


def world() -> int:
    """Return the number of ranks, 1 outside a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def check_equal_batches(who: str, tensor: Tensor) -> None:
    """Refuse ranks with batches of different size, which would hang or mix up the gathering."""
    size = torch.tensor([tensor.shape[0]], device=tensor.device)
    sizes = [torch.empty_like(size) for _ in range(world())]
    dist.all_gather(sizes, size)
    found = [int(s) for s in sizes]
    if len(set(found)) > 1:
        raise ValueError(
            f"{who}: gather=True needs the same batch size on every rank; got {found}. "
            f"Use drop_last=True"
        )


def gather_rows(local: Tensor) -> Tensor:
    """Return the rows of all ranks in rank order, with gradients."""
    return _Gather.apply(local)


def join_ranks(loss: Tensor, count: Tensor, reduction: str) -> Tensor:
    """Reduce the losses of the local anchors to the loss of the joined batch.

    The value is the joined one on every rank. The gradient is scaled for the averaging over
    ranks that DistributedDataParallel does, after which it is the joined batch's.

    Args:
        loss: one loss per local anchor.
        count: 0-d; how many of them count.
        reduction: ``"mean"``, ``"sum"`` or ``"none"`` (which stays local).
    """
    if reduction == "none":
        return loss
    ranks, total = world(), loss.sum()
    if reduction == "mean":
        everywhere = count.to(total.dtype).clone()
        dist.all_reduce(everywhere)
        total = total / everywhere.clamp_min(1)
    joined = total.detach().clone()
    dist.all_reduce(joined)
    return ranks * total + (joined - ranks * total).detach()
