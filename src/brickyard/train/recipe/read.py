"""Read recipe files and overrides, and keep the line of everything for messages."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from brickyard.errors import RecipeError
from brickyard.train.recipe.model import MANY, ONE, Component, Recipe


class _Loader(yaml.SafeLoader):
    """Read YAML 1.2's plain values: 1e-3 is a number, and yes, no, on, off are text."""


_Loader.yaml_implicit_resolvers = {}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?\d+", list("-+0123456789")),
    ("float", rf"{_NUMBER}|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", list("-+.0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), _first
    )


def _whole_number(loader: Any, node: Any) -> int:
    """Read 0123 as 123, as YAML 1.2 does; PyYAML's own reader takes it for octal."""
    return int(loader.construct_scalar(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)


_PLAIN_TAGS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
_BRICKS = {*ONE, *MANY}


def read_file(path: str | Path) -> tuple[dict[str, Any], dict[str, int]]:
    """Return a recipe file's content and the line of every path in it.

    Args:
        path: a YAML file.

    Raises:
        RecipeError: no such file, no YAML, a key given twice, or not a mapping at the top.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"no recipe at {path}{_others(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"cannot read {path}: {error}") from None
    value, lines = parse(text, str(path))
    if not isinstance(value, dict):
        what = "is empty" if value is None else f"holds a {type(value).__name__}"
        raise RecipeError(f"{path} {what}; a recipe is a mapping such as `data: digits`")
    return value, lines


def _others(path: Path) -> str:
    """Return the recipes that are there, for the message."""
    for folder in (path.parent, path.parent / "recipes"):
        found = [one for one in sorted(folder.glob("[!.]*.y*ml")) if _is_recipe(one)]
        if found:
            names = {one.stem: str(one) for one in found}
            close = get_close_matches(path.stem, names)
            if close:
                return f"; did you mean {' or '.join(names[one] for one in close)}?"
            more = ", ..." if len(found) > 8 else ""
            return f"; there are {', '.join(map(str, found[:8]))}{more}"
    return ""


def _is_recipe(path: Path) -> bool:
    with suppress(OSError, UnicodeDecodeError):
        if path.is_file() and path.stat().st_size < 2**20:  # no pipe, and no data
            lines = path.read_text(encoding="utf-8").splitlines()
            return bool({line.partition(":")[0] for line in lines} & {"data", "model", "task"})
    return False


def parse(text: str, source: str) -> tuple[Any, dict[str, int]]:
    """Return the value of a YAML text and the line of every dotted path in it.

    Raises:
        RecipeError: the text is no YAML; the message says where.
    """
    loader = _Loader(text)
    lines: dict[str, int] = {}
    try:
        node = loader.get_single_node()
        value = None if node is None else _construct(loader, node, "", lines, source)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        hint = "; text that begins with * stands in quotes: '*.bias'" if "*" in text else ""
        raise RecipeError(f"{source}{where} is not readable YAML: {what}{hint}") from None
    finally:
        loader.dispose()
    return value, lines


def _construct(
    loader: _Loader, node: yaml.Node, path: str, lines: dict[str, int], source: str
) -> Any:
    lines.setdefault(path, node.start_mark.line + 1)
    if not isinstance(node, yaml.ScalarNode) and node.tag not in _PLAIN_TAGS:
        raise RecipeError(
            f"{source}, line {lines[path]} is not readable YAML: recipes have no tags "
            f"such as {node.tag!r}"
        )
    if isinstance(node, yaml.MappingNode):
        loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            below = f"{path}.{key}" if path else key
            if key in found:
                raise RecipeError(f"{source}, line {line}: {below} is given twice; keep one")
            lines[below] = line
            found[key] = _construct(loader, value_node, below, lines, source)
        return found
    if isinstance(node, yaml.SequenceNode):
        return [
            _construct(loader, one, f"{path}.{i}", lines, source)
            for i, one in enumerate(node.value)
        ]
    return loader.construct_object(node)


def apply_overrides(raw: dict[str, Any], overrides: Iterable[str]) -> set[str]:
    """Set ``path.to.field=value`` pairs in a recipe's raw content; return the paths that were set.

    Args:
        raw: the recipe's content, changed in place.
        overrides: such as ``"optimizer.lr=1e-3"``, ``"schedule.0.steps=3%"``, ``"budget=5ep"``.

    Raises:
        RecipeError: no ``=``, an unreadable value, or a path through something that has no fields.
    """
    touched = set()
    for override in overrides:
        path, equals, text = override.partition("=")
        path = path.strip()
        if not equals or not path:
            raise RecipeError(
                f"an override is path=value, such as optimizer.lr=1e-3; got {override!r}"
            )
        value, _ = parse(text, f"override {override!r}")
        _set(raw, path.split("."), value, override)
        touched.add(path)
    return touched


def _set(raw: dict[str, Any], path: list[str], value: Any, override: str) -> None:
    at: Any = raw
    for depth, key in enumerate(path):
        last = depth == len(path) - 1
        if isinstance(at, list):
            if not key.isdigit() or int(key) >= len(at):
                place = ".".join(path[:depth])
                raise RecipeError(
                    f"override {override!r}: {place} is a list of {len(at)}; "
                    f"give an index from 0 to {len(at) - 1}, not {key!r}"
                )
            index: Any = int(key)
        else:
            index = key
        if last:
            at[index] = value
            return
        below = at[index] if isinstance(at, list) else at.get(index)
        if isinstance(below, str) and path[0] in _BRICKS:  # `optimizer: adamw` is short for a name
            below = {"name": below}
        elif below is None:  # of a brick that goes without saying, options can be set all the same
            usual = Recipe.model_fields[key].default if at is raw and key in ONE else None
            below = {"name": usual.name} if isinstance(usual, Component) else {}
        elif not isinstance(below, dict | list):
            raise RecipeError(
                f"override {override!r}: {'.'.join(path[: depth + 1])} is {below!r}, "
                "which has no fields"
            )
        at[index] = below
        at = below
