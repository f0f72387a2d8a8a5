"""Margin losses of support vector machines."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_choice,
    check_finite,
    check_floating,
    check_modes,
    check_not_empty,
    check_number,
    check_same_shape,
    extremes,
    holds,
    reduce,
    single,
)
from brickyard.losses._targets import check_classes

__all__ = [
    "HingeLoss", "MulticlassHingeLoss", "SquaredHingeLoss", "hinge_loss", "multiclass_hinge_loss",
    "squared_hinge_loss",
]  # fmt: skip

Variant = Literal["crammer_singer", "weston_watkins"]
_VARIANTS = ("crammer_singer", "weston_watkins")


def _shortfall(
    who: str, score: Tensor, target: Tensor, reduction: str, validate: str
) -> Tensor:  # fmt: skip
    """Check scores against -1/+1 labels; return how much each falls short of the margin."""
    check_modes(who, reduction, validate)
    check_floating(who, "score", score)
    check_same_shape(who, score, target, "score and target")
    check_not_empty(who, score, reduction)
    full = validate == "full"
    found = extremes(target, always=full)
    if found is not None and not (found[0] >= -1 and found[1] <= 1 and _all_signs(target)):
        hint = "for labels in {0, 1} pass 2 * target - 1" if found[0] >= 0 else "map them first"
        raise ValueError(
            f"{who}: target must hold -1 and +1; got values from {found[0]:g} to {found[1]:g}; "
            f"{hint}"
        )
    if full:
        check_finite(who, score=score)
    score = single(score)
    return (1 - target.to(score.dtype) * score).clamp_min(0)


def _all_signs(target: Tensor) -> bool:
    if target.dtype == torch.bool:
        return False
    return holds(lambda: (target.abs() == 1).all())


def hinge_loss(
    score: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return how far scores fall short of the margin; see :class:`HingeLoss`."""
    loss = _shortfall("hinge_loss", score, target, reduction, validate)
    return reduce("hinge_loss", loss, reduction, sample_weight)


