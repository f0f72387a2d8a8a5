"""Measure what a card states about its brick but nobody should type: state bytes per parameter."""

from __future__ import annotations

from typing import Any

from brickyard.catalog.card import Card


def derive(card: Card) -> dict[str, Any]:
    """Return facts found by running the brick once on something small."""
    if card.kind == "optimizer":
        return {"state_bytes": _state_bytes(card)}
    return {}


def _state_bytes(card: Card) -> float | None:
    """Take one step on a square fp32 matrix and count what the optimizer keeps."""
    import torch

    required = [option.name for option in card.options if option.required]
    if required:
        return None
    weight = torch.nn.Parameter(torch.ones(256, 256))
    optimizer: Any = card.load()([weight])
    if not isinstance(optimizer, torch.optim.Optimizer):
        return None
    weight.grad = torch.full_like(weight, 0.5)

    def closure() -> float:
        return float((weight.detach() ** 2).sum())

    optimizer.step(closure)
    kept = [v for state in optimizer.state.values() for v in state.values()]
    tensors = [v for v in kept if isinstance(v, torch.Tensor) and v.numel() > 1]
    return round(sum(v.numel() * v.element_size() for v in tensors) / weight.numel(), 2)
