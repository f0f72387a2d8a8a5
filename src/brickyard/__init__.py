"""Training bricks for PyTorch, verified and carded; importing this costs no torch import."""

from __future__ import annotations

import importlib
from types import ModuleType

from brickyard.version import __version__

__all__ = ["__version__"]


def __getattr__(name: str) -> ModuleType:
    """Import a room (``brickyard.optim``, ``brickyard.losses`` ...) when it is first used."""
    room = f"{__name__}.{name}"
    if not name.startswith("_"):
        try:
            return importlib.import_module(room)
        except ModuleNotFoundError as error:
            if error.name != room:
                raise
    raise AttributeError(f"module 'brickyard' has no attribute {name!r}; it has {_rooms()}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_rooms()})


def _rooms() -> list[str]:
    import pkgutil  # only here: it takes longer than all the rest

    names = (module.name for module in pkgutil.iter_modules(__path__))
    return sorted(name for name in names if not name.startswith("_"))
