"""Cross-entropy of a linear head in chunks of tokens: forward and backward without the logits."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.losses._fused import through


class Plan(NamedTuple):
    """Hold how the head's loss is computed."""

    ignore_index: int
    label_smoothing: float
    soft_cap: float | None
    chunk: int
    each: bool  # one loss per token, instead of their sum


def plain_head(
    rows: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
    class_weight: Tensor | None, plan: Plan,
) -> Tensor:  # fmt: skip
    """Compute the loss by its definition, with all logits in memory."""
    logits = F.linear(rows, weight, bias)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if plan.soft_cap is not None:
        logits = plan.soft_cap * torch.tanh(logits / plan.soft_cap)
    return F.cross_entropy(
        logits, target, class_weight, ignore_index=plan.ignore_index,
        label_smoothing=plan.label_smoothing, reduction="none" if plan.each else "sum",
    )  # fmt: skip


class LinearCrossEntropy(torch.autograd.Function):
    """Compute the head's loss chunk by chunk.

    For a sum the gradients are computed along with the loss, while a chunk's logits are at hand:
    three products in all, as many as the plain form needs. For one loss per token their factors
    are not known yet, so the backward computes the logits again.

    Math:
        z = x W^T + b;  u = cap*tanh(z/cap);  p = softmax(u)
        dl/du_c = p_c*((1-e)*w_y + e/V*sum(w)) - (1-e)*w_y*[c = y] - e/V*w_c
        dl/dz = dl/du * (1 - (u/cap)^2);  dl/dx = dl/dz W;  dl/dW = (dl/dz)^T x
    """

    @staticmethod
    def forward(
        ctx: Any, rows: Tensor, weight: Tensor, bias: Tensor | None, target: Tensor,
        class_weight: Tensor | None, plan: Plan,
    ) -> Tensor:  # fmt: skip
        ctx.plan = plan
        saved = (rows, weight, bias, target, class_weight)
        ctx.save_for_backward(*saved)
        wanted = tuple(ctx.needs_input_grad[:3])
        given = None if plan.each or not any(wanted) else torch.ones((), device=rows.device)
        losses, ctx.buffers = _sweep(saved, plan, given, wanted)
        return losses if plan.each else losses.sum(dtype=torch.float64).to(losses.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        saved, plan, grad = ctx.saved_tensors, ctx.plan, grads[0]
        wanted = tuple(ctx.needs_input_grad[:3])
        buffers, ctx.buffers = ctx.buffers, None
        if torch.is_grad_enabled():
            rows, weight, bias, target, class_weight = saved

            def plain(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
                return plain_head(x, w, b, target, class_weight, plan)

            found = through(plain, [rows, weight, bias], [grad])
            return *found, None, None, None
        if buffers is None:
            found = _sweep(saved, plan, grad, wanted)[1] or ()
        else:
            found = (None if b is None else b.mul_(grad) for b in buffers)
        return *found, None, None, None


def _sweep(
    saved: tuple[Any, ...], plan: Plan, given: Tensor | None, wanted: tuple[bool, ...]
) -> tuple[Tensor, tuple[Tensor | None, ...] | None]:
    """Go through the tokens in chunks; return all losses, and gradients if ``given`` is.

    ``given`` is the gradient of the losses, 0-d or one per token.
    """
    rows, weight, bias, target, class_weight = saved
    wide = torch.float64 if rows.dtype == torch.float64 else torch.float32
    count, vocabulary = len(rows), len(weight)
    losses = torch.zeros(count, dtype=wide, device=rows.device)
    grads: tuple[Tensor | None, ...] | None = None
    if given is not None:
        grads = (
            torch.zeros_like(rows) if wanted[0] else None,
            torch.zeros_like(weight, dtype=wide) if wanted[1] else None,
            torch.zeros(vocabulary, dtype=wide, device=rows.device) if wanted[2] else None,
        )
        given = given.to(wide).expand(count)
    held = torch.empty(min(plan.chunk, count), vocabulary, dtype=rows.dtype, device=rows.device)
    for start in range(0, count, plan.chunk):
        part = slice(start, min(start + plan.chunk, count))
        x = rows[part]
        logits = torch.mm(x, weight.T, out=held[: len(x)])
        if bias is not None:
            logits += bias
        logits = logits.to(wide)  # the buffer itself, unless it is half precision
        slope = _chunk(
            logits, target[part], class_weight, plan, losses[part],
            None if given is None else given[part],
        )  # fmt: skip
        if slope is not None and grads is not None:
            _collect(grads, slope, x, weight, part)
    if grads is None:
        return losses, None
    whole = (None if g is None else g.to(t.dtype) for g, t in zip(grads, saved, strict=False))
    return losses, tuple(whole)


def _chunk(
    logits: Tensor, target: Tensor, class_weight: Tensor | None, plan: Plan, losses: Tensor,
    given: Tensor | None,
) -> Tensor | None:  # fmt: skip
    """Write a chunk's losses; turn its logits into their gradient, in place, if wanted."""
    cap, smoothing = plan.soft_cap, plan.label_smoothing
    kept = target != plan.ignore_index
    index = torch.where(kept, target, 0).unsqueeze(1)
    capped = None
    if cap is not None:
        logits.div_(cap).tanh_()
        capped = logits.clone() if given is not None else None
        logits.mul_(cap)
    own = logits.gather(1, index).squeeze(1)
    share = kept.to(logits.dtype)
    if class_weight is not None:
        share = share * class_weight[index.squeeze(1)]
    even = mass = spread = None
    if smoothing:
        even = class_weight if class_weight is not None else logits.new_ones(logits.shape[1])
        even = even * (smoothing / logits.shape[1])
        mass, spread = even.sum(), logits @ even
    top = logits.amax(1)
    total = logits.sub_(top.unsqueeze(1)).exp_().sum(1)
    norm = total.log().add_(top)
    losses.copy_((1 - smoothing) * share * (norm - own))
    if mass is not None and spread is not None:
        losses.add_(kept * (mass * norm - spread))
    if given is None:
        return None
    hit = (1 - smoothing) * share * given
    weighed = hit if mass is None else hit + kept * given * mass
    logits.mul_((weighed / total).unsqueeze(1)).scatter_add_(1, index, -hit.unsqueeze(1))
    if even is not None:
        logits.addr_((kept * given).to(logits.dtype), even, alpha=-1)
    return logits if capped is None else logits.addcmul_(logits, capped.square_(), value=-1)


def _collect(
    grads: tuple[Tensor | None, ...], slope: Tensor, x: Tensor, weight: Tensor, part: slice
) -> None:
    """Add a chunk's share to the gradients of rows, weight and bias."""
    to_rows, to_weight, to_bias = grads
    if to_bias is not None:
        to_bias += slope.sum(0)
    slope = slope.to(x.dtype)
    if to_rows is not None:
        torch.mm(slope, weight, out=to_rows[part])
    if to_weight is not None and to_weight.dtype == x.dtype:
        to_weight.addmm_(slope.T, x)
    elif to_weight is not None:
        to_weight += slope.T @ x
