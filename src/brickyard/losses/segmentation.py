"""Losses that measure overlap of masks: Dice, IoU, Tversky and its focal form."""

from __future__ import annotations

from typing import Literal, Unpack

from torch import Tensor

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    Weights,
    check_choice,
    check_class_weight,
    check_number,
)
from brickyard.losses._overlap import MODES, Overlap, overlap_loss

__all__ = [
    "DiceLoss", "FocalTverskyLoss", "IoULoss", "TverskyLoss", "dice_loss", "focal_tversky_loss",
    "iou_loss", "tversky_loss",
]  # fmt: skip

Mode = Literal["binary", "multiclass", "multilabel"]


def dice_loss(
    input: Tensor, target: Tensor, mode: str = "binary", **options: Unpack[Overlap]
) -> Tensor:
    """Return 1 minus the Dice coefficient; see :class:`DiceLoss`."""
    options["smooth"] = options.get("smooth", 0.0) / 2  # 2*hit/size is hit/(size/2)
    return overlap_loss("dice_loss", input, target, mode, (0.5, 0.5, 1.0), options)


def iou_loss(
    input: Tensor, target: Tensor, mode: str = "binary", **options: Unpack[Overlap]
) -> Tensor:
    """Return 1 minus intersection over union; see :class:`IoULoss`."""
    return overlap_loss("iou_loss", input, target, mode, (1.0, 1.0, 1.0), options)


def tversky_loss(
    input: Tensor, target: Tensor, mode: str = "binary", alpha: float = 0.5, beta: float = 0.5,
    **options: Unpack[Overlap],
) -> Tensor:  # fmt: skip
    """Return 1 minus the Tversky index; see :class:`TverskyLoss`."""
    _check_prices("tversky_loss", alpha, beta)
    return overlap_loss("tversky_loss", input, target, mode, (alpha, beta, 1.0), options)


def focal_tversky_loss(
    input: Tensor, target: Tensor, mode: str = "binary", alpha: float = 0.3, beta: float = 0.7,
    gamma: float = 4 / 3, **options: Unpack[Overlap],
) -> Tensor:  # fmt: skip
    """Return the Tversky loss to the power ``1 / gamma``; see :class:`FocalTverskyLoss`."""
    _check_prices("focal_tversky_loss", alpha, beta)
    check_number("focal_tversky_loss", "gamma", gamma, 0.0, open_low=True)
    prices = (alpha, beta, 1 / gamma)
    return overlap_loss("focal_tversky_loss", input, target, mode, prices, options)


def _check_prices(who: str, alpha: float, beta: float) -> None:
    check_number(who, "alpha", alpha, 0.0)
    check_number(who, "beta", beta, 0.0)
    if alpha + beta == 0:
        raise ValueError(f"{who}: alpha and beta cannot both be 0: no error would cost anything")


class _OverlapLoss(Loss):
    """Hold the options that all overlap losses share."""

    weight: Tensor | None

    def __init__(
        self, mode: str, smooth: float, from_logits: bool, weight: Weights,
        ignore_index: int | None, reduction: str, validate: Validate,
    ):  # fmt: skip
        super().__init__(reduction, validate)
        who = type(self).__name__
        check_choice(who, "mode", mode, MODES)
        check_number(who, "smooth", smooth, 0.0)
        self.mode, self.smooth, self.from_logits = mode, smooth, from_logits
        self.ignore_index = ignore_index
        self.register_buffer("weight", check_class_weight(who, weight))

    def _options(self, sample_weight: Tensor | None) -> Overlap:
        return Overlap(
            sample_weight=sample_weight, smooth=self.smooth, from_logits=self.from_logits,
            weight=self.weight, ignore_index=self.ignore_index, reduction=self.reduction,
            validate=self.validate,
        )  # fmt: skip


