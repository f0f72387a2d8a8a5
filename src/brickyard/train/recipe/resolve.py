"""Turn raw recipes into checked ones, with every default filled in and its origin known."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from brickyard import catalog
from brickyard.catalog.kinds import ALWAYS_INJECTED
from brickyard.catalog.options import Option, coerce, describe, takes_any
from brickyard.errors import CatalogError, RecipeError, near
from brickyard.train.recipe.model import (
    MANY,
    NESTED,
    ONE,
    REFUSED,
    Component,
    Groups,
    Keep,
    Recipe,
)  # fmt: skip
from brickyard.train.recipe.read import apply_overrides, read_file
from brickyard.train.recipe.words import elsewhere, said_here


@dataclass(frozen=True)
class Resolved:
    """Hold a checked recipe, where each of its values came from, and the folder of its file."""

    recipe: Recipe
    origins: Mapping[str, str]
    root: Path

    def rows(self) -> Iterator[tuple[str, Any, str]]:
        """Yield ``(path, value, origin)`` for every value."""
        yield from _rows(self.recipe.to_dict(), "", self.origins)


def load(path: str | Path, overrides: Iterable[str] = ()) -> Resolved:
    """Read, override and check a recipe file.

    Args:
        path: a YAML file.
        overrides: ``path=value`` texts, applied in order.

    Raises:
        RecipeError: anything that is wrong, all of it in one message.
    """
    raw, lines = read_file(path)
    touched = apply_overrides(raw, overrides)
    raw.setdefault("name", Path(path).stem)
    origins = {place: f"line {line}" for place, line in lines.items()}
    for place in touched:
        for known in [p for p in origins if p == place or p.startswith(f"{place}.")]:
            del origins[known]
        origins[place] = "override"
    origins.setdefault("name", "file name")
    return resolve(raw, origins, source=str(path), root=Path(path).parent)


def resolve(
    raw: Mapping[str, Any] | Recipe,
    origins: Mapping[str, str] | None = None,
    source: str = "the recipe",
    root: Path | None = None,
) -> Resolved:
    """Check a recipe against the catalog and fill in every default.

    Args:
        raw: a recipe, or its content.
        origins: where values came from, by dotted path.
        source: what to call the recipe in messages.
        root: folder that relative paths in the recipe start from.

    Raises:
        RecipeError: anything that is wrong, all of it in one message.
    """
    known = dict(origins or {})
    content = raw.to_dict() if isinstance(raw, Recipe) else dict(raw)
    problems: list[tuple[str, str]] = []
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        problems = [_explain(detail) for detail in error.errors()]
        # Bricks can be checked all the same, so that one run shows every mistake.
        recipe = None
    parts = _components(recipe, content)
    filled: dict[str, Any] = {}
    for path, kind, component in parts:
        try:
            filled[path] = fill(component, kind, path, known)
        except _PathError as problem:
            problems.append((problem.path, problem.text))
    if problems or recipe is None:
        raise RecipeError(_message(source, problems, known))
    content = recipe.to_dict()
    for field in ONE:
        if field in filled:
            content[field] = filled[field]
    for field in MANY:
        content[field] = [filled[f"{field}.{i}"] for i in range(len(content[field]))]
    return Resolved(Recipe.model_validate(content), known, root or Path())


def _components(
    recipe: Recipe | None, content: Mapping[str, Any]
) -> list[tuple[str, str, Component]]:
    """Return path, kind and component of every brick that can be read."""
    found = []
    for field, kind in {**ONE, **MANY}.items():
        given = getattr(recipe, field) if recipe is not None else content.get(field)
        if given is None:
            continue
        many = given if isinstance(given, list) else [given]
        for i, one in enumerate(many):
            path = f"{field}.{i}" if field in MANY else field
            try:
                found.append((path, kind, Component.parse(one)))
            except ValueError:  # said by pydantic already
                continue
    return found


#: In place of a default that there is not.
_NEEDED = object()


class _PathError(Exception):
    def __init__(self, path: str, text: str):
        self.path, self.text = path, text


def fill(component: Component, kind: str, path: str, origins: dict[str, str]) -> Component:
    """Return a component with every option checked and every default filled in.

    Args:
        component: as the recipe has it.
        kind: the kind of brick that belongs here.
        path: where it stands, for messages.
        origins: gets the origin of each default.
    """
    if kind == "optimizer" and component.name in REFUSED:
        raise _PathError(path, REFUSED[component.name])
    if component.target:
        target = load_target(component.target, path)
        injected = catalog.find_kind(kind).injected | ALWAYS_INJECTED
        options, any_more = describe(target, injected), takes_any(target)
        label, name = component.target, ""
    else:
        try:
            card = catalog.get(component.name, kind)
        except CatalogError as error:
            others = {card.kind for card in catalog.shelf() if component.name == card.key}
            also = f"; {component.name!r} is a brick of the kind {', '.join(sorted(others))}"
            raise _PathError(path, f"{error}{also if others else ''}") from None
        missing = [need for need in card.needs if importlib.util.find_spec(need) is None]
        if missing:
            raise _PathError(
                path,
                f"{card.key!r} needs {', '.join(missing)}, not installed here; "
                f"run: pip install 'brickyard[{card.extra}]'",
            )
        options, any_more = card.options, False
        label = name = card.key
    component = component.model_copy(update={"name": name})  # an alias is one and the same
    given, made = _pieces(component, kind, options, path, origins)
    values = {**_check_options(given, options, any_more, label, path), **made}
    for option in options:
        if option.name not in values:
            values[option.name] = _default(option)
            origins[f"{path}.{option.name}"] = f"default of {label}"
    return Component(name=name, target=component.target, options=values)


def _pieces(
    component: Component, kind: str, options: tuple[Option, ...], path: str, origins: dict[str, str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part a component's options: numbers to be checked, and bricks that stand inside of it."""
    plain, made = dict(component.options), {}
    for name, inner in NESTED.get((kind, component.name), {}).items():
        usual = next((o.default for o in options if o.name == name and not o.required), _NEEDED)
        value = plain.get(name, usual)
        if value is _NEEDED:
            rule = f"an {inner}, such as {name}: {{name: adamw}}"
            raise _PathError(path, f"{component.name} needs {name}, {rule}")
        if value is not None:
            try:
                below = Component.parse(value)
            except ValueError as error:
                raise _PathError(f"{path}.{name}", str(error)) from None
            made[name] = fill(below, inner, f"{path}.{name}", origins).to_dict()
            plain[name] = made[name]
    for option in options if kind == "optimizer" else ():
        value = plain.get(option.name)
        if isinstance(value, Mapping) and {"float", "number"} & set(option.type.split(" | ")):
            made[option.name] = _scheduled(value, option, f"{path}.{option.name}", origins)
            plain[option.name] = made[option.name]["base"]
    return plain, made


