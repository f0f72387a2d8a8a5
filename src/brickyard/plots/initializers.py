"""Draw initializers: how the spread of signals and gradients fares over 30 layers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import Card, get
from brickyard.errors import CatalogError
from brickyard.plots.figure import Axis, Figure, Panel, panel

__all__ = ["draw"]

_DEPTH, _WIDTH, _BATCH = 30, 256, 256
_DEFAULT = "torch's default"
#: Options to compare; those that must be given, and those whose default is no sensible start.
_VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "uniform_": ({"a": -0.1, "b": 0.1}, {"a": 0.0, "b": 1.0}),
    "normal_": ({"std": 0.02}, {"std": 0.1}, {"std": 1.0}),
    "trunc_normal_": ({"std": 0.02}, {"std": 0.1}),
    "xavier_uniform_": ({"gain": 1.0}, {"gain": 5 / 3}),
    "xavier_normal_": ({"gain": 1.0}, {"gain": 5 / 3}),
    "orthogonal_": ({"gain": 1}, {"gain": 5 / 3}),
    "sparse_": ({"sparsity": 0.9, "std": 0.1}, {"sparsity": 0.9, "std": 0.2}),
}
_REASONS = {
    "constant_": "one value for all weights makes all units of a layer equal: there is no spread "
    "to follow",
    "ones_": "one value for all weights makes all units of a layer equal: there is no spread to "
    "follow",
    "zeros_": "zero weights put out zero: there is no spread to follow",
}

Fill = Callable[[nn.Sequential, Tensor], None]


def draw(card: Card) -> Figure:
    """Return the spread of activations and of gradients by layer: default and this start.

    Args:
        card: an initializer's card.
    """
    takes = inspect.signature(card.load()).parameters
    if card.key in _REASONS:
        return Figure(card.key, reason=f"{card.key}: {_REASONS[card.key]}")
    if not {"tensor", "model"} & set(takes):
        given = ", ".join(takes)
        return Figure(card.key, reason=(
            f"{card.key} takes {given} and fills no weight matrices, so there is no spread over "
            "layers to follow"))  # fmt: skip
    activation, title = _activation(card)
    residual = card.key == "zero_residual_"
    made = [(_DEFAULT, _measure(activation, residual, lambda model, x: None))]
    for options in _VARIANTS.get(card.key, ({},)):
        label = ", ".join(f"{name} = {value:.3g}" for name, value in options.items()) or card.key
        made.append((label, _measure(activation, residual, _filler(card, options))))
    kind = "residual blocks" if residual else f"layers with {title}"
    note = (
        f"{_DEPTH} {kind} of width {_WIDTH}, {_BATCH} samples of normal noise, zero biases; "
        "gradients relative to the last layer's."
    )
    name = f"{card.key}: spread over {_DEPTH} {'blocks' if residual else 'layers'}"
    return Figure(card.key, name, note, _panels(made, "block" if residual else "layer"))


def _activation(card: Card) -> tuple[Callable[[], nn.Module], str]:
    """Return the activation that the start belongs to: the first that its card pairs it with."""
    for key in card.pairs_with:
        try:
            found = get(key, "activation")
        except CatalogError:
            continue
        return found.load(), found.key
    return nn.ReLU, "relu"


def _filler(card: Card, options: dict[str, Any]) -> Fill:
    start, takes = card.load(), inspect.signature(card.load()).parameters

    def fill(model: nn.Sequential, x: Tensor) -> None:
        if "tensor" in takes:
            for layer in model.modules():
                if isinstance(layer, nn.Linear):
                    start(layer.weight, **options)
        else:
            given = {"batch": x} if "batch" in takes else {}
            start(model, **given, **options)

    return fill


def _measure(
    activation: Callable[[], nn.Module], residual: bool, fill: Fill
) -> tuple[list[float], list[float]]:
    """Return by layer the spread of what it puts out, and of the gradient that reaches it."""
    torch.manual_seed(0)
    model = nn.Sequential(*(_block(activation, residual) for _ in range(_DEPTH)))
    for layer in model.modules():
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    x = torch.randn(_BATCH, _WIDTH)
    fill(model, x)
    h, seen = x.double(), []
    for block in model.double():
        h = block(h)
        h.retain_grad()
        seen.append(h)
    h.backward(torch.randn_like(h))
    slopes = [float(one.grad.std()) for one in seen if one.grad is not None]
    return [1.0, *(float(one.detach().std()) for one in seen)], [s / slopes[-1] for s in slopes]


def _block(activation: Callable[[], nn.Module], residual: bool) -> nn.Module:
    if not residual:
        return nn.Sequential(nn.Linear(_WIDTH, _WIDTH), activation())
    branch = nn.Sequential(nn.Linear(_WIDTH, _WIDTH), activation(), nn.Linear(_WIDTH, _WIDTH))
    return get("residual", "residual").load()(branch)


def _panels(
    made: list[tuple[str, tuple[list[float], list[float]]]], unit: str
) -> tuple[Panel, ...]:
    panels = []
    names = (("Activations", "standard deviation", 0), ("Gradients", "relative to the last", 1))
    for i, (title, y, first) in enumerate(names):
        at = tuple(float(k) for k in range(first, _DEPTH + 1))
        curves = [(label, [v if v > 0 else math.nan for v in both[i]]) for label, both in made]
        panels.append(panel(title, Axis(unit), Axis(y, log=True), at, curves, _DEFAULT))
    return tuple(panels)
