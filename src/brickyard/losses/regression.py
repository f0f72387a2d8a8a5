"""Losses between predicted and true real values."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Reduction,
    Validate,
    check_finite,
    check_floating,
    check_modes,
    check_not_empty,
    check_number,
    check_same_shape,
    reduce,
    single,
)

__all__ = [
    "HuberLoss", "L1Loss", "MSELoss", "SmoothL1Loss", "huber_loss", "l1_loss", "mse_loss",
    "smooth_l1_loss",
]  # fmt: skip


def _door(
    who: str, input: Tensor, target: Tensor, reduction: str, validate: str
) -> tuple[Tensor, Tensor]:
    """Check a pair of value tensors and return both in the precision to compute in."""
    check_floating(who, "input", input)
    if not target.is_floating_point():
        raise TypeError(
            f"{who}: target must be floating point, as values are; got {target.dtype}. For class "
            f"indices take cross_entropy; for values pass target.float()"
        )
    check_same_shape(who, input, target)
    check_not_empty(who, input, reduction)
    if validate == "full":
        check_finite(who, input=input, target=target)
    input = single(input)
    return input, target.to(input.dtype)


def mse_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the squared error; see :class:`MSELoss`."""
    check_modes("mse_loss", reduction, validate)
    input, target = _door("mse_loss", input, target, reduction, validate)
    if sample_weight is None:
        return F.mse_loss(input, target, reduction=reduction)
    loss = F.mse_loss(input, target, reduction="none")
    return reduce("mse_loss", loss, reduction, sample_weight)


def l1_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the absolute error; see :class:`L1Loss`."""
    check_modes("l1_loss", reduction, validate)
    input, target = _door("l1_loss", input, target, reduction, validate)
    if sample_weight is None:
        return F.l1_loss(input, target, reduction=reduction)
    loss = F.l1_loss(input, target, reduction="none")
    return reduce("l1_loss", loss, reduction, sample_weight)


def huber_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, delta: float = 1.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return Huber's error, quadratic then linear; see :class:`HuberLoss`."""
    check_modes("huber_loss", reduction, validate)
    check_number("huber_loss", "delta", delta, 0.0, open_low=True)
    input, target = _door("huber_loss", input, target, reduction, validate)
    if sample_weight is None:
        return F.huber_loss(input, target, reduction=reduction, delta=delta)
    loss = F.huber_loss(input, target, reduction="none", delta=delta)
    return reduce("huber_loss", loss, reduction, sample_weight)


