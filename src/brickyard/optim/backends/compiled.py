"""The compiled backend: the graph's foreach replay given to ``torch.compile``; opt-in."""

from __future__ import annotations

from brickyard.optim.backends.foreach import ForeachRun


class CompiledRun(ForeachRun):
    """Run a plan through ``torch.compile``."""

    name, why = "compiled", "asked for"
