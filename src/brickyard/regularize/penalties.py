"""Penalties on weights: terms of the loss that make large weights cost something."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.regularize._weights import Named, Where, choose, vector_norm

__all__ = ["ElasticNet", "L1Penalty", "L2Penalty", "elastic_net", "l1_penalty", "l2_penalty"]


def l1_penalty(model: Named, weight: float = 1e-5, where: Where = "weights") -> Tensor:
    """Return ``weight`` times the sum of absolute weights; see :class:`L1Penalty`.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.weight, -3.0)
        >>> l1_penalty(layer, 0.5).item()
        3.0
    """
    return _mixed("l1_penalty", model, weight, 1.0, where)


def l2_penalty(model: Named, weight: float = 1e-4, where: Where = "weights") -> Tensor:
    """Return half of ``weight`` times the sum of squared weights; see :class:`L2Penalty`.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.weight, -3.0)
        >>> round(l2_penalty(layer, 0.5).item(), 4)
        4.5
    """
    return _mixed("l2_penalty", model, weight, 0.0, where)


def elastic_net(
    model: Named, weight: float = 1e-4, l1_ratio: float = 0.5, where: Where = "weights"
) -> Tensor:  # fmt: skip
    """Return a mix of the L1 and the L2 penalty; see :class:`ElasticNet`.

    Args:
        model: a module, or named parameters; frozen ones are left out, shared ones count once.
        weight: factor of the whole.
        l1_ratio: share of L1, from 0 to 1.
        where: ``"weights"``, ``"all"``, or patterns of names.

    Raises:
        ValueError: a number out of range, or ``where`` matches nothing.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(layer.weight, -3.0)
        >>> round(elastic_net(layer, 1.0, l1_ratio=0.5).item(), 4)
        7.5
    """
    return _mixed("elastic_net", model, weight, l1_ratio, where)


def _mixed(who: str, model: Named, weight: float, l1_ratio: float, where: Where) -> Tensor:
    _check(who, weight, l1_ratio)
    params = choose(model, where, who)
    return _Sizes.apply(weight * l1_ratio, weight * (1 - l1_ratio), *params)  # pyright: ignore


class _Sizes(torch.autograd.Function):
    """Sum ``a*|w| + b/2*w^2``, with a gradient in one pass where torch's own takes several."""

    @staticmethod
    def forward(ctx: Any, a: float, b: float, *params: Tensor) -> Tensor:
        ctx.a, ctx.b = a, b
        ctx.save_for_backward(*params)
        found = params[0].new_zeros((), dtype=torch.promote_types(params[0].dtype, torch.float32))
        if a:
            found = found + a * vector_norm(params, 1).sum()
        if b:
            found = found + 0.5 * b * vector_norm(params, 2).square().sum()
        return found

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        params, g = list(ctx.saved_tensors), grads[0]
        # torch._foreach_mul by a tensor cannot be differentiated again.
        a, b = ([(g * factor).to(p.device, p.dtype) for p in params] for factor in (ctx.a, ctx.b))
        if not ctx.a:
            found = [p * y for p, y in zip(params, b, strict=True)]
        else:
            found = [p.sign() * x for p, x in zip(params, a, strict=True)]
            if ctx.b:
                found = [torch.addcmul(t, p, y) for t, p, y in zip(found, params, b, strict=True)]
        return None, None, *found


def _check(who: str, weight: Any, l1_ratio: Any = 0.5) -> None:
    number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not (number and math.isfinite(weight) and weight >= 0):
        raise ValueError(f"{who}: weight must be a number from 0; got {weight!r}")
    if not (isinstance(l1_ratio, int | float) and 0 <= l1_ratio <= 1):
        raise ValueError(f"{who}: l1_ratio must be from 0 (all L2) to 1 (all L1); got {l1_ratio!r}")


class _Penalty:
    """Hold a penalty's options; call :meth:`penalty` for its value, and add that to the loss."""

    key = ""

    def __init__(self, weight: float, l1_ratio: float, where: Where):
        _check(self.key, weight, l1_ratio)
        self.weight, self.l1_ratio, self.where = weight, l1_ratio, where

    def penalty(self, model: Named) -> Tensor:
        """Return the term to add to the loss: a differentiable number.

        Args:
            model: a module, or named parameters.
        """
        return _mixed(self.key, model, self.weight, self.l1_ratio, self.where)

    def __call__(self, model: Named) -> Tensor:
        return self.penalty(model)

    def effect(self, model: nn.Module) -> dict[str, Any]:
        """Return what the weights look like now: how many are near zero, and the penalty.

        Gradient steps on an absolute value come near to zero and step over it, so zeros are
        counted with a margin: a thousandth of the largest weight of the same tensor.
        """
        params = [p.detach() for p in choose(model, self.where, self.key)]
        near = [int((p.abs() <= 1e-3 * p.abs().max()).sum()) for p in params]
        every = torch.cat([p.flatten().float().abs().cpu() for p in params])
        return {
            "penalty": float(self.penalty(model).detach()),
            "weights": every.numel(),
            "near_zero": sum(near) / every.numel(),
            "mean_size": float(every.mean()),
        }

    def __repr__(self) -> str:
        return f"{type(self).__name__}(weight={self.weight:g}, where={self.where!r})"


