"""Read the pictures of the bricks: data series kept beside the cards, so that no torch is needed.

They are computed from the bricks themselves by ``brickyard.plots`` and written to ``figures.json``
by ``python -m brickyard.plots``.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from brickyard.errors import CatalogError

__all__ = ["FIGURES", "figure"]

FIGURES = Path(__file__).with_name("figures.json")


def figure(key: str) -> dict[str, Any] | None:
    """Return the picture of a brick as plain data; None if none is kept.

    ``panels`` hold titles, axes and curves, ``grids`` hold cells; where there is neither,
    ``reason`` says why.

    Args:
        key: key of a brick, as on its card.

    Example:
        >>> [panel["title"] for panel in figure("tanh")["panels"]]
        ['Function', 'Derivative']
    """
    return _stored().get(key)


@cache
def _stored() -> dict[str, Any]:
    if not FIGURES.exists():  # only while the very first ones are being generated
        return {}
    try:
        return json.loads(FIGURES.read_text(encoding="utf-8"))["figures"]
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            f"{FIGURES} is damaged ({error}); reinstall brickyard, or in a checkout run: "
            "python -m brickyard.plots"
        ) from error