def squared_hinge_loss(
    score: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the squared shortfall from the margin; see :class:`SquaredHingeLoss`."""
    loss = _shortfall("squared_hinge_loss", score, target, reduction, validate)
    return reduce("squared_hinge_loss", loss.square(), reduction, sample_weight)


def multiclass_hinge_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, margin: float = 1.0,
    variant: str = "crammer_singer", reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the multi-class margin loss of scores; see :class:`MulticlassHingeLoss`."""
    who = "multiclass_hinge_loss"
    check_modes(who, reduction, validate)
    check_number(who, "margin", margin, 0.0, open_low=True)
    check_choice(who, "variant", variant, _VARIANTS)
    check_floating(who, "input", input)
    check_not_empty(who, input, reduction)
    axis = 1 if input.dim() > 1 else 0
    target = check_classes(who, input, target, axis, -1 - input.shape[axis], validate).indices
    if validate == "full":
        check_finite(who, input=input)
    input, index = single(input), target.unsqueeze(axis)
    true = input.gather(axis, index)
    rival = (margin + input - true).scatter(axis, index, 0.0)
    if variant == "crammer_singer":
        loss = rival.amax(axis).clamp_min(0)
    else:
        loss = rival.clamp_min(0).sum(axis)
    return reduce(who, loss, reduction, sample_weight)


@brick(
    "loss", "hinge", public="brickyard.losses", output="scores", target="other",
    summary="How far a score falls short of a margin of 1 on the right side; nothing beyond it.",
    use_when="You want a maximum-margin classifier and need no probabilities.",
    avoid_when="You need calibrated probabilities, or gradients from samples already right.",
    best_for="Linear SVMs, margins on top of frozen features.",
    paper="Cortes & Vapnik 1995, Support-Vector Networks",
    tune_first="the weight decay: it sets the width of the margin",
    cost="One pass over the scores.",
    pairs_with=("sgd", "squared_hinge"),
)  # fmt: skip
class HingeLoss(Loss):
    """Measure how far scores fall short of a margin of 1.

    Math:
        l_i = max(0, 1 - y_i*s_i),  y_i in {-1, +1}

    Args:
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that labels are -1 or +1;
            ``"full"`` also refuses non-finite scores.

    Shape:
        score and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, a label is not -1 or +1, the batch is empty.
        TypeError: score is not floating point.

    Example:
        >>> import torch
        >>> HingeLoss(reduction="none")(torch.tensor([2.0, 0.5, 0.5]), torch.tensor([1, 1, -1]))
        tensor([0.0000, 0.5000, 1.5000])

    Reference:
        Cortes & Vapnik 1995, Support-Vector Networks, section 3.
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, score: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``score`` against ``target``."""
        return hinge_loss(score, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss", "squared_hinge", public="brickyard.losses", output="scores", target="other",
    summary="The square of the hinge: smooth where the margin begins, harder on big violations.",
    use_when="You want a margin and a gradient that grows with the violation.",
    avoid_when="Labels are noisy: a wrong one far from the boundary dominates.",
    best_for="L2-SVM heads on networks.",
    paper="Tang 2013, Deep Learning using Linear Support Vector Machines, eq. 7",
    tune_first="the weight decay: it sets the width of the margin",
    cost="One pass over the scores.",
    pairs_with=("hinge", "sgd"),
)  # fmt: skip
class SquaredHingeLoss(Loss):
    """Measure the square of how far scores fall short of a margin of 1.

    Math:
        l_i = max(0, 1 - y_i*s_i)^2,  y_i in {-1, +1}

    Args:
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that labels are -1 or +1;
            ``"full"`` also refuses non-finite scores.

    Shape:
        score and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, a label is not -1 or +1, the batch is empty.
        TypeError: score is not floating point.

    Example:
        >>> import torch
        >>> SquaredHingeLoss()(torch.tensor([0.5, 0.5]), torch.tensor([1, -1]))
        tensor(1.2500)

    Reference:
        Tang 2013, Deep Learning using Linear Support Vector Machines, eq. 7.
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, score: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``score`` against ``target``."""
        return squared_hinge_loss(score, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss", "multiclass_hinge", public="brickyard.losses", output="scores", target="class indices",
    summary="The true class must beat the best rival, or every rival, by a margin.",
    use_when="Several classes, a margin wanted, no probabilities needed.",
    avoid_when="You need probabilities: take cross_entropy.",
    best_for="Multi-class SVM heads, structured scores.",
    paper="Crammer & Singer 2001; Weston & Watkins 1999",
    tune_first="variant: weston_watkins gives gradients to all violating rivals",
    cost="One pass over the scores.",
    pairs_with=("cross_entropy", "sgd"),
)  # fmt: skip
class MulticlassHingeLoss(Loss):
    """Ask the true class to beat its rivals by a margin.

    Crammer and Singer count the best rival alone; Weston and Watkins sum over all rivals.
    torch's ``MultiMarginLoss`` is the latter divided by the number of classes.

    Math:
        crammer_singer: l_i = max(0, margin + max_{c != y} s_ic - s_iy)
        weston_watkins: l_i = sum_{c != y} max(0, margin + s_ic - s_iy)

    Args:
        margin: lead in units of the score; above 0.
        variant: ``"crammer_singer"`` or ``"weston_watkins"``.
        reduction: ``"mean"`` over the samples (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite scores.

    Shape:
        input ``(C,)`` or ``(N, C, *)``; target integers ``()`` or ``(N, *)``; ``sample_weight``
        ``(N,)`` or ``(N, *)``.

    Raises:
        ValueError: shapes do not match, an index is outside ``[0, C)``, ``margin`` is not above
            0, ``variant`` is unknown, the batch is empty.
        TypeError: the input is not floating point, the target is not integer.

    Example:
        >>> import torch
        >>> scores = torch.tensor([[1.0, 0.5, 0.25]])
        >>> MulticlassHingeLoss()(scores, torch.tensor([0]))
        tensor(0.5000)
        >>> MulticlassHingeLoss(variant="weston_watkins")(scores, torch.tensor([0]))
        tensor(0.7500)

    Reference:
        Crammer & Singer 2001, On the Algorithmic Implementation of Multiclass Kernel-based Vector
        Machines, section 3; Weston & Watkins 1999, Support Vector Machines for Multi-Class
        Pattern Recognition, section 3.
    """

    def __init__(
        self, margin: float = 1.0, variant: Variant = "crammer_singer",
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(reduction, validate)
        check_number("MulticlassHingeLoss", "margin", margin, 0.0, open_low=True)
        check_choice("MulticlassHingeLoss", "variant", variant, _VARIANTS)
        self.margin, self.variant = margin, variant

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return multiclass_hinge_loss(
            input, target, sample_weight, self.margin, self.variant, self.reduction, self.validate
        )
