"""The commands on the catalog; none of them imports torch."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from brickyard.cli.frame import argument, command
from brickyard.errors import CatalogError, UserError, near

if TYPE_CHECKING:
    from rich.console import RenderableType

    from brickyard.catalog import Card, Kind
    from brickyard.plots import Figure

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


@command(
    "show",
    argument("key", help="key, alias or class name, such as adamw"),
    argument("--plot", nargs="?", const="", metavar="FILE",
             help="its picture: here, or as FILE.svg or FILE.png"),
    argument("--width", type=int, metavar="PIXELS", help="of the picture's file (720)"),
    _JSON,
)  # fmt: skip
def show(key: str, plot: str | None, width: int | None, json: bool) -> None:
    """Print everything about one brick, or draw its curve."""
    from brickyard.catalog import figure, not_with, pages

    card = _card(key)
    if width is not None and not plot:
        raise UserError("--width is for a picture's file: show gelu --plot gelu.svg --width 480")
    if json and plot is not None:
        raise UserError("--json holds the picture's data already; leave --plot out")
    if json:
        pairs = [
            {"key": rule.key, "bricks": rule.others(card.key), "wrong": rule.wrong,
             "instead": rule.instead, "source": rule.source} for rule in not_with(card.key)
        ]  # fmt: skip
        return _print_json({**card.to_dict(), "not_with": pairs, "figure": figure(card.key)})
    if plot is not None:
        return _plot(card, plot, width)
    return _print(lambda width: pages.card_page(card, width))


def _plot(card: Card, file: str, width: int | None) -> None:
    """Draw a brick's picture in the terminal, or write it to a file and print where it is."""
    from brickyard import plots

    shown = plots.figure(card)
    if shown.reason:
        raise UserError(f"there is no picture: {shown.reason}")
    if file:
        from brickyard.plots.files import write

        return print(write(shown, file, *([] if width is None else [width])))
    return show_figure(shown)


def show_figure(shown: Figure) -> None:
    """Draw a picture in the terminal."""
    from brickyard.plots.terminal import draw

    encoding = sys.stdout.encoding or "ascii"
    try:
        "\u28ff\u2502\u2212\u25a0".encode(encoding)
        plain = False
    except (UnicodeEncodeError, LookupError):
        plain = True
    return _print(lambda width: draw(shown, width, plain))


@command(
    "guide",
    argument("category", nargs="?", help="such as losses; a list if left out"),
    argument("--compare", action="store_true", help="only its bricks, side by side"),
)
def guide(category: str | None, compare: bool) -> None:
    """Print how to choose among the bricks of a category."""
    from brickyard.catalog import guide as read
    from brickyard.catalog import pages, shelf
    from brickyard.catalog.shelf import TOPICS

    if category is None:
        if compare:
            raise UserError("--compare takes a category: guide losses --compare")
        return _print(lambda width: pages.guides_page())
    close = near(category, TOPICS)
    if category not in TOPICS and "did you mean" in close:  # doctor and training are no categories
        raise UserError(f"no guide is called {category!r}{close}")
    kind = None if category in TOPICS else _category(category)
    if compare:
        if kind is None:
            raise UserError(f"{category} is no category: there are no bricks to compare")
        return _print(lambda width: pages.compare_page(kind, shelf(kind.name), width))
    text = read(kind.category if kind else category)
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
