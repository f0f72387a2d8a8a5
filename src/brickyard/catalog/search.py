"""Rank cards by a text query."""

from __future__ import annotations

from brickyard.catalog.card import Card


def search(text: str, kind: str | None = None, limit: int = 10) -> list[tuple[float, Card]]:
    """Return ``(score, card)`` pairs, best first."""
    raise NotImplementedError
