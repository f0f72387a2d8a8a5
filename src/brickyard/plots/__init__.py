"""Pictures of bricks: curves and grids computed from the bricks, drawn as SVG or in a terminal."""

from __future__ import annotations

from brickyard.catalog import Card, get
from brickyard.catalog.figures import figure as stored
from brickyard.plots.figure import Axis, Curve, Figure, Grid, Panel
from brickyard.plots.schedules import plot_schedule

__all__ = ["Axis", "Curve", "Figure", "Grid", "Panel", "figure", "plot_schedule"]


def figure(brick: Card | str) -> Figure:
    """Return the picture of a brick: the one kept with the catalog, or computed now for others.

    Args:
        brick: a card, or key, alias or class name of a brick.

    Raises:
        CatalogError: no such brick.

    Example:
        >>> figure("gelu").panels[0].curves[0].label
        'gelu'
    """
    card = get(brick) if isinstance(brick, str) else brick
    kept = stored(card.key)
    if kept is not None:
        return Figure.from_dict(kept)
    from brickyard.plots.make import compute  # imports torch, for bricks of the user's own

    return compute(card)
