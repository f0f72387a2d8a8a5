"""Training bricks for PyTorch, verified and carded; importing this costs no torch import."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from brickyard.version import __version__

__all__ = ["__version__"]

_ROOMS = frozenset(module.name for module in pkgutil.iter_modules(__path__))


def __getattr__(name: str) -> ModuleType:
    """Import a room (``brickyard.optim``, ``brickyard.losses`` ...) when it is first used."""
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module 'brickyard' has no attribute {name!r}; it has {sorted(_ROOMS)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_ROOMS})
