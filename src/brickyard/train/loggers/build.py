"""Build the loggers that a recipe names."""

from __future__ import annotations

from brickyard.train.loggers.base import Logger, check_logger
from brickyard.train.make import make, place
from brickyard.train.recipe import Recipe


def build_loggers(recipe: Recipe) -> list[tuple[str, Logger]]:
    """Return the recipe's loggers with what warnings call them; none is open yet.

    Args:
        recipe: the recipe.

    Raises:
        RecipeError: a package or a method is missing, or an option is refused.
    """
    found = []
    for i, one in enumerate(recipe.loggers):
        with place(f"loggers.{i}"):
            if one in recipe.loggers[:i]:
                raise ValueError(f"{one.label} is given twice with the same options; keep one")
            found.append((one.label, check_logger(make(one, "logger"))))
    return found
