"""Focal losses: cross-entropy that turns away from what is already classified well."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses import _native
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_class_weight,
    check_finite,
    check_floating,
    check_modes,
    check_not_empty,
    check_number,
    reduce,
    single,
)
from brickyard.losses._fused import through
from brickyard.losses._targets import check_binary, check_classes, refuse_softmax

__all__ = ["BinaryFocalLoss", "FocalLoss", "binary_focal_loss", "focal_loss"]


def focal_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, gamma: float = 2.0,
    alpha: Tensor | None = None, ignore_index: int = -100,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the multi-class focal loss of logits; see :class:`FocalLoss`."""
    who = "focal_loss"
    check_modes(who, reduction, validate)
    check_number(who, "gamma", gamma, 0.0)
    check_floating(who, "input", input)
    check_not_empty(who, input, reduction)
    axis = 1 if input.dim() > 1 else 0
    target, _, some = check_classes(who, input, target, axis, ignore_index, validate)
    if alpha is not None and alpha.shape != (input.shape[axis],):
        raise ValueError(
            f"{who}: alpha must have one weight per class, ({input.shape[axis]},); got "
            f"{tuple(alpha.shape)}"
        )
    if validate == "full":
        check_finite(who, input=input)
        refuse_softmax(who, input, axis)
    input = single(input)
    alpha = None if alpha is None else alpha.to(input)
    ignored = ignore_index if some else None
    total = sample_weight is None and reduction != "none"
    if input.dim() > 1 and _native.usable(input) and _halves(gamma) is not None:
        loss = _Focal.apply(_native.dense(input), target, gamma, alpha, ignored, total)
    else:
        loss = plain_focal(input, target, gamma, alpha, ignored, total)
    kept = None if ignored is None else target != ignored
    if total:
        if reduction == "sum":
            return loss
        return loss / (target.numel() if kept is None else kept.sum().clamp_min(1))
    share = None if kept is None else kept.to(loss.dtype)
    return reduce(who, loss, reduction, sample_weight, share)


def plain_focal(
    input: Tensor, target: Tensor, gamma: float, alpha: Tensor | None, ignored: int | None,
    total: bool = False,
) -> Tensor:  # fmt: skip
    """Compute the focal loss by its definition, from log-probabilities."""
    log_p = F.log_softmax(input, 1 if input.dim() > 1 else 0)
    nll = F.nll_loss(log_p, target, reduction="none", ignore_index=_index(ignored))
    missing = -torch.expm1(-nll)  # 1 - p, exact where p is near 1
    loss = _power(missing, gamma) * nll
    if alpha is not None:
        loss = loss * alpha[_kept(target, ignored)]
    return loss.sum() if total else loss


def _index(ignored: int | None) -> int:
    """Return what torch's functions want as ``ignore_index`` where nothing is ignored."""
    return -100 if ignored is None else ignored


def _kept(target: Tensor, ignored: int | None) -> Tensor:
    """Return the targets with 0 in the place of ignored ones."""
    return target if ignored is None else torch.where(target == ignored, 0, target)


def _power(base: Tensor, exponent: float) -> Tensor:
    """Return ``base ** exponent`` for a base of at least 0, with a finite gradient at 0."""
    if exponent == 0:
        return torch.ones_like(base)
    if exponent < 1:  # the slope at 0 is infinite; the loss's factor nll is 0 there, and wins
        base = base.clamp_min(torch.finfo(base.dtype).tiny)
    return base.pow(exponent)


def _halves(gamma: float) -> int | None:
    """Return twice the exponent where the kernels can take powers by multiplying."""
    halves = 2 * gamma
    return int(halves) if halves == int(halves) and halves <= 32 else None


