"""Put a card on a brick: what it is, when to use it, when not, what to tune, what it costs."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

from brickyard.catalog.kinds import ALWAYS_INJECTED, KINDS, Kind, find_kind
from brickyard.catalog.options import Option, describe
from brickyard.errors import CatalogError

T = TypeVar("T", bound=Callable[..., Any])

#: Fields that a human types; every one of them must say something.
WRITTEN = ("summary", "use_when", "avoid_when", "best_for", "paper", "tune_first", "cost")


@dataclass(frozen=True)
class Card:
    """Hold everything known about one brick.

    Typed by hand: ``summary`` to ``facts``. Derived from the object itself: the rest.
    ``target`` is ``"module:name"``; ``load()`` imports it.
    """

    key: str
    kind: str
    target: str
    aliases: tuple[str, ...] = ()
    summary: str = ""
    use_when: str = ""
    avoid_when: str = ""
    best_for: str = ""
    paper: str = ""
    tune_first: str = ""
    cost: str = ""
    pairs_with: tuple[str, ...] = ()
    facts: Mapping[str, str] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    extra: str = ""
    formula: str = ""
    doc: str = ""
    options: tuple[Option, ...] = ()
    origin: str = ""
    source: str = ""
    derived: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the name of the class or function."""
        return self.target.rpartition(":")[2]

    @property
    def about(self) -> Kind:
        """Return the kind of this brick."""
        return KINDS[self.kind]

    def load(self) -> Callable[..., Any]:
        """Import and return the brick itself.

        Raises:
            CatalogError: it needs a package that is not installed.
        """
        missing = [n for n in self.needs if importlib.util.find_spec(n.split(".")[0]) is None]
        if missing:
            raise CatalogError(
                f"{self.key!r} needs {', '.join(missing)}, not installed here; "
                f"run: pip install 'brickyard[{self.extra}]'"
            )
        module, _, name = self.target.partition(":")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain data, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Card:
        """Return the card that :meth:`to_dict` wrote."""
        known = {f.name for f in fields(cls)}
        values = {k: v for k, v in data.items() if k in known}
        for name in ("aliases", "pairs_with", "needs"):
            values[name] = tuple(values.get(name, ()))
        values["options"] = tuple(Option(**o) for o in values.get("options", ()))
        return cls(**values)


#: Cards of modules imported in this process, by key.
LIVE: dict[str, Card] = {}


def brick(kind: str, key: str, *, formula: str = "", **written: Any) -> Callable[[T], T]:
    """Put a card on a class or function and return it unchanged.

    Args:
        kind: singular name of a kind, such as ``"loss"``.
        key: the name in recipes and in ``get``; lower case.
        formula: only for objects of other libraries; ours have a ``Math:`` block.
        written: the card's fields that people write (see :class:`Card`), ``public`` (the module
            where users find it, if not where it stands), and the kind's own facts.

    Raises:
        CatalogError: an unknown kind or field, or a key that another brick has.

    Example:
        >>> from brickyard.catalog import get
        >>> get("adamw").kind
        'optimizer'
    """
    about = find_kind(kind)
    if not re.fullmatch(r"[a-z0-9_]+", key):
        raise CatalogError(f"a key has lower-case letters, digits and _; got {key!r}")
    home = sys._getframe(1).f_globals.get("__name__", "")
    public = written.pop("public", "")

    def register(target: T) -> T:
        card = _make_card(about, key, target, home, public, formula, dict(written))
        before = LIVE.get(key)
        if before is not None and before.target != card.target:
            raise CatalogError(f"two bricks are called {key!r}: {before.target} and {card.target}")
        LIVE[key] = card
        return target

    return register


def _make_card(
    kind: Kind, key: str, target: Callable[..., Any], home: str, public: str,
    formula: str, written: dict[str, Any],
) -> Card:  # fmt: skip
    facts = {name: written.pop(name) for name in kind.facts if name in written}
    facts.update(written.pop("facts", {}))
    allowed = {*WRITTEN, "aliases", "pairs_with", "needs", "extra"}
    unknown = sorted(set(written) - allowed)
    if unknown:
        raise CatalogError(
            f"the card {key!r} has unknown fields {unknown}; allowed: "
            f"{', '.join(sorted({*allowed, *kind.facts, 'facts', 'formula', 'public'}))}"
        )
    doc = inspect.getdoc(target) or ""
    module = getattr(target, "__module__", "") or home
    own = module.split(".")[0] == home.split(".")[0]
    for name in ("aliases", "pairs_with", "needs"):
        written[name] = tuple(written.get(name, ()))
    options = describe(target, kind.injected | ALWAYS_INJECTED)
    if not own:  # the words of another library's documentation stay there
        options = tuple(replace(option, doc="") for option in options)
    return Card(
        key=key,
        kind=kind.name,
        target=f"{public or (module if own else home)}:{getattr(target, '__qualname__', key)}",
        facts=facts,
        formula=formula or docstring_block(doc, "Math"),
        doc=doc.splitlines()[0] if doc and own else "",
        options=options,
        origin="own" if own else module.split(".")[0],
        source=home.replace(".", "/"),
        **written,
    )


def docstring_block(doc: str, title: str) -> str:
    """Return the dedented text under ``title:`` in a docstring; empty if there is none."""
    found = re.search(rf"^{title}:[ \t]*\n((?:[ \t]+\S.*(?:\n|$)|[ \t]*\n)+)", doc, flags=re.M)
    return inspect.cleandoc("\n" + found.group(1)).strip() if found else ""