def _scheduled(
    given: Mapping[str, Any], option: Option, path: str, origins: dict[str, str]
) -> dict[str, Any]:
    """Return base value and schedule of a hyperparameter that changes over the run.

    ``{base: 0.1, schedule: [warmup, cosine]}``, or ``{name: cosine, base: 0.1}`` for one piece.
    """
    rest = dict(given)
    base = rest.pop("base", option.default)
    pieces = rest.pop("schedule", None)
    rule = "give {base: NUMBER, schedule: [NAME, ...]} or one piece {name: NAME, base: NUMBER}"
    nameless = pieces is None and not {"name", "target"} & set(rest)
    if nameless or pieces == [] or (pieces is not None and rest):
        raise _PathError(path, f"a number, or to change it over the run {rule}; got {given!r}")
    if base is None:
        raise _PathError(path, f"{rule}: base is missing, and {option.name} has no default")
    try:
        base = coerce(base, option.type)
    except TypeError:
        raise _PathError(f"{path}.base", f"must be {option.type}; got {base!r}") from None
    many = [rest] if pieces is None else pieces if isinstance(pieces, list) else [pieces]
    filled = []
    for i, one in enumerate(many):
        try:
            piece = Component.parse(one)
        except ValueError as error:
            raise _PathError(f"{path}.schedule.{i}", str(error)) from None
        at = path if pieces is None else f"{path}.schedule.{i}"
        filled.append(fill(piece, "schedule", at, origins).to_dict())
    return {"base": base, "schedule": filled}


