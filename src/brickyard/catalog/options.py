"""Read a brick's options from its signature, and check values against them without building it."""

from __future__ import annotations

import inspect
import math
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

_NUMBERS = {"int", "float", "number"}
_SCALARS = {int: "int", float: "float", bool: "bool", str: "str", None: "None", type(None): "None"}


@dataclass(frozen=True)
class Option:
    """Describe one option: name, type as text, default, whether it must be given, meaning."""

    name: str
    type: str = "Any"
    default: Any = None
    required: bool = False
    doc: str = ""


def describe(target: Callable[..., Any], injected: Collection[str] = ()) -> tuple[Option, ...]:
    """Return the options of ``target`` in signature order, without those in ``injected``.

    Args:
        target: a class or function.
        injected: names that the caller's code supplies.
    """
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return ()
    hints = _hints(target)
    docs = _argument_docs(inspect.getdoc(target) or "")
    found = []
    for parameter in signature.parameters.values():
        if parameter.name in injected or parameter.name.startswith("_"):
            continue
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        required = parameter.default is parameter.empty
        default = None if required else _plain(parameter.default)
        kind = simplify(hints.get(parameter.name, parameter.annotation), default, required)
        found.append(Option(parameter.name, kind, default, required, docs.get(parameter.name, "")))
    return tuple(found)


def takes_any(target: Callable[..., Any]) -> bool:
    """Say whether ``target`` accepts arbitrary keywords."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):  # a class of C without a signature: it will say itself
        return True
    return any(p.kind is p.VAR_KEYWORD for p in parameters)


def simplify(hint: Any, default: Any = None, required: bool = True) -> str:
    """Return a type hint as the short text that cards print and ``coerce`` reads."""
    if hint is inspect.Parameter.empty or isinstance(hint, str | typing.TypeVar) or hint is Any:
        if required or default is None:
            return "Any"
        if isinstance(default, bool | str):
            return type(default).__name__
        return "number" if isinstance(default, int | float) else "Any"
    if hint in _SCALARS:
        return _SCALARS[hint]
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Literal:
        return " | ".join(repr(a) for a in args)
    if origin in (typing.Union, types.UnionType):
        parts = list(dict.fromkeys(simplify(a) for a in args))
        if _NUMBERS & set(parts):  # a tensor in place of a number is no recipe's business
            parts = [p for p in parts if p != "Any"]
        return "Any" if "Any" in parts else " | ".join(parts)
    if origin is tuple and args:
        inner = ["..." if a is Ellipsis else simplify(a) for a in args]
        return f"tuple[{', '.join(inner)}]"
    if origin in (list, Sequence, Iterable) or hint in (list, tuple):
        return f"list[{simplify(args[0])}]" if args else "list"
    if origin in (dict, Mapping) or hint is dict:
        return "dict"
    return "Any"


def coerce(value: Any, kind: str) -> Any:
    """Return ``value`` as the type text ``kind`` wants it.

    Args:
        value: what a recipe gave.
        kind: a type as :func:`simplify` writes it.

    Raises:
        TypeError: the value is not of that type.
    """
    alternatives = _split(kind, " | ")
    if len(alternatives) > 1:
        for one in sorted(alternatives, key=lambda a: a not in _exact_names(value)):
            try:
                return coerce(value, one)
            except TypeError:
                continue
        raise TypeError(kind)
    if kind == "Any" or (kind == "None" and value is None):
        return value
    if kind[:1] in "'\"" or kind.lstrip("-").isdigit() or kind in ("True", "False"):
        if repr(value) == kind:
            return value
        raise TypeError(kind)
    if kind in _NUMBERS:
        return _number(value, kind)
    if kind.startswith(("tuple", "list")):
        return _sequence(value, kind)
    if kind in {"bool", "str", "dict"} and type(value).__name__ == kind:
        return value
    raise TypeError(kind)


def _exact_names(value: Any) -> set[str]:
    return {type(value).__name__, "None" if value is None else repr(value)}


def _number(value: Any, kind: str) -> int | float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(kind)
    if kind == "float":
        try:
            return float(value)
        except OverflowError as error:
            raise TypeError(kind) from error
    if kind == "int" and isinstance(value, float) and not value.is_integer():
        raise TypeError(kind)
    return int(value) if kind == "int" else value


def _sequence(value: Any, kind: str) -> Any:
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise TypeError(kind)
    make = tuple if kind.startswith("tuple") else list
    inner = _split(kind[kind.index("[") + 1 : -1], ", ") if "[" in kind else []
    if not inner:
        return make(value)
    if inner[-1] == "..." or make is list:
        return make(coerce(v, inner[0]) for v in value)
    if len(inner) != len(value):
        raise TypeError(kind)
    return make(coerce(v, k) for v, k in zip(value, inner, strict=True))


def _split(text: str, by: str) -> list[str]:
    """Split at ``by`` outside brackets and quotes."""
    parts, depth, quote, start, i = [], 0, "", 0, 0
    while i < len(text):
        c = text[i]
        if quote:
            quote = "" if c == quote else quote
        elif c in "'\"":
            quote = c
        elif c in "[]":
            depth += 1 if c == "[" else -1
        elif depth == 0 and text.startswith(by, i):
            parts.append(text[start:i])
            i += len(by)
            start = i
            continue
        i += 1
    return [*parts, text[start:]]


def _hints(target: Callable[..., Any]) -> dict[str, Any]:
    function: Any = target.__init__ if inspect.isclass(target) else target
    try:
        return typing.get_type_hints(function)
    except Exception:  # a name that is imported for type checkers only: leave out what uses it
        known: dict[str, Any] = {}
        for name, hint in getattr(function, "__annotations__", {}).items():
            with suppress(Exception):
                one = types.SimpleNamespace(__annotations__={name: hint})
                known |= typing.get_type_hints(one, getattr(function, "__globals__", {}))
        return known


def _plain(value: Any) -> Any:
    """Return a default as JSON can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return getattr(value, "__name__", None) or repr(value)


def _argument_docs(doc: str) -> dict[str, str]:
    """Return the text behind each name of a docstring's ``Args:`` section."""
    section = re.search(r"^Args:[^\n]*\n((?:[ \t]+\S.*\n?|\s*\n)+)", doc + "\n", flags=re.M)
    if not section:
        return {}
    found: dict[str, str] = {}
    name, indent = "", None
    for line in section.group(1).splitlines():
        if not line.strip():
            continue
        margin = len(line) - len(line.lstrip())
        indent = margin if indent is None else indent
        head = re.match(r"\s*\*{0,2}`{0,2}(\w+)`{0,2}\s*(?:\([^)]*\))?\s*:\s*(.*)", line)
        if head and margin == indent:
            name = head.group(1)
            found[name] = head.group(2).strip()
        elif name:
            found[name] += " " + line.strip()
    return found
