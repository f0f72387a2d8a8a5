"""Build a recipe's augmentation, and refuse what its data, model or loss cannot take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.augment import ManifoldMixup
from brickyard.train.data import Data, batches
from brickyard.train.make import make, place
from brickyard.train.recipe import Recipe
from brickyard.train.tasks import Classification, Task

__all__ = ["InOrder", "augmentation_for"]

_SAMPLES = 4


class InOrder:
    """Apply augmentations one after the other, from one generator.

    Args:
        many: each is called as transform(x, y, generator).
        own_numbers: the generator is their only source of random numbers, so that another thread
            may call them.
    """

    def __init__(
        self, many: Sequence[Callable[..., tuple[Tensor, Any]]], own_numbers: bool = False
    ):
        self.many, self.own_numbers = list(many), own_numbers

    def __call__(self, x: Tensor, y: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Return the batch after all of them."""
        for one in self.many:
            x, y = one(x, y, generator)
        return x, y


def augmentation_for(
    recipe: Recipe, data: Data, task: Task, model: nn.Module, loss: Any
) -> InOrder | None:
    """Return what changes the training batches; None where the recipe names nothing.

    Every one is tried on a few samples, with random numbers of its own, so that a run which
    cannot work ends here.

    Args:
        recipe: a checked recipe.
        data: what is trained on.
        task: knows the model's outputs.
        model: the network; what mixes inside of it gets its hooks here.
        loss: must take mixed labels, if there are any.

    Raises:
        RecipeError: an augmentation cannot take the samples, or the loss the mixed labels.
    """
    if not recipe.augmentation:
        return None
    size = min(_SAMPLES, len(data.train))
    x, y = next(iter(batches(data.train, size, shuffle=False, seed=0, on_error="skip").epoch(0)))
    generator, made = torch.Generator(x.device).manual_seed(0), []
    classes = task.outputs if isinstance(task, Classification) else None
    for i, one in enumerate(recipe.augmentation):
        with place(f"augmentation.{i}"):
            brick = make(one, "augmentation", classes=classes)
            if made and isinstance(made[-1], ManifoldMixup):
                raise ValueError(
                    "manifold_mixup mixes inside of the model, so it must stand last; move "
                    f"{one.label} before it"
                )
            if getattr(brick, "mixes", False) and not task.mixable:
                raise ValueError(
                    f"{one.label} mixes targets of two samples, and those of {task.name} cannot "
                    "be mixed; leave it out"
                )
            if isinstance(brick, ManifoldMixup):
                brick.attach(model)
            x, y = _try(brick, x, y, generator, one.label)
            if getattr(brick, "mixes", False):
                _check_loss(brick, task, loss, y, recipe, one.label)
        made.append(brick)
    return InOrder(made, own_numbers=all(one.name for one in recipe.augmentation))


def _try(
    brick: Callable[..., Any], x: Tensor, y: Any, generator: torch.Generator, label: str
) -> tuple[Tensor, Any]:
    given = x
    try:
        x, y = brick(x, y, generator)
    except (RuntimeError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        shape = tuple(given.shape)
        raise ValueError(f"{label} cannot take samples of shape {shape}: {reason}") from error
    if len(x) != len(given):
        raise ValueError(f"{label} must keep the number of samples; {len(given)} became {len(x)}")
    return x, y


def _check_loss(brick: Any, task: Task, loss: Any, y: Any, recipe: Recipe, label: str) -> None:
    """Refuse losses that take no mixed labels."""
    if not isinstance(y, Tensor):
        raise ValueError(
            f"{label} with targets={brick.targets!r} is for loops of your own; in a recipe take "
            "targets: soft"
        )
    if not isinstance(task, Classification) or recipe.loss.target:
        return
    device = next((p.device for p in loss.parameters()), y.device) if isinstance(
        loss, nn.Module) else y.device  # fmt: skip
    try:
        loss(torch.zeros(len(y), task.outputs, device=device), task.target(y).to(device))
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{label} makes probabilities of labels, which {recipe.loss.label} does not take "
            f"({str(error).splitlines()[0]}); take cross_entropy, or leave {label} out"
        ) from error
