"""Choose the scales of a panel: the same for SVG and for the terminal."""

from __future__ import annotations

import math

from brickyard.plots.figure import Panel
from brickyard.plots.svg import Scale, linear, logarithmic, ordinal

__all__ = ["scales"]


def scales(panel: Panel, x_ticks: int = 6, y_ticks: int = 5) -> tuple[Scale, Scale]:
    """Return the horizontal and the vertical scale of a panel.

    Args:
        panel: the plot.
        x_ticks: about how many labels fit below.
        y_ticks: about how many labels fit beside.
    """
    low, high = panel.at[0], panel.at[-1]
    if panel.x.log:
        x = logarithmic(low, high)
    elif panel.x.share:
        x = linear(low, high, True, x_ticks)
    else:
        x = ordinal(low, high, x_ticks)
    known = [v for curve in panel.curves for v in curve.y if v is not None and math.isfinite(v)]
    bottom = min(known, default=0.0) if panel.y.low is None else panel.y.low
    top = max(known, default=1.0) if panel.y.high is None else panel.y.high
    if panel.y.log:
        bottom, top = min(bottom, 0.5), max(top, 2.0)
        return x, logarithmic(bottom, top)
    return x, linear(bottom, top, panel.y.share, y_ticks)
