"""The Lovasz losses: convex surrogates of intersection over union."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses import _native
from brickyard.losses._contracts import Loss, Reduction, Validate, check_choice, check_modes, reduce
from brickyard.losses._overlap import MODES, activate, one_hot, open_masks

__all__ = ["LovaszLoss", "lovasz_loss"]


def lovasz_loss(
    input: Tensor, target: Tensor, mode: str = "binary", from_logits: bool = True,
    ignore_index: int | None = None, reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the Lovasz hinge or Lovasz-softmax loss; see :class:`LovaszLoss`."""
    who = "lovasz_loss"
    check_modes(who, reduction, validate)
    x, target, keep, activation = open_masks(
        who, input, target, mode, from_logits, ignore_index, validate
    )
    if target.dtype == torch.int64:
        target = one_hot(target, x.shape[1]).to(x.dtype)
    if activation == "sigmoid":
        error = (1 - (2 * target - 1) * x).clamp_min(0)  # the hinge; below 0 it costs nothing
    else:
        error = (target - activate(x, activation)).abs()
    if keep is not None:  # an ignored pixel sorts last and weighs nothing
        error, target = torch.where(keep, error, 0), target * keep
    error, target = (t.transpose(0, 1).flatten(1) for t in (error, target))
    loss = (error * _weights(error.detach(), target)).sum(1)
    if mode != "multiclass":
        return reduce(who, loss, reduction)
    present = (target.sum(1) > 0).to(loss.dtype)
    return reduce(who, loss * present, reduction, share=present)


def _weights(error: Tensor, target: Tensor) -> Tensor:
    """Return the Lovasz extension's slope at each error: the drop in IoU when it joins the set.

    With the errors sorted from the largest down, adding a true pixel takes one from the
    intersection, adding a false one adds one to the union.
    """
    if error.dtype == torch.float32 and _native.usable(error):
        return _native.lovasz_slopes(error.contiguous(), target.round().bool())
    order = error.argsort(dim=1, descending=True, stable=True)
    wide = torch.float64 if error.shape[1] >= 1 << 24 else target.dtype  # counts stay exact
    truth = target.round().gather(1, order).to(wide)
    total = truth.sum(1, keepdim=True)
    left = total - truth.cumsum(1)
    union = total + (1 - truth).cumsum(1)
    drop = torch.where(truth > 0, 1 / union, left / (union * (union - 1)).clamp_min(1))
    drop[:, 0] = 1 / union[:, 0]  # the same formula, and right when no pixel is true
    return torch.zeros_like(error).scatter_(1, order, drop.to(error.dtype))


@brick(
    "loss", "lovasz", public="brickyard.losses", output="logits", target="masks",
    summary="A convex surrogate of IoU: each pixel's error weighs what it costs in overlap.",
    use_when="You are scored by IoU and dice or cross-entropy has stopped improving it.",
    avoid_when="At the start of training, or with very small batches of single images.",
    best_for="Fine-tuning a segmentation network for mean IoU.",
    paper="Berman et al. 2018, The Lovasz-Softmax loss, eq. 8 and 11",
    tune_first="when to switch to it: after cross-entropy has converged",
    cost="A sort of all pixels per class: several times dice.",
    pairs_with=("cross_entropy", "iou"),
)  # fmt: skip
class LovaszLoss(Loss):
    """Weigh each pixel's error by what it costs in intersection over union.

    Binary and multilabel logits use the Lovasz hinge (margin 1 on the logit); multiclass logits,
    and probabilities in any mode, the Lovasz-softmax form. The batch is one set of pixels per
    class; multiclass averages over the classes present in the target.

    Math:
        e_(1) >= e_(2) >= ... sorted errors;  J_k = IoU loss if pixels (1)..(k) are wrong
        l_c = sum_k e_(k) * (J_k - J_(k-1))

    Args:
        mode: ``"binary"`` (one mask), ``"multiclass"`` (softmax over axis 1) or ``"multilabel"``
            (a mask per channel, axis 1).
        from_logits: True for raw outputs, False for probabilities.
        ignore_index: pixels with this target count nowhere; None keeps all.
        reduction: ``"mean"`` (over present classes) or ``"sum"`` over the classes, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite values and logits that are probabilities.

    Shape:
        binary: input and target ``(N, *)``; multilabel: both ``(N, C, *)``; multiclass: input
        ``(N, C, *)``, target integers ``(N, *)``. Soft masks are rounded to 0 and 1 in the sort.

    Raises:
        ValueError: shapes do not match, targets are out of range, an option is unknown.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> logits, mask = torch.tensor([[3.0, -3.0, 0.0]]), torch.tensor([[1, 0, 1]])
        >>> LovaszLoss()(logits, mask)  # one true pixel of two falls short by 1
        tensor(0.5000)

    Reference:
        Berman et al. 2018, The Lovasz-Softmax loss: a tractable surrogate for the optimization of
        the intersection-over-union measure in neural networks, algorithm 1, eq. 8 and 11.
    """

    def __init__(
        self, mode: Literal["binary", "multiclass", "multilabel"] = "binary",
        from_logits: bool = True, ignore_index: int | None = None,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_choice("LovaszLoss", "mode", mode, MODES)
        self.mode, self.from_logits, self.ignore_index = mode, from_logits, ignore_index

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return lovasz_loss(
            input, target, self.mode, self.from_logits, self.ignore_index, self.reduction,
            self.validate,
        )  # fmt: skip
