"""Soft counts of hits, predictions and truths per class: the base of the overlap losses."""

from __future__ import annotations

from typing import Any, NamedTuple, TypedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.losses import _native
from brickyard.losses._contracts import (
    Validate,
    check_choice,
    check_finite,
    check_floating,
    check_interval,
    check_modes,
    check_not_empty,
    check_number,
    check_same_shape,
    extremes,
    reduce,
    shape,
    single,
)
from brickyard.losses._fused import through
from brickyard.losses._targets import check_binary, check_classes, check_probabilities

MODES = ("binary", "multiclass", "multilabel")


class Masks(NamedTuple):
    """Hold predictions and targets that passed the door, with pixels on the last axis.

    ``input`` is ``(N, C, S)``; ``target`` is indices ``(N, S)`` or a mask ``(N, C, S)``;
    ``keep`` marks the pixels that count, or says how much each does, ``(N, 1 or C, S)``; None
    when all do alike. (Pixels may be 1 where samples have one weight each.)
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


def weigh(who: str, masks: Masks, weight: Tensor | None, input: Tensor, mode: str) -> Masks:
    """Return masks whose pixels count as much as ``sample_weight`` says.

    Args:
        who: the loss, for messages.
        masks: what passed the door.
        weight: one per sample, ``(N,)``, or one per pixel, in the shape of the target.
        input: the loss's input, for its shape.
        mode: one of ``MODES``.
    """
    if weight is None:
        return masks
    pixels = input.shape[:1] + input.shape[2:] if mode == "multiclass" else input.shape
    if weight.shape not in (pixels, pixels[:1]):
        raise ValueError(
            f"{who}: sample_weight must have one weight per sample, ({pixels[0]},), or per pixel, "
            f"{tuple(pixels)}; got {shape(weight)}"
        )
    found = extremes(weight)
    if found is not None and not found[0] >= 0:
        raise ValueError(f"{who}: sample_weight must be at least 0; got {found[0]:g}")
    count, classes = masks.input.shape[:2]
    each = weight.dim() == 1
    view = (count, 1 if each or mode == "multiclass" else classes, -1)
    scale = weight.to(masks.input.dtype).reshape(view)
    return masks._replace(keep=scale if masks.keep is None else scale * masks.keep)


def count(masks: Masks) -> Counts:
    """Count hits, predictions and truths per class, over the batch and all pixels."""
    input, target, keep, activation = masks
    suits = target.is_floating_point() == (activation == "sigmoid")
    suits = suits and (keep is None or keep.dtype == torch.bool)  # the kernels know no weights
    if activation and suits and _native.usable(input) and not target.requires_grad:
        input = _native.dense(input) if activation == "softmax" else input.contiguous()
        return Counts(*_NativeCounts.apply(input, target.contiguous(), keep, activation))
    return Counts(*plain_counts(input, target, keep, activation))


def plain_counts(
    input: Tensor, target: Tensor, keep: Tensor | None, activation: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Count by the definition, in differentiable operations."""
    p = activate(input, activation)
    if not target.is_floating_point():
        target = one_hot(target, input.shape[1]).to(p.dtype)
    hit = p * target
    if keep is not None:
        hit, p, target = hit * keep, p * keep, target * keep
    return hit.sum((0, 2)), p.sum((0, 2)), target.sum((0, 2))


def one_hot(target: Tensor, classes: int) -> Tensor:
    """Return ``(N, S)`` indices as bool ``(N, C, S)``; unlike torch's, it works under vmap."""
    return target.unsqueeze(1) == torch.arange(classes, device=target.device).unsqueeze(1)


def activate(input: Tensor, activation: str) -> Tensor:
    """Return probabilities for logits: softmax over axis 1, sigmoid, or nothing."""
    if activation == "softmax":
        return F.softmax(input, 1)
    return torch.sigmoid(input) if activation == "sigmoid" else input


class _NativeCounts(torch.autograd.Function):
    """Count under a softmax with class indices, or under a sigmoid with a mask, in one pass.

    Math:
        with a, b the gradients of hit and predicted:
        softmax: dL/dx_c = p_c*(b_c - d) + [c = y]*a_y*p_y,  d = sum_c p_c*b_c + a_y*p_y
        sigmoid: dL/dx = p*(1-p)*(a*t + b)
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, keep: Tensor | None, activation: str
    ) -> Any:
        ctx.activation, classes = activation, input.shape[1]
        keep = None if keep is None else keep.contiguous()
        ctx.save_for_backward(input, target, keep)
        sums = torch.zeros(3, classes, dtype=torch.float64)
        _native.call(f"{activation}_counts", input, sums, keep=keep, **_mask(target))
        found = sums.to(input.dtype).unbind()
        ctx.mark_non_differentiable(found[2])
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, target, keep = ctx.saved_tensors
        if torch.is_grad_enabled():

            def plain(x: Tensor) -> tuple[Tensor, ...]:
                return plain_counts(x, target, keep, ctx.activation)[:2]

            return through(plain, [input], grads[:2])[0], None, None, None
        grad = torch.empty_like(input)
        up = torch.stack(grads[:2])
        _native.call(f"{ctx.activation}_counts", input, keep=keep, up=up, grad=grad,
                     **_mask(target))  # fmt: skip
        return grad, None, None, None


def _mask(target: Tensor) -> dict[str, Any]:
    """Return what the kernels want to know about the target."""
    if not target.is_floating_point():
        return {"y": target}
    return {"t": target, "outer": target.shape[0], "inner": target[0, 0].numel()}


class Overlap(TypedDict, total=False):
    """Options that all overlap losses share; see ``DiceLoss`` for their meaning."""

    sample_weight: Tensor | None
    smooth: float
    from_logits: bool
    weight: Tensor | None
    ignore_index: int | None
    reduction: str
    validate: Validate


def overlap_loss(
    who: str, input: Tensor, target: Tensor, mode: str, prices: tuple[float, float, float],
    options: Overlap,
) -> Tensor:  # fmt: skip
    """Return 1 minus a Tversky index per class, to a power, reduced over the classes.

    ``prices`` are alpha (false positives), beta (false negatives) and the power.
    """
    alpha, beta, power = prices
    reduction, validate = options.get("reduction", "mean"), options.get("validate", "cheap")
    smooth, weight = options.get("smooth", 0.0), options.get("weight")
    check_modes(who, reduction, validate)
    check_number(who, "smooth", smooth, 0.0)
    masks = open_masks(
        who, input, target, mode, options.get("from_logits", True), options.get("ignore_index"),
        validate,
    )  # fmt: skip
    hit, predicted, true = count(weigh(who, masks, options.get("sample_weight"), input, mode))
    size = (1 - alpha - beta) * hit + alpha * predicted + beta * true + smooth
    some = size > 0  # a class absent on both sides has nothing to overlap, and no loss
    loss = torch.where(some, 1 - (hit + smooth) / torch.where(some, size, 1), 0)
    if power != 1:  # the slope of the power is infinite at 0: a perfect class gets none
        some = loss > 0
        loss = torch.where(some, torch.where(some, loss, 1) ** power, 0)
    if weight is None:
        return reduce(who, loss, reduction)
    if weight.shape != loss.shape:
        raise ValueError(
            f"{who}: weight must have one number per class, {tuple(loss.shape)}; got "
            f"{tuple(weight.shape)}"
        )
    return reduce(who, loss, reduction, weight.to(loss))
