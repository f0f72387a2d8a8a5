"""The trainer: recipes, data, the loop, checkpoints."""

from brickyard.train.recipe import Component, Recipe, Resolved, load, resolve
from brickyard.train.session import Result, resume, train

__all__ = ["Component", "Recipe", "Resolved", "Result", "load", "resolve", "resume", "train"]
