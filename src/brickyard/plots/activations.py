"""Draw activations: the function and its derivative, computed by autograd."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import Card
from brickyard.plots.figure import Axis, Figure, Panel, panel, points

__all__ = ["draw"]

_RANGE = (-5.0, 5.0, 201)
#: The option that shapes the curve, and values of it to compare; the default is among them.
_FAMILIES: dict[str, tuple[str, tuple[Any, ...]]] = {
    "leaky_relu": ("negative_slope", (0.01, 0.1, 0.3)),
    "prelu": ("init", (0.1, 0.25, 0.5)),
    "elu": ("alpha", (0.5, 1.0, 2.0)),
    "softplus": ("beta", (0.5, 1.0, 3.0)),
}


def draw(card: Card) -> Figure:
    """Return function and derivative, for several values of the option that matters.

    Args:
        card: an activation's card.
    """
    name, values = _FAMILIES.get(card.key, ("", (None,)))
    usual = {option.name: option.default for option in card.options}.get(name)
    made = [
        (f"{name} = {v:g}{' (default)' * (v == usual)}" if name else card.key,
         _layer(card, {name: v} if name else {})) for v in values
    ]  # fmt: skip
    layer = made[0][1]
    x_title, note = "input x", "Derivative by automatic differentiation."
    if any(p.ndim > 1 for p in layer.parameters()):
        made, chosen = _by_hand(card, layer)
        note = f"It learns its weights; here {chosen}. {note}"
        return Figure(
            card.key, f"{card.key}: function and derivative", note, _panels(x_title, made)
        )
    if isinstance(layer, nn.Softmax):
        made = [(f"{n} classes", _against(layer, n - 1)) for n in (2, 10)]
        x_title = "logit x of the class, all others at 0"
    elif _halves(layer):
        made = [
            ("first half varied, second 1", lambda x: layer(torch.cat([x, 0 * x + 1], 1))),
            ("second half varied, first 1", lambda x: layer(torch.cat([0 * x + 1, x], 1))),
        ]
        note = "It multiplies one half of its input by a gate made of the other half. " + note
    return Figure(card.key, f"{card.key}: function and derivative", note, _panels(x_title, made))


def _layer(card: Card, options: dict[str, Any]) -> nn.Module:
    target = card.load()
    takes = inspect.signature(target).parameters.values()
    many = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [p.name for p in takes if p.default is p.empty and p.kind not in many]
    sizes = {name: 1 for name in needed if name not in options}
    if card.key == "softmax":
        options = {"dim": 1}
    return target(**sizes, **options).double().eval()


def _by_hand(
    card: Card, layer: nn.Module
) -> tuple[list[tuple[str, Callable[[Tensor], Tensor]]], str]:
    """Return layers of one input with weights set by hand, and what they were set to."""
    usual = getattr(layer, "pieces", None)
    if usual is None:
        with torch.no_grad():
            for p in layer.parameters():
                p.fill_(1 / p.shape[1] if p.ndim > 1 else 0.0)
        return [(card.key, layer)], "each averages its inputs, without biases"
    made: list[tuple[str, Callable[[Tensor], Tensor]]] = []
    for pieces in (2, 4):
        one = _layer(card, {"pieces": pieces})
        slopes = torch.linspace(-2, 2, pieces, dtype=torch.float64)
        with torch.no_grad():
            for p in one.parameters():
                p.copy_(slopes[:, None] if p.ndim > 1 else -slopes.square())
        made.append((f"pieces = {pieces}{' (default)' * (pieces == usual)}", one))
    return made, "its lines touch the parabola x*x/4"


def _against(layer: nn.Module, others: int) -> Callable[[Tensor], Tensor]:
    """Return the first output for logits x and ``others`` zeros."""
    return lambda x: layer(torch.cat([x, 0 * x.expand(-1, others)], 1))[:, :1]


def _halves(layer: nn.Module) -> bool:
    """Say whether the layer halves the last axis: a gated unit without weights."""
    try:
        return tuple(layer(torch.ones(3, 2, dtype=torch.float64)).shape) == (3, 1)
    except (ValueError, TypeError, RuntimeError):
        return False


def _panels(x_title: str, made: list[tuple[str, Callable[[Tensor], Tensor]]]) -> tuple[Panel, ...]:
    at = points(*_RANGE)
    values, slopes = [], []
    for label, layer in made:
        x = torch.tensor(at, dtype=torch.float64)[:, None].requires_grad_()
        y = layer(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        values.append((label, y.detach()[:, 0].tolist()))
        slopes.append((label, slope[:, 0].tolist()))
    return (
        panel("Function", Axis(x_title), Axis("output"), at, values),
        panel("Derivative", Axis(x_title), Axis("slope"), at, slopes),
    )
