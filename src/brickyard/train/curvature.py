"""Feed Sophia's estimate of the curvature from the training batches, when one is due."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from brickyard.errors import RecipeError, RunError
from brickyard.optim import SophiaG, SophiaH, gauss_newton_bartlett
from brickyard.train.closure import innermost
from brickyard.train.parts import Parts
from brickyard.train.recipe import Recipe

#: The likelihood whose negative logarithm a loss is.
_LIKELIHOODS = {"cross_entropy": "categorical", "bce": "bernoulli", "mse": "gaussian"}
#: Options that make another function of a loss than the likelihood's.
_SPOILERS = ("weight", "pos_weight")


def curvature_for(parts: Parts, recipe: Recipe) -> Callable[[Tensor, Tensor], None] | None:
    """Return what estimates the curvature on a batch before a step; None where nothing needs it.

    The estimate is made on the first batch of a step, in training mode, under autocast.

    Args:
        parts: the loop's parts.
        recipe: names the loss.

    Raises:
        RecipeError: the optimizer needs a likelihood, and the loss is none.
    """
    optimizer: Any = innermost(parts.optimizer)
    if isinstance(optimizer, SophiaG):
        return _bartlett(parts, recipe, optimizer)
    if isinstance(optimizer, SophiaH):
        return _hutchinson(parts, recipe, optimizer)
    return None


def _bartlett(parts: Parts, recipe: Recipe, optimizer: SophiaG) -> Callable[[Tensor, Tensor], None]:
    loss = recipe.loss
    likelihood = _LIKELIHOODS.get(loss.name, "")
    spoiled = [name for name in _SPOILERS if loss.options.get(name) is not None]
    if not likelihood or spoiled:
        what = f"{loss.label} with {spoiled[0]}" if spoiled else loss.label
        raise RecipeError(
            f"optimizer: sophia_g draws targets from the likelihood that the loss stands for, and "
            f"{what} stands for none; take {', '.join(_LIKELIHOODS)} without weights, or sophia_h"
        )

    def estimate(x: Tensor, y: Tensor) -> None:
        if not optimizer.hessian_due:
            return
        with parts.autocast:
            outputs = parts.task.forward(parts.model, x)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        found = gauss_newton_bartlett(outputs, params, likelihood)
        # mse is a mean of squares over the outputs too, and has no half in front.
        values = outputs.numel() / len(outputs)
        factor = {"categorical": 1.0, "bernoulli": 1 / values, "gaussian": 2 / values}[likelihood]
        optimizer.record_hessian([h * factor for h in found])

    return estimate


def _hutchinson(
    parts: Parts, recipe: Recipe, optimizer: SophiaH
) -> Callable[[Tensor, Tensor], None]:
    def estimate(x: Tensor, y: Tensor) -> None:
        if not optimizer.hessian_due:
            return

        def loss() -> Tensor:
            with parts.autocast:
                output = parts.task.forward(parts.model, x)
                value = parts.task.loss(parts.loss, output, x, y)
                for penalty in parts.penalties:
                    value = value + penalty(parts.task.trained(parts.model))
            return value

        try:
            optimizer.update_hessian(loss)
        except RuntimeError as error:
            raise RunError(
                f"sophia_h differentiates twice, which {recipe.model.label} or "
                f"{recipe.loss.label} cannot ({error}); take sophia_g or adamw"
            ) from error

    return estimate
