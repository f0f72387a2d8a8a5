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
    if not fusible(input) or target.requires_grad or not activation:
        return Counts(*plain_counts(input, target, keep, activation))
    if activation == "sigmoid":
        return Counts(*_SigmoidCounts.apply(input, target, keep)[:3])
    if target.is_floating_point():
        return Counts(*plain_counts(input, target, keep, activation))
    return Counts(*_SoftmaxCounts.apply(input, target, keep)[:3])


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
    """Count under a softmax with class indices; the softmax's buffer becomes the gradient.

    Math:
        with a, b the gradients of hit and predicted:
        dL/dx_c = p_c*(b_c - d) + [c = y]*a_y*p_y,  d = sum_c p_c*b_c + a_y*p_y
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, target: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
        p = F.softmax(input, 1)
        ones = torch.ones((), dtype=torch.float64).expand(target.shape)
        if keep is not None:
            p, ones = p.mul_(keep), keep[:, 0].double()
        own = p.gather(1, target.unsqueeze(1)).squeeze(1)
        hit = _by_class(target, own.double(), input.shape[1])
        true = _by_class(target, ones, input.shape[1])
        return hit.to(p.dtype), p.sum(2).sum(0), true.to(p.dtype), p, own

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _keep_buffers(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        input, target, keep = ctx.saved_tensors
        buffers, ctx.buffers = ctx.buffers, None
        if buffers is None or torch.is_grad_enabled():
            return _backward_plainly(input, target, keep, "softmax", grads), None, None
        p, own = buffers
        zero = p.new_zeros(p.shape[1])
        a, b = (zero if g is None else g for g in grads[:2])
        own = own.mul_(a[target])
        for row, mine in zip(p, own, strict=True):
            row.mul_(b.unsqueeze(1) - (b @ row + mine))
        return p.scatter_add_(1, target.unsqueeze(1), own.unsqueeze(1)), None, None


class _SigmoidCounts(torch.autograd.Function):
    """Count under a sigmoid; its buffer becomes the gradient.

    Math:
        with a, b the gradients of hit and predicted: dL/dx = p*(1-p)*(a*t + b)
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(input: Tensor, target: Tensor, keep: Tensor | None) -> tuple[Tensor, ...]:
        p = torch.sigmoid(input)
        if keep is not None:
            p = p.mul_(keep)  # the targets of ignored pixels are 0 already
        hit = torch.stack([(x * t).sum(1) for x, t in zip(p, target, strict=True)]).sum(0)
        return hit, p.sum(2).sum(0), target.sum(2).sum(0), p

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        _keep_buffers(ctx, inputs, output)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> Any:
        input, target, keep = ctx.saved_tensors
        buffers, ctx.buffers = ctx.buffers, None
        if buffers is None or torch.is_grad_enabled():
            return _backward_plainly(input, target, keep, "sigmoid", grads), None, None
        p = buffers[0]
        zero = p.new_zeros(p.shape[1])
        a, b = (zero if g is None else g for g in grads[:2])
        for row, mask in zip(p, target, strict=True):
            slope = 1 - row
            row.mul_(slope).mul_(torch.addcmul(b.unsqueeze(1), mask, a.unsqueeze(1)))
        return p, None, None


def _by_class(target: Tensor, values: Tensor, classes: int) -> Tensor:
    """Add up ``values`` by their class, in fp64."""
    total = torch.zeros(classes, dtype=torch.float64)
    return total.scatter_add(0, target.reshape(-1), values.reshape(-1))


def _keep_buffers(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.mark_non_differentiable(*output[2:])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs)
    ctx.buffers = output[3:]


def _backward_plainly(
    input: Tensor, target: Tensor, keep: Tensor | None, activation: str,
    grads: tuple[Tensor | None, ...],
) -> Tensor | None:  # fmt: skip
    def plain(x: Tensor) -> tuple[Tensor, ...]:
        return plain_counts(x, target, keep, activation)[:2]

    return through(plain, [input], grads[:2])[0]
