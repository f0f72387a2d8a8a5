"""Regression losses that a few large errors cannot dominate, or that lean to one side."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.losses._contracts import (
    Loss,
    Reduction,
    Validate,
    check_modes,
    check_number,
    check_values,
    reduce,
)

__all__ = [
    "HuberLoss", "LogCoshLoss", "QuantileLoss", "SmoothL1Loss", "huber_loss", "log_cosh_loss",
    "quantile_loss", "smooth_l1_loss",
]  # fmt: skip


def huber_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, delta: float = 1.0,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return Huber's error, quadratic then linear; see :class:`HuberLoss`."""
    check_modes("huber_loss", reduction, validate)
    check_number("huber_loss", "delta", delta, 0.0, open_low=True)
    input, target = check_values("huber_loss", input, target, reduction, validate)
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
    input, target = check_values("smooth_l1_loss", input, target, reduction, validate)
    if sample_weight is None:
        return F.smooth_l1_loss(input, target, reduction=reduction, beta=beta)
    loss = F.smooth_l1_loss(input, target, reduction="none", beta=beta)
    return reduce("smooth_l1_loss", loss, reduction, sample_weight)


def log_cosh_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the log of the hyperbolic cosine of the error; see :class:`LogCoshLoss`."""
    check_modes("log_cosh_loss", reduction, validate)
    input, target = check_values("log_cosh_loss", input, target, reduction, validate)
    loss = _LogCosh.apply(input - target)
    return reduce("log_cosh_loss", loss, reduction, sample_weight)


class _LogCosh(torch.autograd.Function):
    """Compute log(cosh(x)) to full relative precision; its derivative is tanh."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        size = x.abs()
        near = torch.sinh(size.clamp(max=1.0) / 2).square().mul(2).log1p()
        far = size + torch.exp(-2 * size).log1p() - math.log(2)
        return torch.where(size < 1, near, far)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * torch.tanh(ctx.saved_tensors[0])


def quantile_loss(
    input: Tensor, target: Tensor, sample_weight: Tensor | None = None, q: float = 0.5,
    reduction: str = "mean", validate: Validate = "cheap",
) -> Tensor:  # fmt: skip
    """Return the pinball loss of the ``q`` quantile; see :class:`QuantileLoss`."""
    check_modes("quantile_loss", reduction, validate)
    check_quantile("quantile_loss", q)
    input, target = check_values("quantile_loss", input, target, reduction, validate)
    error = target - input
    loss = torch.maximum(q * error, (q - 1) * error)
    return reduce("quantile_loss", loss, reduction, sample_weight)


def check_quantile(who: str, q: float) -> None:
    """Refuse a quantile outside the open interval (0, 1)."""
    if not 0 < q < 1:
        raise ValueError(f"{who}: q must lie strictly between 0 and 1; got {q}")


@brick(
    "loss", "huber", public="brickyard.losses", output="values", target="values",
    summary="Squared error up to delta, then linear: smooth at zero and calm about outliers.",
    use_when="Errors are mostly small with a few large ones that must not dominate.",
    avoid_when="Large errors are exactly what you must avoid, or the target's scale is unknown.",
    best_for="Robust regression; value and Q networks.",
    paper="Huber 1964, Robust Estimation of a Location Parameter",
    tune_first="delta: the error, in units of the target, from which a miss counts as an outlier",
    cost="One pass over the predictions.",
    pairs_with=("adam", "adamw"),
)  # fmt: skip
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
    "loss", "smooth_l1", public="brickyard.losses", output="values", target="values",
    summary="Absolute error with a quadratic tip of width beta: Huber divided by its threshold.",
    use_when="You want MAE's constant slope whatever beta is, as in box regression.",
    avoid_when="You compare results across values of delta in Huber's form: the scale differs.",
    best_for="Box offsets in detectors.",
    paper="Girshick 2015, Fast R-CNN, eq. 3",
    tune_first="beta: the error below which the loss is quadratic; detectors use 1/9 to 1",
    cost="One pass over the predictions.",
    pairs_with=("huber", "sgd"),
)  # fmt: skip
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


