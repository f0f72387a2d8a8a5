"""The trainer: recipes, data, the loop, checkpoints."""

from brickyard.train.lr_range import RangeTest, lr_range_test
from brickyard.train.recipe import Component, Recipe, Resolved, load, resolve
from brickyard.train.session import Result, resume, train

__all__ = [
    "Component",
    "RangeTest",
    "Recipe",
    "Resolved",
    "Result",
    "load",
    "lr_range_test",
    "resolve",
    "resume",
    "train",
]
