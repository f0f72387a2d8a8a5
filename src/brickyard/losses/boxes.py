"""Losses between boxes: IoU and its forms that still pull when boxes do not touch."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_modes,
    check_values,
    extremes,
    reduce,
    shape,
)

__all__ = [
    "BoxIoULoss", "CIoULoss", "DIoULoss", "GIoULoss", "box_iou_loss", "ciou_loss", "diou_loss",
    "giou_loss",
]  # fmt: skip


class _Pair(NamedTuple):
    boxes: Tensor
    target: Tensor
    iou: Tensor
    union: Tensor
    hull: Tensor  # width and height of the smallest box around both


def _measure(who: str, boxes: Tensor, target: Tensor, reduction: str, validate: str) -> _Pair:
    """Check two sets of xyxy boxes and measure them pair by pair."""
    check_modes(who, reduction, validate)
    boxes, target = check_values(who, boxes, target, reduction, validate, "boxes and target")
    if boxes.shape[-1:] != (4,):
        raise ValueError(
            f"{who}: boxes must have 4 numbers on the last axis (x1, y1, x2, y2); got shape "
            f"{shape(boxes)}"
        )
    found = extremes(target[..., 2:] - target[..., :2], always=validate == "full")
    if found is not None and not found[0] >= 0:
        raise ValueError(
            f"{who}: target boxes need x1 <= x2 and y1 <= y2; got one of width or height "
            f"{found[0]:g}. Centre and size (cxcywh) or x, y, w, h must be turned into corners"
        )
    inner = torch.minimum(boxes[..., 2:], target[..., 2:])
    inner = (inner - torch.maximum(boxes[..., :2], target[..., :2])).clamp_min(0)
    hull = torch.maximum(boxes[..., 2:], target[..., 2:])
    hull = hull - torch.minimum(boxes[..., :2], target[..., :2])
    shared = inner.prod(-1)
    union = _area(boxes) + _area(target) - shared
    return _Pair(boxes, target, _ratio(shared, union), union, hull)


def _area(boxes: Tensor) -> Tensor:
    return (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).prod(-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    """Return ``part / whole``, and 0 with no gradient where ``whole`` is 0."""
    some = whole > 0
    return torch.where(some, part / torch.where(some, whole, 1), 0)


def _distance(pair: _Pair) -> Tensor:
    """Return the squared distance of the centres over the squared diagonal of the hull."""
    apart = (pair.boxes[..., 2:] + pair.boxes[..., :2]) - (
        pair.target[..., 2:] + pair.target[..., :2]
    )
    return _ratio((apart / 2).square().sum(-1), pair.hull.square().sum(-1))


def _angle(boxes: Tensor) -> Tensor:
    """Return the arc tangent of width over height; 0 for a point."""
    wide, high = (boxes[..., 2:] - boxes[..., :2]).clamp_min(0).unbind(-1)
    point = (wide == 0) & (high == 0)
    return torch.atan2(wide, torch.where(point, 1, high))


def box_iou_loss(
    boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return 1 - IoU of boxes pair by pair; see :class:`BoxIoULoss`."""
    pair = _measure("box_iou_loss", boxes, target, reduction, validate)
    return reduce("box_iou_loss", 1 - pair.iou, reduction, sample_weight)


