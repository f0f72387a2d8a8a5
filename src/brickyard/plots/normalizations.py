"""Draw normalizations: which values share statistics, found by asking which ones matter."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.catalog import Card
from brickyard.plots.figure import Figure, Grid

__all__ = ["draw"]

_SAMPLES, _CHANNELS, _SIDE = 4, 6, 2
#: For options that must be given, and those that only show at a small size.
_OPTIONS: dict[str, Any] = {"num_groups": 3, "groups": 3, "ghost_size": 2, "ghost_batch_size": 2,
                            "virtual_batch_size": 2, "batch_size": 2, "size": 2}  # fmt: skip


def draw(card: Card) -> Figure:
    """Return the values that one output depends on: those whose derivative is not zero.

    Args:
        card: a normalization's card.
    """
    target = card.load()
    takes = inspect.signature(target).parameters
    how = "Every value of which the marked one's output depends is filled; found by derivatives."
    if "module" in takes:
        grid = _weight(target)
        return Figure(card.key, f"{card.key}: weights that share a norm", how, (), (grid,))
    known = {
        "num_features": _CHANNELS, "num_channels": _CHANNELS, "dim": _CHANNELS,
        "normalized_shape": _CHANNELS, **_OPTIONS,
    }  # fmt: skip
    wanted = [
        p.name for p in takes.values()
        if (p.default is p.empty or p.name in _OPTIONS)
        and p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)
    ]  # fmt: skip
    unknown = [name for name in wanted if name not in known]
    if unknown:
        reason = f"{card.key} needs {unknown[0]}, for which no example is written yet"
        return Figure(card.key, reason=reason)
    layer = target(**{name: known[name] for name in wanted}).double().train()
    last = "normalized_shape" in takes
    grid = _depends(layer, last)
    title = f"{card.key}: values that share statistics"
    return Figure(card.key, title, how, (), (grid,))


def _depends(layer: nn.Module, last: bool) -> Grid:
    """Return the grid of a layer on (N, C, H, W), or on (N, L, C) with channels ``last``."""
    places = _SIDE * _SIDE
    shape = (_SAMPLES, places, _CHANNELS) if last else (_SAMPLES, _CHANNELS, _SIDE, _SIDE)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    one = (1, 1, 2) if last else (1, 2, 0, 1)
    (matters,) = torch.autograd.grad(y[one], x)
    cells = matters.abs() > 1e-9
    if not last:
        cells = cells.flatten(2).transpose(1, 2)  # to (N, positions, C)
    return Grid("sample", "position", "channel", _marks(cells, (1, 1, 2)))


def _weight(target: Any) -> Grid:
    layer = nn.Linear(_CHANNELS, _SAMPLES, bias=False).double()
    target(layer)
    layer.eval()  # spectral norm's vectors rest
    source = next(p for p in layer.parameters() if p.shape == layer.weight.shape)
    (matters,) = torch.autograd.grad(layer.weight[1, 2], source)
    return Grid("", "output", "input", _marks((matters.abs() > 1e-12)[None], (0, 1, 2)))


def _marks(cells: Tensor, one: tuple[int, int, int]) -> tuple[tuple[str, ...], ...]:
    blocks = [["".join("x" if v else "." for v in row) for row in block] for block in cells]
    block, row, column = one
    line = blocks[block][row]
    blocks[block][row] = f"{line[:column]}@{line[column + 1 :]}"
    return tuple(tuple(rows) for rows in blocks)
