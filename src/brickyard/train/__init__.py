"""The trainer: recipes, data, the loop, checkpoints."""

from brickyard.train.export import export_run, load_exported
from brickyard.train.lr_range import RangeTest, lr_range_test
from brickyard.train.recipe import Component, Recipe, Resolved, load, resolve
from brickyard.train.session import Result, resume, train

__all__ = [
    "Component",
    "RangeTest",
    "Recipe",
    "Resolved",
    "Result",
    "export_run",
    "load",
    "load_exported",
    "lr_range_test",
    "resolve",
    "resume",
    "train",
]