class _Focal(torch.autograd.Function):
    """Compute focal losses of large inputs, forward and backward in one pass each.

    Math:
        l = w * n, n = -log p, w = (1-p)^g;  dl/dx_j = c * ([j = y] - p_j)
        c = dl/d(log p) = -w * (1 + g*(n/(1-p) - n))
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, gamma: float, alpha: Tensor | None,
        ignored: int | None, total: bool,
    ) -> Tensor:  # fmt: skip
        target = target.contiguous()
        keep = None if ignored is None else target != ignored
        ctx.options = (gamma, alpha, ignored, total)
        ctx.save_for_backward(input, target, keep)
        out = None if total else input.new_empty(target.shape)
        sums = torch.zeros(1, dtype=torch.float64)
        _native.call("focal", input, sums, y=target, keep=keep, weight=alpha, out=out,
                     halves=_halves(gamma))  # fmt: skip
        return sums[0].to(input.dtype) if out is None else out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, target, keep = ctx.saved_tensors
        gamma, alpha, *_ = ctx.options
        if torch.is_grad_enabled():
            grad = through(lambda x: plain_focal(x, target, *ctx.options), [input], grads)[0]
        else:
            grad = torch.empty_like(input)
            up, step = _native.spread(grads[0])
            _native.call("focal", input, y=target, keep=keep, weight=alpha, up=up,
                         step_up=step, grad=grad, halves=_halves(gamma))  # fmt: skip
        return grad, None, None, None, None, None


def binary_focal_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, gamma: float = 2.0,
    alpha: float | None = 0.25, reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the focal loss of yes/no logits; see :class:`BinaryFocalLoss`."""
    who = "binary_focal_loss"
    check_modes(who, reduction, validate)
    check_number(who, "gamma", gamma, 0.0)
    if alpha is not None:
        check_number(who, "alpha", alpha, 0.0, 1.0)
    input, target = check_binary(who, input, target, reduction, validate)
    total = sample_weight is None and reduction != "none"
    if _native.usable(input) and not target.requires_grad and _halves(gamma) is not None:
        loss = _BinaryFocal.apply(input.contiguous(), target.contiguous(), gamma, alpha, total)
    else:
        loss = plain_binary_focal(input, target, gamma, alpha, total)
    if total:
        return loss / input.numel() if reduction == "mean" else loss
    return reduce(who, loss, reduction, sample_weight)


def plain_binary_focal(
    input: Tensor, target: Tensor, gamma: float, alpha: float | None, total: bool = False
) -> Tensor:
    """Compute the binary focal loss by its definition, from logits."""
    yes, no = torch.sigmoid(input), torch.sigmoid(-input)
    missing = yes * (1 - target) + no * target  # 1 - p_t, exact where p_t is near 1
    nll = input.clamp_min(0) - input * target + torch.exp(-input.abs()).log1p()
    loss = _power(missing, gamma) * nll
    if alpha is not None:
        loss = loss * (alpha * target + (1 - alpha) * (1 - target))
    return loss.sum() if total else loss


