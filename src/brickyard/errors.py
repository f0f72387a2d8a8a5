"""Errors that a user can act on: the command line prints them as one message with exit code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """Base of every error whose message tells the user what to change."""


class CatalogError(UserError, KeyError):
    """A key that no card has, or a brick that cannot be built."""

    def __str__(self) -> str:
        return str(self.args[0]) if self.args else ""


class RecipeError(UserError, ValueError):
    """A recipe that cannot be read, checked or built."""


class DataError(UserError, ValueError):
    """Data that is missing, empty, non-finite or otherwise unusable."""


class RunError(UserError, RuntimeError):
    """A run folder or checkpoint that cannot be written, read or resumed."""


def near(name: str, known: Iterable[str], most: int = 4) -> str:
    """Return ``"; did you mean 'a' or 'b'?"`` for close names, the whole list when it is short.

    Args:
        name: what was received.
        known: what would have been accepted.
        most: how many near names to give at the most.
    """
    names = sorted(set(known))
    close = difflib.get_close_matches(name.lower(), names, n=most, cutoff=0.55)
    if close:
        return f"; did you mean {' or '.join(repr(c) for c in close)}?"
    if not names:
        return "; nothing is accepted here"
    if len(names) <= 16:
        return f"; allowed: {', '.join(names)}"
    return ""
