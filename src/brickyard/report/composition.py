"""Say what was trained with what: the recipe brick by brick, the model, the environment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from brickyard import catalog, yamls
from brickyard.errors import CatalogError
from brickyard.report.facts import Facts
from brickyard.report.wording import (
    count,
    duration,
    epochs,
    finite,
    length,
    plural,
    setting,
    short_count,
    title,
)

#: Fields of a recipe that hold bricks, and the bricks' kinds.
_BRICKS = {
    "data": "data", "model": "model", "loss": "loss", "optimizer": "optimizer",
    "schedule": "schedule", "clipping": "clipping", "regularizers": "regularizer",
    "augmentation": "augmentation", "metrics": "metric",
}  # fmt: skip


def sentence(f: Facts) -> str:
    """Return in one sentence what was trained, on what, with what and how long."""
    model, data = f.part("model"), f.part("data")
    weights = finite(model.get("parameters"))
    name = str(model.get("name") or brick_name(f.recipe.get("model")))
    told = name + (f" ({short_count(weights)} parameters)" if name and weights else "")
    source = str(data.get("name") or brick_name(f.recipe.get("data")))
    told += f" on {source}{_sizes(data, _kinds(f))}" if source else ""
    optimizer = brick_name(f.recipe.get("optimizer"))
    rate = f" at a rate of {setting(f.peak_lr, 3)}" if f.peak_lr else ""
    told += f" with {optimizer}{rate}" if optimizer else ""
    done = finite(f.summary.get("epochs")) or f.history.last_epoch
    if done:
        told += f" for {epochs(done)} {'epoch' if done == 1 else 'epochs'}"
    if f.total_seconds and done:
        told += f" in {duration(f.total_seconds)}"
    return f"Trained {told.strip()}." if done else f"Meant to train {told.strip()}."


def _kinds(f: Facts) -> str:
    """Return how many classes, labels or tokens there are, as a part of a sentence."""
    if not f.classes:
        return ""
    word = {"multi_label": "label", "language_model": "token", "transcription": "symbol"}
    one = word.get(f.task, "class")
    return f" {'of' if f.task in word else 'in'} {plural(len(f.classes), one, _many(one))}"


def _many(one: str) -> str:
    return "classes" if one == "class" else f"{one}s"


def _sizes(data: Mapping[str, Any], kinds: str) -> str:
    train, val = finite(data.get("train")), finite(data.get("val"))
    if not train:
        return ""
    held = f" and {count(val)} to validate" if val else ""
    return f" ({count(train)} {_unit(data)}{held}{kinds})"


def _unit(data: Mapping[str, Any]) -> str:
    facts = data.get("facts")
    return "episodes" if isinstance(facts, Mapping) and "environment" in facts else "samples"


def brick_name(component: Any) -> str:
    if isinstance(component, list):
        return ", ".join(filter(None, map(brick_name, component)))
    if isinstance(component, Mapping):
        return str(component.get("name") or component.get("target") or "")
    return component if isinstance(component, str) else ""


def bricks(f: Facts) -> list[dict[str, Any]]:
    """Return the recipe's bricks: field, key, summary from its card, options by weight.

    An option is ``changed`` when it is not the card's default; all are when there is no card.
    """
    found = []
    for name, kind in _BRICKS.items():
        given = f.recipe.get(name)
        several = given if isinstance(given, list) else [given] if given else []
        for component in several:
            key = brick_name(component)
            if key:
                options = dict(component) if isinstance(component, Mapping) else {}
                found.append({"field": title(name.removesuffix("s") if name != "loss" else name),
                              **_brick(key, kind, options)})  # fmt: skip
    return found


def _brick(key: str, kind: str, options: dict[str, Any]) -> dict[str, Any]:
    for word in ("name", "target"):
        options.pop(word, None)
    summary, defaults = "", {}
    try:
        card = catalog.get(key, kind)
        summary = card.summary
        defaults = {option.name: option.default for option in card.options if not option.required}
    except CatalogError:
        pass  # the user's own brick has no card
    rows = [
        {"name": name, "value": plain(value), "changed": name not in defaults
         or not _same(defaults[name], value)} for name, value in options.items()
    ]  # fmt: skip
    rows.sort(key=lambda row: not row["changed"])
    return {"key": key, "summary": summary, "options": rows}


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return list(a) == list(b)
    return a == b


def settings(f: Facts) -> list[tuple[str, str]]:
    """Return the recipe's fields that hold no brick."""
    return [
        (title(name), length(plain(value))) for name, value in f.recipe.items()
        if name not in _BRICKS and name != "name" and value not in ("", None)
    ]  # fmt: skip


