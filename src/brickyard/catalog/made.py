"""Describe as plain data what a recipe puts together, for the rules on known bad pairs."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Layer", "Made"]


@dataclass(frozen=True)
class Layer:
    """Describe one layer of a model.

    Args:
        path: its dotted name in the model.
        key: key of the brick that it is; empty if it has no card.
        kind: the brick's kind, ``"linear"`` or ``"convolution"``; empty for others.
        bias: it has a bias.
        rate: probability of a dropout.
        parameters: dotted names of its own parameters.
    """

    path: str
    key: str = ""
    kind: str = ""
    bias: bool = False
    rate: float = 0.0
    parameters: tuple[str, ...] = ()


@dataclass(frozen=True)
class Made:
    """Describe what a recipe puts together.

    Args:
        recipe: the resolved recipe as plain data.
        layers: the model's layers in the order in which they run.
        decayed: names of the parameters that the optimizer's weight decay acts on.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    layers: Sequence[Layer] = ()
    decayed: Collection[str] = ()

    def first(self, *keys: str) -> Layer | None:
        """Return the first layer that is one of these bricks."""
        return next((layer for layer in self.layers if layer.key in keys), None)

    def some(self, *kinds: str) -> list[Layer]:
        """Return the layers of these kinds."""
        return [layer for layer in self.layers if layer.kind in kinds]

    def part(self, name: str) -> dict[str, Any]:
        """Return one brick of the recipe with its options, ``{}`` if it has none."""
        given = self.recipe.get(name)
        return dict(given) if isinstance(given, Mapping) else {"name": given} if given else {}

    def start(self) -> dict[str, Any]:
        """Return the initializer that the model was built with; ``{}`` where none is known."""
        given = self.part("model").get("init")
        return dict(given) if isinstance(given, Mapping) else {"name": given} if given else {}
