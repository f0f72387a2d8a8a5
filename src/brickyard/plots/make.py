"""Compute the picture of a brick from the brick itself, and all of them for the catalog."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import torch

from brickyard.catalog import Card
from brickyard.catalog.shelf import live_cards
from brickyard.plots import activations, initializers, losses, normalizations, schedules
from brickyard.plots.figure import Figure

__all__ = ["KINDS", "compute", "generate"]

#: Kinds that have pictures.
KINDS: dict[str, Callable[[Card], Figure]] = {
    "activation": activations.draw,
    "loss": losses.draw,
    "initializer": initializers.draw,
    "normalization": normalizations.draw,
    "schedule": schedules.draw,
}


def compute(card: Card) -> Figure:
    """Return the picture of a brick, computed now; random numbers drawn for it are put back.

    Args:
        card: the brick's card.
    """
    if card.kind not in KINDS:
        known = ", ".join(KINDS)
        what = f"{'an' if card.kind[0] in 'aeiou' else 'a'} {card.kind}"
        return Figure(card.key, reason=f"{what} has no picture; these kinds have: {known}")
    with torch.random.fork_rng([]), torch.enable_grad():
        torch.manual_seed(0)
        return replace(KINDS[card.kind](card), key=card.key)


def generate() -> str:
    """Return the text of ``figures.json`` for the code as it stands, a figure a line."""
    drawn = [compute(card).to_dict() for card in live_cards() if card.kind in KINDS]
    lines = [f"{json.dumps(f['key'])}: {json.dumps(f, ensure_ascii=False)}" for f in drawn]
    return '{"figures": {\n' + ",\n".join(lines) + "\n}}\n"
