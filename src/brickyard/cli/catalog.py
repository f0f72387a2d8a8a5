"""The commands on the catalog; none of them imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from brickyard.cli.frame import argument, command
from brickyard.errors import CatalogError, UserError

if TYPE_CHECKING:
    from rich.console import RenderableType

    from brickyard.catalog import Card, Kind

_JSON = argument("--json", action="store_true", help="print JSON instead")


@command(
    "catalog",
    argument("category", nargs="?", help="such as losses; all if left out"),
    argument("--search", "-s", metavar="TEXT", help="what to look for, such as 'class imbalance'"),
    argument("--compare", action="store_true", help="the category's bricks side by side"),
    argument("--limit", type=int, default=10, help="most results of a search (10)"),
    _JSON,
)
def catalog(
    category: str | None, search: str | None, compare: bool, limit: int, json: bool
) -> int | None:
    """List the categories, the bricks of one, or what fits a search."""
    from brickyard.catalog import pages, shelf
    from brickyard.catalog import search as find

    kind = _category(category) if category else None
    if compare and (kind is None or search is not None):
        raise UserError("--compare takes a category and no search: catalog losses --compare")
    if limit < 1:
        raise UserError(f"--limit must be 1 or more; got {limit}")
    if search is not None:
        hits = find(search, kind.name if kind else None, limit)
        if json:
            return _print_json([{"score": score, **card.to_dict()} for score, card in hits])
        if not hits:
            hint = "try other words, or: brickyard catalog"
            print(f"nothing fits {search!r}; {hint}", file=sys.stderr)
            return 1
        return _print(lambda width: pages.search_page(search, hits, width))
    cards = shelf(kind.name if kind else None)
    if json:
        return _print_json([card.to_dict() for card in cards])
    if kind is None:
        return _print(lambda width: pages.overview(cards))
    page = pages.compare_page if compare else pages.category_page
    return _print(lambda width: page(kind, cards, width))


@command("show", argument("key", help="key, alias or class name, such as adamw"), _JSON)
def show(key: str, json: bool) -> None:
    """Print everything about one brick."""
    from brickyard.catalog import pages

    card = _card(key)
    if json:
        return _print_json(card.to_dict())
    return _print(lambda width: pages.card_page(card, width))


@command("guide", argument("category", nargs="?", help="such as losses; a list if left out"))
def guide(category: str | None) -> None:
    """Print how to choose among the bricks of a category."""
    from brickyard.catalog import guide as read
    from brickyard.catalog import pages

    if category is None:
        return _print(lambda width: pages.guides_page())
    text = read(_category(category).category)
    if not sys.stdout.isatty():
        print(text, end="")  # Markdown reads well as it is, and pipes into anything
        return None
    return _print(lambda width: pages.guide_page(text, width))


def _category(name: str) -> Kind:
    from brickyard.catalog import find_kind, get

    try:
        return find_kind(name)
    except CatalogError as error:
        with suppress(CatalogError):
            hint = f"{name!r} is a brick, not a category; see: brickyard show {get(name).key}"
            raise UserError(hint) from None
        raise error from None


def _card(key: str) -> Card:
    from brickyard.catalog import find_kind, get

    try:
        return get(key)
    except CatalogError as error:
        with suppress(CatalogError):
            hint = f"{key!r} is a category; see: brickyard catalog {find_kind(key).category}"
            raise UserError(hint) from None
        raise UserError(f'{error}; to look for it: brickyard catalog --search "{key}"') from None


def _print(page: Callable[[int], RenderableType]) -> None:
    """Print what ``page(width)`` returns; as plain text where colours are not wanted."""
    from rich.console import Console

    class Quitting(Console):
        def on_broken_pipe(self) -> None:
            raise BrokenPipeError

    console = Quitting(highlight=False, markup=False, emoji=False)
    console.print(page(console.width))


def _print_json(value: Any) -> None:
    import json

    print(json.dumps(value, indent=1, ensure_ascii=False))