def smooth_l1_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, beta: float = 1.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the absolute error with a rounded tip; see :class:`SmoothL1Loss`."""
    check_modes("smooth_l1_loss", reduction, validate)
    check_number("smooth_l1_loss", "beta", beta, 0.0)
    input, target = _door("smooth_l1_loss", input, target, reduction, validate)
    if sample_weight is None:
        return F.smooth_l1_loss(input, target, reduction=reduction, beta=beta)
    loss = F.smooth_l1_loss(input, target, reduction="none", beta=beta)
    return reduce("smooth_l1_loss", loss, reduction, sample_weight)


@brick(
    "loss",
    "mse",
    public="brickyard.losses",
    output="values",
    target="values",
    summary="Squared difference of prediction and target; its best constant answer is the mean.",
    use_when="The target is a real number, its noise is roughly normal, and big misses are costly.",
    avoid_when="Outliers or heavy tails: one error of 100 weighs as much as ten thousand of 1.",
    best_for="Regression on standardized targets, autoencoders, denoising, diffusion.",
    paper="Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 2.4",
    tune_first="nothing in the loss; standardize the target so that its scale fits the rate",
    cost="One pass over the predictions.",
    pairs_with=("adam", "adamw"),
)
class MSELoss(nn.MSELoss):
    """Measure the squared error of real-valued predictions.

    torch's class with a door: shapes must be equal. ``nn.MSELoss`` lets ``(N, 1)`` against
    ``(N,)`` broadcast to ``(N, N)`` with a warning, and then trains towards the mean of all
    targets. Half precision is computed, and returned, in fp32.

    Math:
        l_i = (x_i - y_i)^2

    Args:
        size_average: deprecated in torch, kept for its signature.
        reduce: deprecated in torch, kept for its signature.
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        input and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, the batch is empty, a weight is negative.
        TypeError: input or target is not floating point.

    Example:
        >>> import torch
        >>> MSELoss()(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
        tensor(2.5000)

    Reference:
        Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, eq. 2.9.
    """

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        check_modes("MSELoss", self.reduction, validate)
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return mse_loss(input, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss",
    "mae",
    aliases=("l1",),
    public="brickyard.losses",
    output="values",
    target="values",
    summary="Absolute difference of prediction and target; its best constant answer is the median.",
    use_when="Outliers should count by their size and no more, or the median is what you report.",
    avoid_when="You need small errors to fade out smoothly: the gradient stays 1 up to the target.",
    best_for="Regression with noisy labels, image restoration, forecasts scored in units of error.",
    paper="Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 2.4",
    tune_first="nothing in the loss; let the rate decay, or the last steps jump around the target",
    cost="One pass over the predictions.",
    pairs_with=("adam", "adamw"),
)
class L1Loss(nn.L1Loss):
    """Measure the absolute error of real-valued predictions.

    torch's class with a door: shapes must be equal, nothing broadcasts. Half precision is
    computed, and returned, in fp32.

    Math:
        l_i = |x_i - y_i|

    Args:
        size_average: deprecated in torch, kept for its signature.
        reduce: deprecated in torch, kept for its signature.
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        input and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, the batch is empty, a weight is negative.
        TypeError: input or target is not floating point.

    Example:
        >>> import torch
        >>> L1Loss()(torch.tensor([1.0, 2.0]), torch.tensor([0.0, 4.0]))
        tensor(1.5000)

    Reference:
        Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, eq. 2.18.
    """

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None,
        reduction: Reduction = "mean", validate: Validate = "cheap",
    ):  # fmt: skip
        super().__init__(size_average, reduce, reduction)
        check_modes("L1Loss", self.reduction, validate)
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return l1_loss(input, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss",
    "huber",
    public="brickyard.losses",
    output="values",
    target="values",
    summary="Squared error up to delta, then linear: smooth at zero and calm about outliers.",
    use_when="Errors are mostly small with a few large ones that must not dominate.",
    avoid_when="Large errors are exactly what you must avoid, or the target's scale is unknown.",
    best_for="Robust regression; value and Q networks.",
    paper="Huber 1964, Robust Estimation of a Location Parameter",
    tune_first="delta: the error, in units of the target, from which a miss counts as an outlier",
    cost="One pass over the predictions.",
    pairs_with=("adam", "adamw"),
)
class HuberLoss(nn.HuberLoss):
    """Measure errors quadratically up to ``delta`` and linearly beyond.

    torch's class with a door: shapes must be equal, nothing broadcasts. The gradient is bounded
    by ``delta``. ``SmoothL1Loss(beta)`` is this loss divided by ``beta``.

    Math:
        l_i = 0.5*(x_i - y_i)^2                 if |x_i - y_i| <= delta
            = delta*(|x_i - y_i| - 0.5*delta)   otherwise

    Args:
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        delta: error from which the loss is linear, in units of the target; above 0.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        input and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, the batch is empty, a weight is negative, ``delta`` is not
            above 0.
        TypeError: input or target is not floating point.

    Example:
        >>> import torch
        >>> HuberLoss(delta=1.0)(torch.tensor([0.5, 3.0]), torch.tensor([0.0, 0.0]))
        tensor(1.3125)

    Reference:
        Huber 1964, Robust Estimation of a Location Parameter, Annals of Mathematical Statistics.
    """

    def __init__(
        self, reduction: Reduction = "mean", delta: float = 1.0, validate: Validate = "cheap"
    ):
        check_number("HuberLoss", "delta", delta, 0.0, open_low=True)
        super().__init__(reduction, delta)
        check_modes("HuberLoss", self.reduction, validate)
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return huber_loss(input, target, sample_weight, self.delta, self.reduction, self.validate)


@brick(
    "loss",
    "smooth_l1",
    public="brickyard.losses",
    output="values",
    target="values",
    summary="Absolute error with a quadratic tip of width beta: Huber divided by its threshold.",
    use_when="You want MAE's constant slope whatever beta is, as in box regression.",
    avoid_when="You compare results across values of delta in Huber's form: the scale differs.",
    best_for="Box offsets in detectors.",
    paper="Girshick 2015, Fast R-CNN, eq. 3",
    tune_first="beta: the error below which the loss is quadratic; detectors use 1/9 to 1",
    cost="One pass over the predictions.",
    pairs_with=("huber", "sgd"),
)
class SmoothL1Loss(nn.SmoothL1Loss):
    """Measure the absolute error with a quadratic tip.

    torch's class with a door: shapes must be equal, nothing broadcasts. The slope beyond
    ``beta`` is 1 for every ``beta``; Huber's is ``delta``.

    Math:
        l_i = 0.5*(x_i - y_i)^2 / beta   if |x_i - y_i| < beta
            = |x_i - y_i| - 0.5*beta     otherwise

    Args:
        size_average: deprecated in torch, kept for its signature.
        reduce: deprecated in torch, kept for its signature.
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        beta: error from which the loss is linear, in units of the target; 0 gives L1.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        input and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, the batch is empty, a weight is negative, ``beta`` is negative.
        TypeError: input or target is not floating point.

    Example:
        >>> import torch
        >>> SmoothL1Loss(beta=0.5)(torch.tensor([0.25, 3.0]), torch.tensor([0.0, 0.0]))
        tensor(1.4062)

    Reference:
        Girshick 2015, Fast R-CNN, eq. 3 (with beta = 1).
    """

    def __init__(
        self, size_average: bool | None = None, reduce: bool | None = None,
        reduction: Reduction = "mean", beta: float = 1.0, validate: Validate = "cheap",
    ):  # fmt: skip
        check_number("SmoothL1Loss", "beta", beta, 0.0)
        super().__init__(size_average, reduce, reduction, beta)
        check_modes("SmoothL1Loss", self.reduction, validate)
        self.validate: Validate = validate

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return smooth_l1_loss(
            input, target, sample_weight, self.beta, self.reduction, self.validate
        )
