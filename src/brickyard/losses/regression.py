"""Losses between predicted and true real values."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Reduction,
    Validate,
    check_modes,
    check_values,
    reduce,
)

__all__ = ["L1Loss", "MSELoss", "l1_loss", "mse_loss"]


def mse_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the squared error; see :class:`MSELoss`."""
    check_modes("mse_loss", reduction, validate)
    input, target = check_values("mse_loss", input, target, reduction, validate)
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
    input, target = check_values("l1_loss", input, target, reduction, validate)
    if sample_weight is None:
        return F.l1_loss(input, target, reduction=reduction)
    loss = F.l1_loss(input, target, reduction="none")
    return reduce("l1_loss", loss, reduction, sample_weight)


@brick(
    "loss", "mse", public="brickyard.losses", output="values", target="values",
    summary="Squared difference of prediction and target; its best constant answer is the mean.",
    use_when="The target is a real number, its noise is roughly normal, and big misses are costly.",
    avoid_when="Outliers or heavy tails: one error of 100 weighs as much as ten thousand of 1.",
    best_for="Regression on standardized targets, autoencoders, denoising, diffusion.",
    paper="Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 2.4",
    tune_first="nothing in the loss; standardize the target so that its scale fits the rate",
    cost="One pass over the predictions.",
    pairs_with=("adam", "adamw"),
)  # fmt: skip
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
    "loss", "mae", aliases=("l1",), public="brickyard.losses", output="values", target="values",
    summary="Absolute difference of prediction and target; its best constant answer is the median.",
    use_when="Outliers should count by their size and no more, or the median is what you report.",
    avoid_when="You need small errors to fade out smoothly: the gradient stays 1 up to the target.",
    best_for="Regression with noisy labels, image restoration, forecasts scored in units of error.",
    paper="Hastie, Tibshirani & Friedman 2009, The Elements of Statistical Learning, section 2.4",
    tune_first="nothing in the loss; let the rate decay, or the last steps jump around the target",
    cost="One pass over the predictions.",
    pairs_with=("adam", "adamw"),
)  # fmt: skip
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
