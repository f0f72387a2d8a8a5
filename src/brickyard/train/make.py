"""Make the bricks that a recipe names, and say where in the recipe one complained."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from brickyard import catalog
from brickyard.errors import CatalogError, DataError, RecipeError
from brickyard.train.recipe import Component
from brickyard.train.recipe.resolve import load_target


@contextmanager
def place(path: str) -> Iterator[None]:
    """Put the recipe's path in front of what a brick complains about."""
    try:
        yield
    except RecipeError:
        raise
    except (CatalogError, DataError, ValueError, TypeError) as error:
        raise RecipeError(f"{path}: {error}") from error


def target_of(component: Component, kind: str) -> Callable[..., Any]:
    """Return the class or function that a component names."""
    if component.target:
        return load_target(component.target, kind)
    return catalog.get(component.name, kind).load()


def make(component: Component, kind: str, **injected: Any) -> Any:
    """Build a brick with its options, and with those of ``injected`` that it takes."""
    target = target_of(component, kind)
    taken = inspect.signature(target).parameters
    extra = {name: value for name, value in injected.items() if name in taken}
    return target(**extra, **component.options)