def giou_loss(
    boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return 1 - generalized IoU pair by pair; see :class:`GIoULoss`."""
    pair = _measure("giou_loss", boxes, target, reduction, validate)
    hull = pair.hull.prod(-1)
    loss = 1 - pair.iou + _ratio(hull - pair.union, hull)
    return reduce("giou_loss", loss, reduction, sample_weight)


def diou_loss(
    boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return 1 - IoU plus the distance of centres; see :class:`DIoULoss`."""
    pair = _measure("diou_loss", boxes, target, reduction, validate)
    return reduce("diou_loss", 1 - pair.iou + _distance(pair), reduction, sample_weight)


def ciou_loss(
    boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return DIoU's loss plus the mismatch of shapes; see :class:`CIoULoss`."""
    pair = _measure("ciou_loss", boxes, target, reduction, validate)
    off = (_angle(pair.target) - _angle(pair.boxes)).square() * (4 / math.pi**2)
    trade = _ratio(off, 1 - pair.iou + off).detach()
    loss = 1 - pair.iou + _distance(pair) + trade * off
    return reduce("ciou_loss", loss, reduction, sample_weight)


@brick(
    "loss", "box_iou", public="brickyard.losses", output="boxes", target="boxes",
    summary="1 minus intersection over union of each box with its target.",
    use_when="Boxes overlap their targets from the start, as when refining proposals.",
    avoid_when="Boxes may not touch: the gradient is 0 there; take giou, diou or ciou.",
    best_for="Refinement stages of detectors.",
    paper="Yu et al. 2016, UnitBox: An Advanced Object Detection Network, section 3",
    tune_first="its weight against the classification loss",
    cost="Negligible beside the network.",
    pairs_with=("binary_focal", "smooth_l1"),
)  # fmt: skip
class BoxIoULoss(Loss):
    """Measure 1 minus intersection over union of boxes.

    A predicted box with corners out of order has area 0. Pairs that do not touch cost 1 and get
    no gradient: the other three losses of this family exist for them.

    Math:
        l_i = 1 - |A & B| / |A | B|

    Args:
        reduction: ``"mean"`` over the pairs (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that target corners are in
            order; ``"full"`` also refuses non-finite coordinates.

    Shape:
        boxes and target ``(*, 4)`` as corners x1, y1, x2, y2; ``sample_weight`` in the shape of
        the pairs or ``(N,)``.

    Raises:
        ValueError: shapes differ or do not end in 4, a target's corners are out of order, there
            is no pair.
        TypeError: boxes or target are not floating point.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0.0, 0.0, 2.0, 2.0]]), torch.tensor([[1.0, 0.0, 3.0, 2.0]])
        >>> BoxIoULoss()(a, b)
        tensor(0.6667)

    Reference:
        Yu et al. 2016, UnitBox, section 3 (there as -log IoU).
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``boxes`` against ``target``, pair by pair."""
        return box_iou_loss(boxes, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss", "giou", public="brickyard.losses", output="boxes", target="boxes",
    summary="IoU loss plus the empty share of the hull, so that boxes apart feel a pull.",
    use_when="Boxes may start without touching their targets.",
    avoid_when="One box lies inside the other: it falls back to IoU there; take diou.",
    best_for="Box regression in detectors such as DETR.",
    paper="Rezatofighi et al. 2019, Generalized Intersection over Union",
    tune_first="its weight against the L1 and classification losses (DETR: 2 to 5 to 1)",
    cost="Negligible beside the network.",
    pairs_with=("mae", "binary_focal"),
)  # fmt: skip
class GIoULoss(Loss):
    """Measure 1 minus generalized IoU: boxes apart are pulled together.

    Ranges from 0 to 2. Where the hull of both boxes is empty its term is 0.

    Math:
        l_i = 1 - IoU + (|C| - |A | B|) / |C|,  C the smallest box around A and B

    Args:
        reduction: ``"mean"`` over the pairs (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that target corners are in
            order; ``"full"`` also refuses non-finite coordinates.

    Shape:
        boxes and target ``(*, 4)`` as corners x1, y1, x2, y2; ``sample_weight`` in the shape of
        the pairs or ``(N,)``.

    Raises:
        ValueError: shapes differ or do not end in 4, a target's corners are out of order, there
            is no pair.
        TypeError: boxes or target are not floating point.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
        >>> GIoULoss()(a, b)
        tensor(1.3333)

    Reference:
        Rezatofighi et al. 2019, Generalized Intersection over Union, algorithm 1 and 2.
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``boxes`` against ``target``, pair by pair."""
        return giou_loss(boxes, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss", "diou", public="brickyard.losses", output="boxes", target="boxes",
    summary="IoU loss plus the squared distance of centres in units of the hull's diagonal.",
    use_when="Boxes start far off or inside each other and giou converges slowly.",
    avoid_when="The aspect ratio matters too: take ciou.",
    best_for="Box regression in one-stage detectors.",
    paper="Zheng et al. 2020, Distance-IoU Loss, eq. 6 and 7",
    tune_first="its weight against the classification loss",
    cost="Negligible beside the network.",
    pairs_with=("binary_focal", "ciou"),
)  # fmt: skip
class DIoULoss(Loss):
    """Measure 1 minus IoU plus the distance between centres.

    Moves boxes straight at their targets; where one box holds the other it still has a pull.

    Math:
        l_i = 1 - IoU + |centre(A) - centre(B)|^2 / diagonal(C)^2

    Args:
        reduction: ``"mean"`` over the pairs (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that target corners are in
            order; ``"full"`` also refuses non-finite coordinates.

    Shape:
        boxes and target ``(*, 4)`` as corners x1, y1, x2, y2; ``sample_weight`` in the shape of
        the pairs or ``(N,)``.

    Raises:
        ValueError: shapes differ or do not end in 4, a target's corners are out of order, there
            is no pair.
        TypeError: boxes or target are not floating point.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([[2.0, 0.0, 3.0, 1.0]])
        >>> DIoULoss()(a, b)
        tensor(1.4000)

    Reference:
        Zheng et al. 2020, Distance-IoU Loss, eq. 6 and 7.
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``boxes`` against ``target``, pair by pair."""
        return diou_loss(boxes, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss", "ciou", public="brickyard.losses", output="boxes", target="boxes",
    summary="DIoU plus a term for the difference in aspect ratio.",
    use_when="Box regression in general; it includes what iou and diou look at.",
    avoid_when="Boxes may be degenerate, or objects have no typical aspect ratio.",
    best_for="YOLO-style detectors.",
    paper="Zheng et al. 2020, Distance-IoU Loss, eq. 8 to 11",
    tune_first="its weight against the classification loss",
    cost="Negligible beside the network.",
    pairs_with=("binary_focal", "diou"),
)  # fmt: skip
class CIoULoss(Loss):
    """Measure 1 minus IoU plus distance of centres and mismatch of shape.

    The trade-off ``a`` gets no gradient, as in the paper. The angle's gradient is exact; the
    authors' code drops its factor 1 / (w^2 + h^2).

    Math:
        v = 4/pi^2 * (atan(w_B/h_B) - atan(w_A/h_A))^2;  a = v / (1 - IoU + v)
        l_i = 1 - IoU + |centre(A) - centre(B)|^2 / diagonal(C)^2 + a*v

    Args:
        reduction: ``"mean"`` over the pairs (weighted when ``sample_weight`` is given), ``"sum"``,
            or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, that target corners are in
            order; ``"full"`` also refuses non-finite coordinates.

    Shape:
        boxes and target ``(*, 4)`` as corners x1, y1, x2, y2; ``sample_weight`` in the shape of
        the pairs or ``(N,)``.

    Raises:
        ValueError: shapes differ or do not end in 4, a target's corners are out of order, there
            is no pair.
        TypeError: boxes or target are not floating point.

    Example:
        >>> import torch
        >>> a, b = torch.tensor([[0.0, 0.0, 2.0, 1.0]]), torch.tensor([[0.0, 0.0, 1.0, 2.0]])
        >>> CIoULoss()(a, b)
        tensor(0.7629)

    Reference:
        Zheng et al. 2020, Distance-IoU Loss, eq. 8 to 11.
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, boxes: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``boxes`` against ``target``, pair by pair."""
        return ciou_loss(boxes, target, sample_weight, self.reduction, self.validate)
