"""Refuse, with the reason, what a recipe cannot have beside a task of its own kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from brickyard.errors import RecipeError

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["refuse", "refuse_regularizers"]

#: What a field holds when a recipe does not use it, and what to do instead.
_UNUSED = {
    "precision": ("fp32", "take precision: fp32"),
    "augmentation": ([], "leave augmentation out"),
    "compile": (False, "leave compile out"),
}


def refuse(recipe: Recipe, **reasons: str) -> None:
    """Refuse fields that a task has no use for.

    Args:
        recipe: a checked recipe.
        reasons: why, by field.

    Raises:
        RecipeError: the recipe uses one of them.
    """
    together = torch.distributed.is_available() and torch.distributed.is_initialized()
    if together and torch.distributed.get_world_size() > 1:
        raise RecipeError(
            "task: GANs and agents have a part of their state in the task, which processes do not "
            "share; start one process, without torchrun"
        )
    for field, why in reasons.items():
        unused, instead = _UNUSED[field]
        given = getattr(recipe, field)
        if getattr(given, "label", given) != unused:
            raise RecipeError(f"{field}: {why}; {instead}")


def refuse_regularizers(recipe: Recipe, **reasons: str) -> None:
    """Refuse regularizers that a task has no use for.

    Args:
        recipe: a checked recipe.
        reasons: why, by key.

    Raises:
        RecipeError: the recipe names one of them.
    """
    for i, one in enumerate(recipe.regularizers):
        if one.name in reasons:
            raise RecipeError(
                f"regularizers.{i}: not {one.name}: the {reasons[one.name]}; leave it out"
            )
