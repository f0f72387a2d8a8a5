"""The catalog: cards on bricks, and the shelf that finds and builds them (imports no torch)."""

from brickyard.catalog.card import Card, brick
from brickyard.catalog.kinds import KINDS, Kind, find_kind
from brickyard.catalog.options import Option
from brickyard.catalog.search import search
from brickyard.catalog.shelf import build, check, get, guide, shelf

__all__ = [
    "KINDS", "Card", "Kind", "Option", "brick", "build", "check", "find_kind", "get", "guide",
    "search", "shelf",
]  # fmt: skip
