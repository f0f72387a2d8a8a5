"""Keep the shelf: find cards, build bricks, generate ``catalog.json`` and check all of it."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from brickyard.catalog.card import LIVE, WRITTEN, Card
from brickyard.catalog.derive import derive
from brickyard.catalog.kinds import KINDS, Kind, find_kind
from brickyard.catalog.options import takes_any
from brickyard.errors import CatalogError, near

CATALOG = Path(__file__).with_name("catalog.json")
GUIDES = Path(__file__).with_name("guides")
#: Modules that are run, or that Python takes from a path of their own; importing them acts.
_RUN = ("__main__", "sitecustomize", "brickyard_hook")
#: Guides that are not about a category of bricks.
TOPICS = {
    "training": "What a recipe may say, what a run does, keeps and survives; one process or many",
    "doctor": "Find what is wrong with a training script, or ask before it runs.",
}


@cache
def _stored() -> dict[str, Card]:
    if not CATALOG.exists():  # only while the very first catalog is being generated
        return {}
    try:
        rows = json.loads(CATALOG.read_text(encoding="utf-8"))["cards"]
        return {row["key"]: Card.from_dict(row) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            f"{CATALOG} is damaged ({error}); reinstall brickyard, or in a checkout run: "
            "python -m brickyard.catalog"
        ) from error


def shelf(kind: str | None = None) -> list[Card]:
    """Return all cards, or those of one kind, in the catalog's order.

    Cards of modules that this process has imported (a user's own bricks too) are included.

    Args:
        kind: singular or plural name of a kind.

    Raises:
        CatalogError: no such kind, or a user's brick has the key of one of ours.
    """
    cards = dict(_stored())
    for key, card in LIVE.items():
        ours = cards.setdefault(key, card)
        if ours.target != card.target and not card.source.startswith("brickyard/"):
            raise CatalogError(f"two bricks are called {key!r}: {ours.target} and {card.target}")
    wanted = find_kind(kind).name if kind else None
    return [card for card in cards.values() if wanted in (None, card.kind)]


def get(key: str, kind: str | None = None) -> Card:
    """Return the card called ``key``: its key, an alias or the class's name, in any case.

    Args:
        key: for example ``"focal"``, ``"l1"`` or ``"FocalLoss"``.
        kind: look only among bricks of this kind.

    Raises:
        CatalogError: no such card; the message gives near names.

    Example:
        >>> get("logistic").key
        'sigmoid'
    """
    wanted = _fold(key)
    cards = shelf(kind)
    for names in (lambda c: {c.key}, lambda c: set(c.aliases), lambda c: {c.name}):
        for card in cards:
            if wanted in {_fold(n) for n in names(card)}:
                return card
    known = {n for card in cards for n in (card.key, *card.aliases)}
    what = find_kind(kind).name if kind else "brick"
    raise CatalogError(f"no {what} is called {key!r}{near(wanted, known)}")


def _fold(name: str) -> str:
    return name.strip().lower().replace("-", "_").replace(" ", "_")


def build(kind: str, key: str, /, *injected: Any, **options: Any) -> Any:
    """Build a brick by kind and key.

    Args:
        kind: singular or plural name of a kind.
        key: its key, alias or class name.
        injected: what the brick takes first and no recipe can say, such as the parameters.
        options: its options by name.

    Raises:
        CatalogError: unknown kind, key or option, a missing option, or a missing package.

    Example:
        >>> build("loss", "huber", delta=0.5).delta
        0.5
    """
    card = get(key, kind)
    target = card.load()
    names = {option.name for option in card.options} | card.about.injected
    unknown = [name for name in options if name not in names]
    if unknown and not takes_any(target):
        raise CatalogError(f"{card.key!r} has no option {unknown[0]!r}{near(unknown[0], names)}")
    with suppress(ValueError):  # an object in C may have no signature
        signature = inspect.signature(target)
        try:
            signature.bind(*injected, **options)
        except TypeError as error:
            raise CatalogError(f"cannot build {card.key!r}: {error}") from error
    return target(*injected, **options)


def guide(category: str) -> str:
    """Return the guide of a category, or on another topic, as Markdown.

    Raises:
        CatalogError: no such category, or one whose guide is not written.
    """
    if category in TOPICS:
        return (GUIDES / f"{category}.md").read_text(encoding="utf-8")
    kind = find_kind(category)
    path = GUIDES / f"{kind.category}.md"
    if not path.exists():
        known = sorted(p.stem for p in GUIDES.glob("*.md"))
        raise CatalogError(f"{kind.category} has no guide yet; written: {', '.join(known)}")
    return path.read_text(encoding="utf-8")


def live_cards(package: str = "brickyard") -> list[Card]:
    """Import every module of ``package`` and return its cards in the catalog's order."""
    for name in _modules(package):
        importlib.import_module(name)
    order = {name: i for i, name in enumerate(KINDS)}
    own = [c for c in LIVE.values() if c.source.split("/")[0] == package]
    places = {card.key: i for i, card in enumerate(own)}
    return sorted(own, key=lambda c: (order[c.kind], c.source, places[c.key]))


def _modules(package: str) -> Iterator[str]:
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, f"{package}."):
        if module.name.rpartition(".")[2] not in _RUN:
            yield module.name