@brick(
    "loss", "log_cosh", public="brickyard.losses", output="values", target="values",
    summary="Half the squared error near zero, the absolute error far out, smooth everywhere.",
    use_when="You want Huber's calm about outliers with all derivatives continuous, and no option.",
    avoid_when="The scale of an outlier must be set: the bend is at an error of about 1.",
    best_for="Regression on standardized targets with second-order or quasi-Newton optimizers.",
    paper="Saleh & Saleh 2022, Statistical Properties of the log-cosh Loss Function",
    tune_first="nothing in the loss; the scale of the target decides where it bends",
    cost="A few passes over the predictions; the backward is one tanh.",
    pairs_with=("huber",),
)  # fmt: skip
class LogCoshLoss(Loss):
    """Measure the log of the hyperbolic cosine of the error.

    Exact for errors of any size: log(cosh(1e-4)) is 5e-9 and log(cosh(1e4)) is 1e4 - ln 2, in
    fp32 too, where the formula typed in gives 0 and infinity.

    Math:
        l_i = log(cosh(x_i - y_i)) = |e| + log(1 + exp(-2|e|)) - log 2

    Args:
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
        >>> LogCoshLoss(reduction="none")(torch.tensor([1e-4, 1e4]), torch.zeros(2))
        tensor([5.0000e-09, 9.9993e+03])

    Reference:
        Saleh & Saleh 2022, Statistical Properties of the log-cosh Loss Function Used in Machine
        Learning.
    """

    def __init__(self, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return log_cosh_loss(input, target, sample_weight, self.reduction, self.validate)


@brick(
    "loss", "quantile", aliases=("pinball",), public="brickyard.losses", output="values",
    target="values",
    summary="Absolute error with different prices for too low and too high: learns a quantile.",
    use_when="Being short costs more than being over, or you want a prediction interval.",
    avoid_when="You want the mean. Quantiles fitted apart may also cross.",
    best_for="Demand, load and delay forecasts; intervals from two heads, q = 0.05 and 0.95.",
    paper="Koenker & Bassett 1978, Regression Quantiles",
    tune_first="q: the share of targets that shall lie below the prediction",
    cost="A few passes over the predictions.",
    pairs_with=("mae", "adam"),
)  # fmt: skip
class QuantileLoss(Loss):
    """Price errors by their sign, so that the best answer is the ``q`` quantile.

    An error upwards (prediction below the target) costs ``q`` per unit, one downwards ``1 - q``.
    ``q=0.5`` is half the absolute error.

    Math:
        e_i = y_i - x_i;  l_i = max(q*e_i, (q - 1)*e_i)

    Args:
        q: quantile to learn, strictly between 0 and 1.
        reduction: ``"mean"`` over all elements (weighted when ``sample_weight`` is given),
            ``"sum"``, or ``"none"``.
        validate: ``"cheap"`` checks shapes and dtypes; ``"full"`` refuses non-finite values too.

    Shape:
        input and target ``(*)``; ``sample_weight`` ``(N,)`` or ``(*)``.

    Raises:
        ValueError: shapes differ, the batch is empty, a weight is negative, ``q`` is not in (0, 1).
        TypeError: input or target is not floating point.

    Example:
        >>> import torch
        >>> QuantileLoss(q=0.9)(torch.tensor([0.0, 0.0]), torch.tensor([1.0, -1.0]))
        tensor(0.5000)

    Reference:
        Koenker & Bassett 1978, Regression Quantiles, Econometrica 46, section 3.
    """

    def __init__(self, q: float = 0.5, reduction: Reduction = "mean", validate: Validate = "cheap"):
        super().__init__(reduction, validate)
        check_quantile("QuantileLoss", q)
        self.q = q

    def forward(self, input: Tensor, target: Tensor, sample_weight: Tensor | None = None) -> Tensor:
        """Return the loss of ``input`` against ``target``."""
        return quantile_loss(input, target, sample_weight, self.q, self.reduction, self.validate)
