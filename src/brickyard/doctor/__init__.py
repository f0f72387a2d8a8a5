"""The doctor: find what goes wrong in anybody's PyTorch training script.

``brickyard doctor run train.py ARGS`` watches a script as it is; ``with watch() as doctor:``
watches a block, and ``doctor.report()`` says what was seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from brickyard.doctor.finding import Finding, Report

if TYPE_CHECKING:
    from brickyard.doctor.watching import watch

__all__ = ["Finding", "Report", "watch"]


def __getattr__(name: str) -> Any:
    """Import what needs torch when it is first used."""
    if name == "watch":
        from brickyard.doctor.watching import watch

        return watch
    raise AttributeError(f"module 'brickyard.doctor' has no attribute {name!r}; it has {__all__}")
