"""Soft counts of hits, predictions and truths per class: the base of the overlap losses."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.losses._contracts import (
    check_choice,
    check_finite,
    check_floating,
    check_interval,
    check_not_empty,
    check_same_shape,
    shape,
    single,
)
from brickyard.losses._fused import fusible, through
from brickyard.losses._targets import check_binary, check_classes, check_probabilities

MODES = ("binary", "multiclass", "multilabel")


class Masks(NamedTuple):
    """Hold predictions and targets that passed the door, with pixels on the last axis.

    ``input`` is ``(N, C, S)``; ``target`` is indices ``(N, S)`` or a mask ``(N, C, S)``;
    ``keep`` marks the pixels that count, ``(N, 1 or C, S)``, or is None when all do.
    """

    input: Tensor
    target: Tensor
    keep: Tensor | None
    activation: str


class Counts(NamedTuple):
    """Hold soft counts per class, ``(C,)`` each."""

    hit: Tensor  # sum of p*t
    predicted: Tensor  # sum of p
    true: Tensor  # sum of t


def open_masks(
    who: str, input: Tensor, target: Tensor, mode: str, from_logits: bool,
    ignore_index: int | None, validate: str,
) -> Masks:  # fmt: skip
    """Check predictions against masks.

    Args:
        who: the loss, for messages.
        input: logits or probabilities: ``(N, *)`` for binary, ``(N, C, *)`` otherwise.
        target: class indices ``(N, *)`` or probabilities like ``input`` for multiclass, a mask in
            the shape of ``input`` for the others.
        mode: one of ``MODES``.
        from_logits: whether ``input`` still needs its sigmoid or softmax.
        ignore_index: pixels with this target count nowhere.
        validate: ``"cheap"`` or ``"full"``.
    """
    check_choice(who, "mode", mode, MODES)
    check_floating(who, "input", input)
    check_not_empty(who, input, "mean")
    least, axes = (2, "(N, *)") if mode == "binary" else (3, "(N, C, *)")
    if input.dim() < least:
        raise ValueError(
            f"{who}: mode {mode!r} needs an input of shape {axes} with {least} or more axes; got "
            f"{shape(input)}"
        )
    if validate == "full":
        check_finite(who, input=input)
    if not from_logits:
        why = "from_logits=False takes probabilities; for raw outputs leave it True."
        check_interval(who, "input", input, 0, 1 + 1e-4, why, validate == "full")
    soft = mode == "multiclass" and target.is_floating_point()
    if soft:
        check_probabilities(who, input, target, 1, validate)
        target, keep = target.to(single(input).dtype), None
    elif mode == "multiclass":
        ignored = -1 - input.shape[1] if ignore_index is None else ignore_index
        target, _, some = check_classes(who, input, target, 1, ignored, validate)
        keep = (target != ignored) if ignore_index is not None and some else None
        target = target if keep is None else torch.where(keep, target, 0)
    else:
        check_same_shape(who, input, target)
        keep = None if ignore_index is None else target != ignore_index
        target = target if keep is None else torch.where(keep, target, 0)
        level = validate if from_logits else "cheap"
        target = check_binary(who, input, target, "mean", level)[1]
    batch, classes = input.shape[0], 1 if mode == "binary" else input.shape[1]
    flat = (batch, -1) if mode == "multiclass" and not soft else (batch, classes, -1)
    if keep is not None:
        keep = keep.reshape(batch, 1 if mode == "multiclass" else classes, -1)
    activation = "" if not from_logits else "softmax" if mode == "multiclass" else "sigmoid"
    return Masks(single(input).reshape(batch, classes, -1), target.reshape(flat), keep, activation)


def count(masks: Masks) -> Counts:
    """Count hits, predictions and truths per class, over the batch and all pixels."""
    input, target, keep, activation = masks
    fused = {"softmax": _SoftmaxCounts, "sigmoid": _SigmoidCounts}.get(activation)
    suits = target.is_floating_point() == (activation == "sigmoid")
    if fused is not None and suits and fusible(input) and not target.requires_grad:
        return Counts(*fused.apply(input, target, keep))
    return Counts(*plain_counts(input, target, keep, activation))


def plain_counts(
    input: Tensor, target: Tensor, keep: Tensor | None, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Count by the definition, in differentiable operations."""
    p = activate(input, activation)
    if not target.is_floating_point():
        target = one_hot(target, input.shape[1]).to(p.dtype)
    if keep is not None:
        p, target = p * keep, target * keep
    return (p * target).sum((0, 2)), p.sum((0, 2)), target.sum((0, 2))


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Return ``(N, S)`` indices as bool ``(N, C, S)``; unlike torch's, it works under vmap."""
    return target.unsqueeze(1) == torch.arange(classes, device=target.device).unsqueeze(1)


