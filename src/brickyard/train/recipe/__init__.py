"""Recipes: what to train, typed, from YAML or Python, with every mistake caught at the door."""

from brickyard.train.recipe.model import Component, Recipe
from brickyard.train.recipe.resolve import Resolved, load, resolve

__all__ = ["Component", "Recipe", "Resolved", "load", "resolve"]
