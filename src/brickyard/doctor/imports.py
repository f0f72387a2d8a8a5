"""Call a function when a package is first imported, without importing it early."""

from __future__ import annotations

import importlib.machinery
import sys
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any


def when_imported(name: str, call: Callable[[], None]) -> Callable[[], None]:
    """Call ``call`` right after package ``name`` was imported; returns what takes this back.

    Args:
        name: a top-level package.
        call: takes nothing; an exception in it reaches the importer.
    """
    finder = _Finder(name, call)
    sys.meta_path.insert(0, finder)
    return finder.remove


class _Finder:
    """Find one package as usual, and hear of the end of its import."""

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self.name = name
        self.call = call

    def remove(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        self.remove()
        for finder in sys.meta_path:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                break
        else:
            return None
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            """Import the package, then tell."""
            try:
                execute(module)
            finally:
                del loader.exec_module
            self.call()

        loader.exec_module = exec_module
        return spec