def generate() -> str:
    """Return the text of ``catalog.json`` for the code as it stands."""
    rows = [{**card.to_dict(), "derived": derive(card)} for card in live_cards()]
    return json.dumps({"cards": rows}, indent=1, ensure_ascii=False, sort_keys=False) + "\n"


def check() -> list[str]:
    """Return what is wrong with the catalog, a line each; empty when all is well."""
    cards = live_cards()
    wrong = [line for card in cards for line in _check_card(card)]
    names: dict[str, str] = {}
    for card in cards:
        for name in (card.key, *card.aliases):
            if name in names:
                wrong.append(f"{card.key}: the name {name!r} belongs to {names[name]} too")
            names[name] = card.key
    for card in cards:
        wrong += [f"{card.key}: pairs_with names {p!r}, which is no key"
                  for p in card.pairs_with if p not in {c.key for c in cards}]  # fmt: skip
    for kind in {card.kind for card in cards}:
        if not (GUIDES / f"{KINDS[kind].category}.md").exists():
            wrong.append(f"guides/{KINDS[kind].category}.md is missing")
    if not CATALOG.exists() or CATALOG.read_text(encoding="utf-8") != generate():
        wrong.append("catalog.json is stale; run: python -m brickyard.catalog")
    return wrong


def _check_card(card: Card) -> Iterator[str]:
    kind: Kind = card.about
    for name in WRITTEN:
        if not getattr(card, name).strip():
            yield f"{card.key}: {name} is empty"
    for name in kind.facts:
        if not str(card.facts.get(name, "")).strip():
            yield f"{card.key}: {name} is empty (every {kind.name} states it)"
    if len(card.summary) > 120:
        yield f"{card.key}: summary has {len(card.summary)} characters; 120 at the most"
    if not card.formula and kind.name not in ("model", "data", "task", "logger"):
        yield f"{card.key}: no Math: block in the docstring, and no formula"
    if card.needs and not card.extra:
        yield f"{card.key}: needs packages but names no extra"
    if card.origin == "own":
        doc = card.load().__doc__ or ""
        first = doc.strip().splitlines()[0] if doc.strip() else ""
        if not first or len(first) > 90:
            yield f"{card.key}: the docstring's first line must have 1 to 90 characters"
        for section in ("Example:", "Reference:"):
            if section not in doc:
                yield f"{card.key}: the docstring has no {section} section"
        for option in card.options:
            if not option.doc:
                yield f"{card.key}: option {option.name!r} is not described under Args:"