@brick(
    "loss", "dice", public="brickyard.losses", output="logits", target="masks",
    summary="1 minus the Dice coefficient (F1) of soft masks: overlap, whatever the mask's size.",
    use_when="Class imbalance in segmentation: the object covers few pixels of the image.",
    avoid_when="Batches often hold no object (no gradient at smooth=0), or masks are noisy.",
    best_for="Medical and binary segmentation, summed with cross-entropy.",
    paper="Milletari et al. 2016, V-Net, section 3",
    tune_first="the weight of the cross-entropy added to it; smooth=1 if masks are often empty",
    cost="About the time of cross-entropy on the same logits.",
    pairs_with=("cross_entropy", "bce", "focal"),
)  # fmt: skip
class DiceLoss(_OverlapLoss):
    """Measure 1 minus the Dice coefficient of soft masks.

    Counts are summed over the batch and all pixels, per class, with p in the first power in the
    denominator (V-Net squares it). A class that neither prediction nor target holds contributes
    0; one that the target alone lacks contributes 1 with no gradient at ``smooth=0``, and pushes
    its prediction down at ``smooth > 0``.

    Math:
        l_c = 1 - (2*sum(p_c*t_c) + smooth) / (sum(p_c) + sum(t_c) + smooth)

    Args:
        mode: ``"binary"`` (one mask), ``"multiclass"`` (softmax over axis 1) or ``"multilabel"``
            (a mask per channel, axis 1).
        smooth: added once to numerator and denominator, in pixels; at least 0.
        from_logits: True for raw outputs, False for probabilities.
        weight: one factor per class in the mean.
        ignore_index: pixels with this target count nowhere; None keeps all.
        reduction: ``"mean"`` or ``"sum"`` over the classes, or ``"none"``.
        validate: ``"cheap"`` checks shapes, dtypes and, on the CPU, the range of targets;
            ``"full"`` also refuses non-finite values and logits that are probabilities.

    Shape:
        binary: input and target ``(N, *)``; multilabel: both ``(N, C, *)``; multiclass: input
        ``(N, C, *)``, target integers ``(N, *)`` or probabilities ``(N, C, *)``.
        sample_weight: ``(N,)``, or one weight per pixel: ``(N, *)``, for multilabel
        ``(N, C, *)``. It multiplies each pixel's part of all counts, so a weight of 0 leaves the
        pixel out, and doubling all weights changes nothing at ``smooth=0``.

    Raises:
        ValueError: shapes do not match, targets are out of range, an option is unknown.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
        >>> DiceLoss(from_logits=False)(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), mask)
        tensor(0.3333)

    Reference:
        Milletari et al. 2016, V-Net, section 3; Sudre et al. 2017, Generalised Dice, section 2.
    """

    def __init__(
        self, mode: Mode = "binary", smooth: float = 0.0, from_logits: bool = True,
        weight: Weights = None, ignore_index: int | None = None, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(mode, smooth, from_logits, weight, ignore_index, reduction, validate)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return dice_loss(input, target, self.mode, **self._options(sample_weight))


@brick(
    "loss", "iou", aliases=("jaccard",), public="brickyard.losses", output="logits",
    target="masks",
    summary="1 minus intersection over union of soft masks.",
    use_when="You report IoU and want to train on its soft form.",
    avoid_when="As for dice: empty masks give no gradient at smooth=0.",
    best_for="Segmentation scored by mean IoU, summed with cross-entropy.",
    paper="Rahman & Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks",
    tune_first="the weight of the cross-entropy added to it",
    cost="As dice.",
    pairs_with=("cross_entropy", "dice"),
)  # fmt: skip
class IoULoss(_OverlapLoss):
    """Measure 1 minus intersection over union of soft masks.

    Counts as in :class:`DiceLoss`. It orders predictions as Dice does (IoU = D / (2 - D)) and
    punishes a bad overlap more.

    Math:
        h = sum(p_c*t_c);  l_c = 1 - (h + smooth) / (sum(p_c) + sum(t_c) - h + smooth)

    Args:
        mode: ``"binary"`` (one mask), ``"multiclass"`` (softmax over axis 1) or ``"multilabel"``
            (a mask per channel, axis 1).
        smooth: added once to numerator and denominator, in pixels; at least 0.
        from_logits: True for raw outputs, False for probabilities.
        weight: one factor per class in the mean.
        ignore_index: pixels with this target count nowhere; None keeps all.
        reduction: ``"mean"`` or ``"sum"`` over the classes, or ``"none"``.
        validate: ``"cheap"`` or ``"full"``, as in :class:`DiceLoss`.

    Shape:
        as :class:`DiceLoss`.

    Raises:
        ValueError: shapes do not match, targets are out of range, an option is unknown.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> mask = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
        >>> IoULoss(from_logits=False)(torch.tensor([[1.0, 0.0, 0.0, 0.0]]), mask)
        tensor(0.5000)

    Reference:
        Rahman & Wang 2016, Optimizing Intersection-Over-Union in Deep Neural Networks, eq. 3-5.
    """

    def __init__(
        self, mode: Mode = "binary", smooth: float = 0.0, from_logits: bool = True,
        weight: Weights = None, ignore_index: int | None = None, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(mode, smooth, from_logits, weight, ignore_index, reduction, validate)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return iou_loss(input, target, self.mode, **self._options(sample_weight))


@brick(
    "loss", "tversky", public="brickyard.losses", output="logits", target="masks",
    summary="Dice with separate prices for false positives (alpha) and false negatives (beta).",
    use_when="Class imbalance in segmentation where a missed pixel is worse than a false alarm.",
    avoid_when="Both errors cost the same: that is dice, with one option less.",
    best_for="Lesions and other small structures that must not be missed.",
    paper="Salehi et al. 2017, Tversky loss function for image segmentation, eq. 3",
    tune_first="beta (the paper's best: alpha 0.3, beta 0.7)",
    cost="As dice.",
    pairs_with=("dice", "focal_tversky", "cross_entropy"),
)  # fmt: skip
class TverskyLoss(_OverlapLoss):
    """Measure 1 minus the Tversky index of soft masks.

    ``alpha = beta = 0.5`` is Dice, ``alpha = beta = 1`` is IoU. ``alpha`` prices false
    positives, as in the paper (``keras.losses.Tversky`` swaps the two against its own text).

    Math:
        h = sum(p*t);  fp = sum(p*(1-t));  fn = sum((1-p)*t)
        l_c = 1 - (h + smooth) / (h + alpha*fp + beta*fn + smooth)

    Args:
        mode: ``"binary"`` (one mask), ``"multiclass"`` (softmax over axis 1) or ``"multilabel"``
            (a mask per channel, axis 1).
        alpha: price of a false positive; at least 0.
        beta: price of a false negative; at least 0.
        smooth: added once to numerator and denominator, in pixels; at least 0.
        from_logits: True for raw outputs, False for probabilities.
        weight: one factor per class in the mean.
        ignore_index: pixels with this target count nowhere; None keeps all.
        reduction: ``"mean"`` or ``"sum"`` over the classes, or ``"none"``.
        validate: ``"cheap"`` or ``"full"``, as in :class:`DiceLoss`.

    Shape:
        as :class:`DiceLoss`.

    Raises:
        ValueError: shapes do not match, targets are out of range, an option is out of range.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> missed, mask = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
        >>> TverskyLoss(alpha=0.3, beta=0.7, from_logits=False)(missed, mask)
        tensor(0.4118)

    Reference:
        Salehi et al. 2017, Tversky loss function for image segmentation using 3D fully
        convolutional deep networks, eq. 3.
    """

    def __init__(
        self, mode: Mode = "binary", alpha: float = 0.5, beta: float = 0.5, smooth: float = 0.0,
        from_logits: bool = True, weight: Weights = None, ignore_index: int | None = None,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(mode, smooth, from_logits, weight, ignore_index, reduction, validate)
        _check_prices("TverskyLoss", alpha, beta)
        self.alpha, self.beta = alpha, beta

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return tversky_loss(
            input, target, self.mode, self.alpha, self.beta, **self._options(sample_weight)
        )


@brick(
    "loss", "focal_tversky", public="brickyard.losses", output="logits", target="masks",
    summary="The Tversky loss to the power 1/gamma: classes that overlap badly count more.",
    use_when="Class imbalance in segmentation with small structures, late in training too.",
    avoid_when="You need a bounded gradient near perfect overlap: the power steepens it.",
    best_for="Small lesions, several classes of very different size.",
    paper="Abraham & Khan 2019, A Novel Focal Tversky Loss Function, eq. 3",
    tune_first="gamma (1 is Tversky; the paper uses 4/3), then beta",
    cost="As dice.",
    pairs_with=("tversky", "cross_entropy"),
)  # fmt: skip
class FocalTverskyLoss(_OverlapLoss):
    """Raise the Tversky loss of each class to the power ``1 / gamma``.

    The paper's form; others raise it to ``gamma`` itself, so invert the number when you compare.
    Its alpha weighs false negatives: here, as in :class:`TverskyLoss`, ``beta`` does.

    Math:
        l_c = (1 - TverskyIndex_c)^(1/gamma)

    Args:
        mode: ``"binary"`` (one mask), ``"multiclass"`` (softmax over axis 1) or ``"multilabel"``
            (a mask per channel, axis 1).
        alpha: price of a false positive; at least 0.
        beta: price of a false negative; at least 0.
        gamma: above 0; the paper searches 1 to 3.
        smooth: added once to numerator and denominator, in pixels; at least 0.
        from_logits: True for raw outputs, False for probabilities.
        weight: one factor per class in the mean.
        ignore_index: pixels with this target count nowhere; None keeps all.
        reduction: ``"mean"`` or ``"sum"`` over the classes, or ``"none"``.
        validate: ``"cheap"`` or ``"full"``, as in :class:`DiceLoss`.

    Shape:
        as :class:`DiceLoss`.

    Raises:
        ValueError: shapes do not match, targets are out of range, an option is out of range.
        TypeError: the input is not floating point.

    Example:
        >>> import torch
        >>> missed, mask = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
        >>> FocalTverskyLoss(from_logits=False)(missed, mask)  # 0.4118 ** 0.75
        tensor(0.5140)

    Reference:
        Abraham & Khan 2019, A Novel Focal Tversky Loss Function with Improved Attention U-Net
        for Lesion Segmentation, eq. 3.
    """

    def __init__(
        self, mode: Mode = "binary", alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3,
        smooth: float = 0.0, from_logits: bool = True, weight: Weights = None,
        ignore_index: int | None = None, reduction: Reduction = "mean",
        validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(mode, smooth, from_logits, weight, ignore_index, reduction, validate)
        _check_prices("FocalTverskyLoss", alpha, beta)
        check_number("FocalTverskyLoss", "gamma", gamma, 0.0, open_low=True)
        self.alpha, self.beta, self.gamma = alpha, beta, gamma

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return focal_tversky_loss(
            input,
            target,
            self.mode,
            self.alpha,
            self.beta,
            self.gamma,
            **self._options(sample_weight),
        )