@brick(
    "regularizer", "l1_penalty", aliases=("lasso",), public="brickyard.regularize",
    summary="Adds the sum of absolute weights to the loss: pulls every weight to zero alike.",
    use_when="Few weights should matter: first layers over many inputs, linear models, pruning "
    "that follows.",
    avoid_when="You want small weights rather than few: decay. Exact zeros: gradient steps only "
    "come near them; cut off what is small afterwards.",
    best_for="Feature selection and sparse weights: linear models, first layers on tables of "
    "sparse features or many idle columns.",
    paper="Tibshirani 1996, Regression Shrinkage and Selection via the Lasso.",
    tune_first="weight: from 1e-6 up by factors of 3, watching the share of weights near zero.",
    cost="One pass over the weights in the forward pass and one in the backward pass.",
    pairs_with=("sgd", "adamw", "early_stopping"),
)  # fmt: skip
class L1Penalty(_Penalty):
    """Penalize the sum of absolute weights.

    Math:
        penalty = weight * sum |w|

    Args:
        weight: factor of the sum. It is a sum, no mean: larger models want smaller factors.
        where: ``"weights"`` (matrices and filters that belong to no normalization and are not
            marked ``no_decay``), ``"all"``, or patterns of names such as ``"*.weight"``.

    Raises:
        ValueError: a weight below 0; when called, patterns that match nothing.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> loss = model(torch.ones(4, 3)).square().mean() + L1Penalty(1e-3).penalty(model)
        >>> loss.backward()

    Reference:
        Tibshirani, Regression Shrinkage and Selection via the Lasso, 1996, equation 1.
    """

    key = "l1_penalty"

    def __init__(self, weight: float = 1e-5, where: str | list[str] = "weights"):
        super().__init__(weight, 1.0, where)


@brick(
    "regularizer", "l2_penalty", aliases=("ridge", "tikhonov"),
    public="brickyard.regularize",
    summary="Adds half the sum of squared weights to the loss: coupled weight decay with a value.",
    use_when="The penalty's value is wanted (a Bayesian prior, a report), or an optimizer without "
    "weight_decay; with plain SGD it is the same as weight decay.",
    avoid_when="Adam and its kin: the penalty's gradient is divided by the gradient's history, so "
    "weights with large gradients are hardly decayed. Take adamw's weight_decay.",
    best_for="SGD and L-BFGS; linear models.",
    paper="Hoerl & Kennard 1970, Ridge Regression; Loshchilov & Hutter 2019 (arXiv:1711.05101), "
    "section 2, on why it is not weight decay under Adam.",
    tune_first="weight: 1e-5 to 1e-3, as weight_decay of SGD: the factor means the same.",
    cost="One pass over the weights in the forward pass and one in the backward pass.",
    pairs_with=("sgd", "early_stopping"),
)  # fmt: skip
class L2Penalty(_Penalty):
    """Penalize half the sum of squared weights.

    The half makes the gradient ``weight * w``, so the factor means what ``weight_decay`` means in
    ``torch.optim.SGD``.

    Math:
        penalty = weight/2 * sum w^2

    Args:
        weight: factor of half the sum.
        where: ``"weights"`` (matrices and filters that belong to no normalization and are not
            marked ``no_decay``), ``"all"``, or patterns of names such as ``"*.weight"``.

    Raises:
        ValueError: a weight below 0; when called, patterns that match nothing.

    Example:
        >>> model = nn.Linear(3, 2, bias=False)
        >>> L2Penalty(0.1).penalty(model).backward()
        >>> torch.allclose(model.weight.grad, 0.1 * model.weight)
        True

    Reference:
        Hoerl & Kennard, Ridge Regression: Biased Estimation for Nonorthogonal Problems, 1970.
    """

    key = "l2_penalty"

    def __init__(self, weight: float = 1e-4, where: str | list[str] = "weights"):
        super().__init__(weight, 0.0, where)


@brick(
    "regularizer", "elastic_net", aliases=("l1_l2",), public="brickyard.regularize",
    summary="Adds absolute and squared weights to the loss: few weights, and small ones.",
    use_when="L1 picks one of several inputs that say the same at random: the squares keep them "
    "together.",
    avoid_when="One of the two alone does: there is one number less to tune. Deep networks: little "
    "has been published for it.",
    best_for="Linear models and first layers on tables with correlated columns.",
    paper="Zou & Hastie 2005, Regularization and Variable Selection via the Elastic Net.",
    tune_first="weight as for l1_penalty, then l1_ratio from 0.5 up.",
    cost="Two passes over the weights in the forward pass and two in the backward pass.",
    pairs_with=("sgd", "early_stopping"),
)  # fmt: skip
class ElasticNet(_Penalty):
    """Penalize a mix of the absolute and of half the squared weights.

    Math:
        penalty = weight * (l1_ratio * sum |w| + (1 - l1_ratio)/2 * sum w^2)

    Args:
        weight: factor of the whole.
        l1_ratio: share of L1, from 0 to 1; as in scikit-learn's ElasticNet.
        where: ``"weights"`` (matrices and filters that belong to no normalization and are not
            marked ``no_decay``), ``"all"``, or patterns of names such as ``"*.weight"``.

    Raises:
        ValueError: a number out of range; when called, patterns that match nothing.

    Example:
        >>> model = nn.Linear(3, 2)
        >>> ElasticNet(1e-3, l1_ratio=0.2).penalty(model).item() > 0
        True

    Reference:
        Zou & Hastie, Regularization and Variable Selection via the Elastic Net, 2005, equation 3.
    """

    key = "elastic_net"

    def __init__(
        self, weight: float = 1e-4, l1_ratio: float = 0.5, where: str | list[str] = "weights"
    ):
        super().__init__(weight, l1_ratio, where)