def _check_options(
    given: Mapping[str, Any], options: tuple[Option, ...], any_more: bool, label: str, path: str
) -> dict[str, Any]:
    known = {option.name: option for option in options}
    values: dict[str, Any] = {}
    for name, value in given.items():
        option = known.get(name)
        if option is None and not any_more:
            hint = elsewhere(name, label) or near(name, known) or f"; it has {', '.join(known)}"
            raise _PathError(f"{path}.{name}", f"{label} has no option {name!r}{hint}")
        try:
            values[name] = value if option is None else coerce(value, option.type)
        except TypeError:
            raise _PathError(
                f"{path}.{name}",
                f"must be {option.type if option else ''}; got {value!r} ({type(value).__name__})",
            ) from None
    for option in options:
        if option.required and option.name not in values:
            raise _PathError(
                path, f"{label} needs {option.name} ({option.type}), which is not given"
            )
    return values


def _default(option: Option) -> Any:
    """Return an option's default in the form that a given value would have."""
    try:
        return coerce(option.default, option.type)
    except TypeError:  # a default outside its own declared type is the brick's business
        return option.default


def load_target(target: str, path: str) -> Callable[..., Any]:
    """Import ``"package.module:object"``.

    Raises:
        RecipeError: through :func:`resolve`, when the module or object cannot be had.
    """
    module, colon, name = target.partition(":")
    if not colon or not module or not name:
        raise _PathError(f"{path}.target", f"must be 'package.module:object'; got {target!r}")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        hint = "is it in the current folder or installed?"
        raise _PathError(f"{path}.target", f"cannot import {module!r} ({error}); {hint}") from None
    except Exception as error:  # the user's own module failed: its error is the message
        text = f"importing {module!r} failed: {type(error).__name__}: {error}"
        raise _PathError(f"{path}.target", text) from error
    for part in name.split("."):
        if not hasattr(found, part):
            public = [n for n in dir(found) if not n.startswith("_")]
            text = f"{module!r} has no {part!r}{near(part, public)}"
            raise _PathError(f"{path}.target", text)
        found = getattr(found, part)
    if not callable(found):
        raise _PathError(f"{path}.target", f"{target!r} is a {type(found).__name__}, not callable")
    return found


def _explain(detail: ErrorDetails) -> tuple[str, str]:
    """Return path and text for one of pydantic's complaints."""
    place = [str(part) for part in detail["loc"] if not str(part).startswith(("function-", "lax"))]
    path, got = ".".join(place), detail["input"]
    if detail["type"] == "extra_forbidden":
        inner = {"groups": Groups, "keep": Keep}.get(place[0], Recipe)
        known = inner.model_fields
        if len(place) > 1:
            hint = near(place[-1], known) or f"; {place[0]} has {', '.join(known)}"
        else:
            hint = said_here(place[-1], known)
        return path, f"no field is called {place[-1]!r}{hint}"
    if detail["type"] == "missing":
        kind = ONE.get(place[-1])
        known = ", ".join(card.key for card in catalog.shelf(kind)[:8]) if kind else ""
        return path, f"is missing; give one of: {known}" if known else "is missing"
    text = detail["msg"].removeprefix("Value error, ")
    if "got" not in text:
        text = f"{text[0].lower()}{text[1:]}; got {got!r} ({type(got).__name__})"
    return path, text


def _message(source: str, problems: list[tuple[str, str]], origins: Mapping[str, str]) -> str:
    lines = []
    for path, text in problems:
        at, place = path, ""
        while at and not place:
            place = origins.get(at, "")
            at = at.rpartition(".")[0]
        where = f" ({place})" if place and not place.startswith("default") else ""
        lines.append(f"{path or 'recipe'}{where}: {text}")
    if len(lines) == 1:
        return f"{source}: {lines[0]}"
    return f"{source} has {len(lines)} mistakes:\n" + "\n".join(f"  {line}" for line in lines)


def _rows(value: Any, path: str, origins: Mapping[str, str]) -> Iterator[tuple[str, Any, str]]:
    if isinstance(value, dict) and value:
        for key, below in value.items():
            yield from _rows(below, f"{path}.{key}" if path else key, origins)
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        for i, below in enumerate(value):
            yield from _rows(below, f"{path}.{i}", origins)
    else:
        yield path, value, _origin(path, origins)


def _origin(path: str, origins: Mapping[str, str]) -> str:
    """Return where a value came from: said for it, or for what it stands in."""
    if path in origins:
        return origins[path]
    at = path.removesuffix(".name")
    while at:
        if at in origins and not origins[at].startswith("default"):
            return origins[at]
        at = at.rpartition(".")[0]
    return "default"
