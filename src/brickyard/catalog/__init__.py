"""The catalog: cards on bricks, and the shelf that finds and builds them (imports no torch)."""

from brickyard.catalog.card import Card, brick
from brickyard.catalog.figures import figure
from brickyard.catalog.kinds import KINDS, Kind, find_kind
from brickyard.catalog.options import Option
from brickyard.catalog.pairs import not_with
from brickyard.catalog.search import search
from brickyard.catalog.shelf import build, check, get, guide, shelf

__all__ = [
    "KINDS", "Card", "Kind", "Option", "brick", "build", "check", "figure", "find_kind", "get",
    "guide", "not_with", "search", "shelf",
]  # fmt: skip
