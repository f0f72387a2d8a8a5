"""Put a recipe's precision to work, and refuse what cannot stand beside it."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from brickyard.errors import RecipeError
from brickyard.optim import SophiaG, SophiaH
from brickyard.train.closure import innermost, needs_closure
from brickyard.train.data import Data, batches
from brickyard.train.make import make, place
from brickyard.train.parts import Parts
from brickyard.train.precision import Precision
from brickyard.train.recipe import Recipe
from brickyard.train.untouched import Untouched

__all__ = ["build_precision", "settle_precision", "try_precision"]

_SAMPLES = 4
_MISSING = re.compile(r"\"(\w+)\" not implemented for '(\w+)'")


def build_precision(recipe: Recipe) -> Precision:
    """Build a recipe's precision.

    Args:
        recipe: a checked recipe.

    Raises:
        RecipeError: it refuses its options, or is none.
    """
    with place("precision"):
        made = make(recipe.precision, "precision")
        if not isinstance(made, Precision):
            raise TypeError(
                f"{recipe.precision.label} made a {type(made).__name__}; derive yours from "
                "brickyard.train.precision.Precision"
            )
    return made


def settle_precision(precision: Precision, recipe: Recipe, parts: Parts) -> None:
    """Tell optimizer and loop of the precision.

    Args:
        precision: of the recipe.
        recipe: names what cannot stand beside it.
        parts: gets its scaler.

    Raises:
        RecipeError: something that would go wrong silently.
    """
    label, optimizer = recipe.precision.label, recipe.optimizer.label
    halved = precision.weights is not None and precision.master_weights
    if precision.scale is not None:
        why = ""
        if needs_closure(parts.optimizer):
            why = f"{optimizer} asks for gradients several times within a step"
        elif isinstance(innermost(parts.optimizer), SophiaG | SophiaH):
            why = f"{optimizer} takes gradients of its own, without the scale"
        elif parts.task.trained(parts.model) is not parts.model:
            why = f"{parts.task.name} takes steps of its own, without the scale"
        if why:
            raise RecipeError(
                f"precision: {label} moves its loss scale from step to step, and {why}; take bf16 "
                "or fp32"
            )
        if precision.weights is not None and recipe.clipping is not None:
            raise RecipeError(
                f"clipping: not with {label}: gradients would be unscaled in float16, where small "
                "ones vanish; take precision: fp16, whose gradients are fp32, or bf16_weights"
            )
    if halved and parts.constraints:
        raise RecipeError(
            f"regularizers: a constraint changes the weights, which {label} makes anew from fp32 "
            "masters at every step; take precision: bf16 or fp16, or leave the constraint out"
        )
    with place("precision"):
        precision.settle(parts.optimizer)
    parts.scaler = precision.scaler(next(parts.model.parameters()).device)


def try_precision(precision: Precision, recipe: Recipe, data: Data, parts: Parts) -> None:
    """Run a few samples forward and backward in half precision; refuse what cannot be.

    Args:
        precision: of the recipe.
        recipe: names it.
        data: what is trained on.
        parts: what was built.

    Raises:
        RecipeError: an operation that this device does not have in that format.
    """
    if precision.compute is None:
        return
    model, device = parts.model, next(parts.model.parameters()).device
    size = min(_SAMPLES, len(data.train))
    x, _ = next(iter(batches(data.train, size, shuffle=False, seed=0, on_error="skip").epoch(0)))
    try:
        with Untouched([model]):
            model.train()  # some operations run in training only
            with parts.autocast:
                output = parts.task.forward(model, x.to(device))
            many = output if isinstance(output, list | tuple) else [output]
            live = [t for t in many if isinstance(t, Tensor) and t.requires_grad]
            if live:
                torch.stack([t.float().sum() for t in live]).sum().backward()
    except RuntimeError as error:
        found = _MISSING.search(str(error))
        if found is None:
            return  # what is wrong with the model itself is said when it is looked over
        others = [key for key in ("bf16", "fp32") if key != recipe.precision.name]
        raise RecipeError(
            f"precision: {recipe.precision.label} cannot train {recipe.model.label} on this "
            f"{device.type}: torch has no {found[1]} for {found[2]} there; take "
            f"{' or '.join(others)}"
        ) from error
