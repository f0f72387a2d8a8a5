"""Replace attributes of classes and modules, and put them back exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_MISSING = object()
_MARK = "_brickyard_doctor_original"


class Patches:
    """Remember what was replaced; :meth:`undo` puts it back in reverse order.

    Another package may have replaced the same attribute after us: then its wrapper stays, and
    ours inside it only passes through.
    """

    def __init__(self) -> None:
        self._done: list[tuple[Any, str, Any, Any]] = []
        self._handles: list[Any] = []

    def replace(self, owner: Any, name: str, make: Callable[[Any], Any]) -> None:
        """Replace an attribute by ``make(original)``.

        Args:
            owner: class or module.
            name: attribute.
            make: takes what is there, returns the replacement.
        """
        own = vars(owner).get(name, _MISSING)
        current = getattr(owner, name)
        new = functools.wraps(current)(make(current))
        setattr(new, _MARK, current)
        setattr(owner, name, new)
        self._done.append((owner, name, own, new))

    def rebind(self, namespace: dict[str, Any], original: Any, owner: Any, name: str) -> None:
        """Replace names that a module bound to a function before it was replaced.

        Args:
            namespace: globals of a module of the user's.
            original: the function as it was.
            owner: where its replacement stands.
            name: the name there.
        """
        new = getattr(owner, name)
        for key in [k for k, v in namespace.items() if v is original]:
            namespace[key] = new
            self._done.append((namespace, key, original, new))

    def keep(self, handle: Any) -> None:
        """Remember a handle with ``remove()``."""
        self._handles.append(handle)

    def undo(self) -> None:
        """Put everything back."""
        for handle in reversed(self._handles):
            handle.remove()
        self._handles.clear()
        for owner, name, own, new in reversed(self._done):
            if isinstance(owner, dict):
                if owner.get(name) is new:
                    owner[name] = own
            elif vars(owner).get(name) is new:
                if own is _MISSING:
                    delattr(owner, name)
                else:
                    setattr(owner, name, own)
        self._done.clear()