class _BinaryFocal(torch.autograd.Function):
    """Compute binary focal losses of large inputs, forward and backward in one pass each.

    Math:
        l = a * q^g * n, q = s*(1-t) + (1-s)*t
        dl/dx = a * q^g * (g*n*s*(1-s)*(1-2t)/q + s*(1-t) - (1-s)*t)
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, target: Tensor, gamma: float, alpha: float | None, total: bool
    ) -> Tensor:
        ctx.options = (gamma, alpha, total)
        ctx.save_for_backward(input, target)
        out = None if total else torch.empty_like(input)
        sums = torch.zeros(1, dtype=torch.float64)
        _native.call("binary_focal", input.view(1, 1, -1), sums, t=target, out=out,
                     halves=_halves(gamma), alpha=-1.0 if alpha is None else alpha)  # fmt: skip
        return sums[0].to(input.dtype) if out is None else out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        input, target = ctx.saved_tensors
        gamma, alpha, _ = ctx.options
        if torch.is_grad_enabled():
            plain = plain_binary_focal
            grad = through(lambda x: plain(x, target, *ctx.options), [input], grads)[0]
        else:
            grad = torch.empty_like(input)
            up, step = _native.spread(grads[0])
            _native.call("binary_focal", input.view(1, 1, -1), t=target, up=up, step_up=step,
                         grad=grad, halves=_halves(gamma),
                         alpha=-1.0 if alpha is None else alpha)  # fmt: skip
        return grad, None, None, None, None


@brick(
    "loss", "focal", public="brickyard.losses", output="logits", target="class indices",
    summary="Cross-entropy times (1 - p)^gamma: easy samples fade, hard ones keep their weight.",
    use_when="Class imbalance: most samples are easy members of few classes and drown the rest.",
    avoid_when="Labels are noisy (it chases the wrong ones), or probabilities must be calibrated.",
    best_for="Classification with class imbalance; pixel-wise labels with rare classes.",
    paper="Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 4 and 5",
    tune_first="gamma (0.5 to 5; 0 is cross-entropy), then alpha per class",
    cost="Between cross-entropy and twice its time.",
    pairs_with=("cross_entropy", "adamw"),
)  # fmt: skip
class FocalLoss(Loss):
    """Turn cross-entropy away from samples that are classified well already.

    Computed from log-probabilities, so logits of any size are fine. ``gamma=0`` is
    cross-entropy. The mean divides by the number of targets that count; ``alpha`` does not
    enter the divisor (torch's cross-entropy divides by its class weights).

    Math:
        l_i = -alpha_y * (1 - p_y)^gamma * log p_y,  p = softmax(x_i)

    Args:
        gamma: how fast a sample fades as its probability grows; at least 0.
        alpha: one weight per class; None weighs all the same.
        ignore_index: targets of this value count for nothing.
        reduction: ``"mean"`` over the targets that count (weighted when ``sample_weight`` is
            given), ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite logits and rows that are probabilities already.

    Shape:
        input ``(C,)`` or ``(N, C, *)``; target integers ``()`` or ``(N, *)``; ``sample_weight``
        ``(N,)`` or ``(N, *)``.

    Raises:
        ValueError: shapes do not match, an index is outside ``[0, C)``, ``gamma`` is negative,
            ``alpha`` has another length than the classes, the batch is empty.
        TypeError: the input is not floating point, the target is not integer.

    Example:
        >>> import torch
        >>> logits = torch.tensor([[4.0, 0.0], [0.0, 0.0]])  # one easy sample, one hard
        >>> FocalLoss(gamma=2.0, reduction="none")(logits, torch.tensor([0, 0]))
        tensor([5.8716e-06, 1.7329e-01])

    Reference:
        Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 4 and 5.
    """

    alpha: Tensor | None

    def __init__(
        self, gamma: float = 2.0, alpha: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100, reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("FocalLoss", "gamma", gamma, 0.0)
        self.gamma = gamma
        self.ignore_index = ignore_index
        self.register_buffer("alpha", check_class_weight("FocalLoss", alpha, "alpha"))

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return focal_loss(
            input, target, sample_weight, self.gamma, self.alpha, self.ignore_index,
            self.reduction, self.validate,
        )  # fmt: skip


@brick(
    "loss", "binary_focal", public="brickyard.losses", output="logits", target="binary",
    summary="Focal loss for yes/no logits, with alpha as the weight of the positive side.",
    use_when="Class imbalance in yes/no decisions: thousands of easy negatives to each positive.",
    avoid_when="Labels are noisy, or the predicted probability itself is used.",
    best_for="One-stage detectors, rare events, multi-label heads with rare labels.",
    paper="Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5",
    tune_first="gamma, then alpha (the paper lowers alpha as gamma rises: 0.25 at gamma 2)",
    cost="About three times binary cross-entropy, in one buffer.",
    pairs_with=("bce", "smooth_l1"),
)  # fmt: skip
class BinaryFocalLoss(Loss):
    """Turn binary cross-entropy away from decisions that are right already.

    With soft targets p_t is read as the probability of agreeing with the target, as detectors'
    implementations do. The mean divides by the number of elements; detectors use ``"sum"`` and
    divide by the number of positive anchors.

    Math:
        p_t = p*t + (1-p)*(1-t);  a_t = alpha*t + (1-alpha)*(1-t);  p = sigmoid(x)
        l_i = a_t * (1 - p_t)^gamma * BCE(x, t)

    Args:
        gamma: how fast a decision fades as it becomes certain; at least 0.
        alpha: weight of positives, ``1 - alpha`` that of negatives; None weighs both 1.
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that targets lie in [0, 1];
            ``"full"`` also refuses non-finite values and inputs that are probabilities.

    Shape:
        input and target ``(*)``; target real, integer or bool, in [0, 1]; ``sample_weight``
        ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, a target lies outside [0, 1], ``gamma`` is negative, ``alpha``
            is outside [0, 1], the batch is empty.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> loss = BinaryFocalLoss(reduction="none")
        >>> loss(torch.tensor([4.0, -4.0]), torch.tensor([1, 1]))  # right, wrong
        tensor([1.4679e-06, 9.6873e-01])

    Reference:
        Lin et al. 2017, Focal Loss for Dense Object Detection, eq. 5.
    """

    def __init__(
        self, gamma: float = 2.0, alpha: float | None = 0.25, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("BinaryFocalLoss", "gamma", gamma, 0.0)
        if alpha is not None:
            check_number("BinaryFocalLoss", "alpha", alpha, 0.0, 1.0)
        self.gamma, self.alpha = gamma, alpha

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return binary_focal_loss(
            input, target, sample_weight, self.gamma, self.alpha, self.reduction, self.validate
        )