def activate(input: Tensor, activation: str) -> Tensor:
    """Return probabilities for logits: softmax over axis 1, sigmoid, or nothing."""
    if activation == "softmax":
        return F.softmax(input, 1)
    return torch.sigmoid(input) if activation == "sigmoid" else input


class _SoftmaxCounts(torch.autograd.Function):
    """Count under a softmax with class indices, without a one-hot mask.

    Math:
        with a, b the gradients of hit and predicted:
        dL/dx_c = p_c*(b_c - d) + [c = y]*a_y*p_y,  d = sum_c p_c*b_c + a_y*p_y
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, keep: Tensor | None) -> Any:
        p = F.softmax(input, 1)
        if keep is not None:
            p.mul_(keep)
        own = p.gather(1, target.unsqueeze(1)).squeeze(1)
        hit = torch.bincount(target.view(-1), own.view(-1), p.shape[1])  # adds up in fp64
        shown = target if keep is None else target[keep[:, 0]]
        true = torch.bincount(shown.reshape(-1), minlength=p.shape[1])
        ctx.found = p, own
        return _counted(ctx, (input, target, keep), hit, p.sum(2).sum(0), true)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, target, keep = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _backward_plainly(input, target, keep, "softmax", grads), None, None
        p, own = ctx.found
        a, b, _ = grads
        mine = own * a.index_select(0, target.view(-1)).view_as(own)
        mean = torch.matmul(b, p).add_(mine).unsqueeze(1)
        grad = (p * b.unsqueeze(1)).addcmul_(p, mean, value=-1)
        return grad.scatter_add_(1, target.unsqueeze(1), mine.unsqueeze(1)), None, None


class _SigmoidCounts(torch.autograd.Function):
    """Count under a sigmoid.

    Math:
        with a, b the gradients of hit and predicted: dL/dx = p*(1-p)*(a*t + b)
    """

    @staticmethod
    def forward(ctx: Any, input: Tensor, target: Tensor, keep: Tensor | None) -> Any:
        p = torch.sigmoid(input)
        if keep is not None:  # the targets of ignored pixels are 0 already
            p.mul_(keep)
        ctx.found = p
        counts = (p * target).sum(2).sum(0), p.sum(2).sum(0), target.sum(2).sum(0)
        return _counted(ctx, (input, target, keep), *counts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, target, keep = ctx.saved_tensors
        if torch.is_grad_enabled():
            return _backward_plainly(input, target, keep, "sigmoid", grads), None, None
        p = ctx.found
        a, b, _ = (g.unsqueeze(1) for g in grads)
        grad = torch.addcmul(b, target, a).mul_(p)
        return grad.addcmul_(grad, p, value=-1), None, None


def _counted(
    ctx: Any, saved: tuple[Tensor, Tensor, Tensor | None], *counts: Tensor
) -> tuple[Tensor, ...]:
    """Set up the backward; return the counts in the input's precision."""
    ctx.save_for_backward(*saved)
    found = tuple(c.to(saved[0].dtype) for c in counts)
    ctx.mark_non_differentiable(found[2])
    return found


def _backward_plainly(
    input: Tensor, target: Tensor, keep: Tensor | None, activation: str,
    grads: tuple[Tensor, ...],
) -> Tensor | None:  # fmt: skip
    def plain(x: Tensor) -> tuple[Tensor, ...]:
        return plain_counts(x, target, keep, activation)[:2]

    return through(plain, [input], grads[:2])[0]