def plain(value: Any) -> str:
    """Return a setting as text."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return f"{value:.7g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")
    if isinstance(value, list | tuple):
        return ", ".join(map(plain, value)) or "none"
    if isinstance(value, Mapping):
        rest = ", ".join(f"{k} {plain(v)}" for k, v in value.items() if k != "name")
        name = str(value.get("name", ""))
        return f"{name} ({rest})" if name and rest else name or rest or "none"
    return str(value)


def flat(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Return the leaves of a recipe as dotted path and text; a list's bricks go by their names."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            yield from flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(tree, list) and any(isinstance(item, Mapping) for item in tree):
        for i, item in enumerate(tree):
            yield from flat(item, f"{path}.{i}")
    else:
        yield path, plain(tree)


def recipe_text(f: Facts) -> str:
    """Return the resolved recipe as YAML."""
    if not f.recipe:
        return ""
    return yamls.dump(dict(f.recipe))


def layers(f: Facts, most: int = 60) -> dict[str, Any] | None:
    """Return the model's layers, biggest share of parameters marked; the first ``most``."""
    rows = [r for r in f.part("model").get("layers") or [] if isinstance(r, Mapping)]
    if not rows:
        return None
    counts = [finite(row.get("parameters")) or 0.0 for row in rows]
    top = max(counts) or 1.0
    shown = [
        {"path": str(row.get("path", "")), "type": str(row.get("type", "")),
         "parameters": count(n) if n else "", "share": n / top}
        for row, n in zip(rows, counts, strict=True)
    ]  # fmt: skip
    total = finite(f.part("model").get("parameters")) or sum(counts)
    with_weights = sum(n > 0 for n in counts)
    told = f"{plural(len(rows), 'layer')}, {with_weights} of them with parameters"
    more = max(0, len(shown) - most)
    return {"rows": shown[:most], "more": more, "total": count(total), "told": told}


def groups(f: Facts) -> dict[str, Any] | None:
    """Return the optimizer's parameter groups: their numbers, sizes, reasons and names."""
    rows = []
    told = f.summary.get("groups")
    for group in told if isinstance(told, list) else []:
        parameters = [p for p in group.get("parameters") or [] if isinstance(p, Mapping)]
        names = [str(p.get("name", "")) for p in parameters]
        because = dict.fromkeys(str(p.get("because", "")) for p in parameters)
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        rows.append({
            "options": plain(group.get("options")), "weights": count(group.get("weights") or 0),
            "names": ", ".join(names[:4]) + more, "because": "; ".join(filter(None, because)),
        })  # fmt: skip
    return {"rows": rows, "told": plural(len(rows), "parameter group")} if rows else None


def data_rows(f: Facts) -> list[tuple[str, str]]:
    """Return what is known of the data."""
    data = f.part("data")
    rows = []
    unit = _unit(data)
    for key, name in (("train", f"Training {unit}"), ("val", f"Validation {unit}")):
        value = finite(data.get(key))
        if value is not None:
            rows.append((name, count(value)))
    shape = data.get("input_shape")
    if isinstance(shape, list) and shape:
        rows.append(("Input shape", " × ".join(plain(s) for s in shape)))
    if f.classes:
        names = ", ".join(f.classes[:12]) + (" …" if len(f.classes) > 12 else "")
        rows.append((plural(len(f.classes), "class", "classes"), names))
    facts = data.get("facts")
    if isinstance(facts, Mapping):
        rows += [(title(str(k)), _fact(v)) for k, v in facts.items()
                 if k not in ("samples", "unreadable") and v not in (None, "", [], {})]  # fmt: skip
    bad = f.part("unreadable")
    if bad:
        first = ", ".join(map(str, list(bad)[:3])) + (" …" if len(bad) > 3 else "")
        rows.append(("Could not be read", f"{plural(len(bad), 'sample')}, skipped: {first}"))
    return rows


def lost(f: Facts) -> list[str]:
    """Return a sentence on samples that could not be read, if there are any."""
    bad = f.part("unreadable")
    if not bad:
        return []
    name, why = next(iter(bad.items()))
    return [
        f"{plural(len(bad), 'sample')} could not be read and skipped; the first: {name} ({why})."
    ]


def _fact(value: Any) -> str:
    """Return a fact on the data as text; counts that are all the same in few words."""
    if not isinstance(value, Mapping):
        return plain(value)
    numbers = {v for v in value.values() if isinstance(v, int) and not isinstance(v, bool)}
    if len(value) > 1 and len(numbers) == 1 and all(type(v) is int for v in value.values()):
        return f"{count(numbers.pop())} each"
    return ", ".join(f"{k} {_fact(v)}" for k, v in value.items())
