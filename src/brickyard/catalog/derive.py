"""Find what a card states but nobody should type: where to import it from, its state's bytes."""

from __future__ import annotations

import importlib
from typing import Any

from brickyard.catalog.card import Card


def derive(card: Card) -> dict[str, Any]:
    """Return facts found by looking at the brick, or by running it once on something small."""
    found: dict[str, Any] = {"import_from": _import_from(card)}
    if card.kind == "optimizer":
        found["state_bytes"] = _state_bytes(card)
    return found


def _import_from(card: Card) -> str:
    """Return the outermost package (below the root) that offers the brick under its name."""
    module = card.target.partition(":")[0]
    parts = module.split(".")
    for length in range(2, len(parts)):
        package = ".".join(parts[:length])
        if getattr(importlib.import_module(package), card.name, None) is card.load():
            return package
    return module


def _state_bytes(card: Card) -> float | None:
    """Take one step on a square fp32 matrix and count what the optimizer keeps."""
    import torch

    required = [option.name for option in card.options if option.required]
    if required:
        return None
    weight = torch.nn.Parameter(torch.ones(256, 256))
    optimizer: Any = card.load()([weight])
    if not isinstance(optimizer, torch.optim.Optimizer) or isinstance(optimizer, torch.optim.LBFGS):
        return None  # no state, or one that grows with the steps taken
    weight.grad = torch.full_like(weight, 0.5)

    def closure() -> float:
        return float((weight.detach() ** 2).sum())

    record: Any = getattr(optimizer, "record_hessian", None)
    if record is not None:  # Sophia steps only on an estimate of the curvature
        record([torch.ones_like(weight)])
    optimizer.step(closure)
    kept = [v for state in optimizer.state.values() for v in state.values()]
    tensors = [v for v in kept if isinstance(v, torch.Tensor) and v.numel() > 1]
    return round(sum(v.numel() * v.element_size() for v in tensors) / weight.numel(), 2)
