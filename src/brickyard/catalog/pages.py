"""Set the catalog's tables, cards and guides for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from rich import box
from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.constrain import Constrain
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from brickyard.catalog.card import Card
from brickyard.catalog.kinds import KINDS, Kind
from brickyard.catalog.options import Option
from brickyard.catalog.pairs import not_with
from brickyard.catalog.shelf import GUIDES, TOPICS

#: Longer lines than this are hard to read.
MEASURE = 100
_NARROW = 72
#: Columns of a comparison narrower than this read worse than one record a brick.
_COLUMN = 18
_WIDTHS = {"formula": 36, "state_bytes": 11, "output": 17, "target": 12, "task": 14, "better": 6}

#: Options that say how a brick runs, not what it does: left out of short lists.
_PLUMBING = {
    "capturable", "differentiable", "foreach", "fused", "generator", "inplace", "maximize",
    "reduction", "validate",
}  # fmt: skip
#: Kinds that have pictures.
_DRAWN = {"activation", "initializer", "loss", "normalization", "schedule"}
_HEADINGS = {
    "formula": "Rule", "state_bytes": "Bytes/param", "options": "Options",
    "best_for": "Best for", "avoid_when": "Avoid when", "use_when": "Use when",
    "known_issue": "Known issue", "cost": "Cost", "output": "Output", "target": "Target",
    "tune_first": "Tune first", "paper": "Paper",
}  # fmt: skip
#: The field of a recipe that takes a brick of each kind; ``{}`` stands for the brick.
_RECIPE = {
    "data": "data: {}", "model": "model: {}", "loss": "loss: {}", "optimizer": "optimizer: {}",
    "clipping": "clipping: {}", "schedule": "schedule: [{}]", "regularizer": "regularizers: [{}]",
    "augmentation": "augmentation: [{}]", "metric": "metrics: [{}]",
    "activation": "model: {{name: mlp, activation: {}}}",
    "normalization": "model: {{name: cnn, normalization: {}}}",
    "dropout": "model: {{name: mlp, dropout: {}}}",
    "residual": "model: {{name: mlp, residual: {}}}",
    "initializer": "model: {{name: mlp, init: {}}}", "precision": "precision: {}",
}  # fmt: skip


# --- Tables ---------------------------------------------------------------------------------------


def overview(cards: Sequence[Card]) -> RenderableType:
    """Return the categories with counts and one line each, and how to go on."""
    table = _table("Category", "Bricks", "What they are")
    table.columns[1].justify = "right"
    for kind in KINDS.values():
        count = sum(card.kind == kind.name for card in cards)
        if count:
            table.add_row(_key(kind.category), str(count), kind.about)
    total = len(cards)
    ways = (
        ("brickyard catalog losses", "the bricks of a category"),
        ("brickyard catalog losses --compare", "side by side"),
        ('brickyard catalog --search "class imbalance"', "what fits a problem"),
        ("brickyard guide losses", "how to choose"),
        ("brickyard show focal", "everything about one brick"),
    )
    title = Text(f"{total} bricks in {table.row_count} categories", "bold")
    return Group(title, table, Text(""), _ways(ways))


def category_page(kind: Kind, cards: Sequence[Card], width: int) -> RenderableType:
    """Return the bricks of a category, one row each; more columns on wide terminals."""
    columns = ["Brick", "What it is"]
    if width >= 110:
        columns.append("Best for")
    if width >= 160:
        columns.append("Options")
    table = _table(*columns)
    for card in cards:
        cells = (card.summary, card.best_for, option_list(card))
        table.add_row(_key(card.key), *cells[: len(columns) - 1])
    first = cards[0].key if cards else "KEY"
    ways = (
        (f"brickyard show {first}", "everything about one"),
        (f"brickyard catalog {kind.category} --compare", "side by side"),
        (f"brickyard guide {kind.category}", "how to choose"),
    )
    return Group(_title(kind, cards), table, Text(""), _ways(ways))


def compare_page(kind: Kind, cards: Sequence[Card], width: int) -> RenderableType:
    """Return the category's table of comparison, or one record a brick where it would not fit."""
    columns = kind.compare
    room = width - max((len(card.key) for card in cards), default=0)
    if room < _room(columns):
        columns = tuple(name for name in columns if name != "formula")
    if room < _room(columns):
        records = [_record(card, kind.compare) for card in cards]
        return Group(_title(kind, cards), *records)
    table = _table("Brick", *map(_heading, columns), lines=True)
    table.expand = True
    for column, name in zip(table.columns[1:], columns, strict=True):
        column.min_width = column.ratio = _WIDTHS.get(name, _COLUMN)
    for card in cards:
        table.add_row(_key(card.key), *(_cell(card, name) for name in columns))
    ways = (("brickyard show KEY", "everything about one"),)
    return Group(_title(kind, cards), table, Text(""), _ways(ways))


def _room(columns: Iterable[str]) -> int:
    return sum(_WIDTHS.get(name, _COLUMN) + 3 for name in columns)


def search_page(text: str, hits: Iterable[tuple[float, Card]], width: int) -> RenderableType:
    """Return what a search found, best first."""
    table = _table("Brick", *(["Kind"] if width >= _NARROW else []), "What it is")
    for _, card in hits:
        if width < _NARROW:
            summary = Text.assemble(card.summary, (f" ({card.kind})", "dim"))
            table.add_row(_key(card.key), summary)
        else:
            table.add_row(_key(card.key), Text(card.kind, "dim"), card.summary)
    title = Text.assemble(("Fits ", "bold"), (f'"{text}"', "bold"), (", best first", "dim"))
    ways = (("brickyard show KEY", "everything about one of them"),)
    return Group(title, table, Text(""), _ways(ways))


def _table(*columns: str, lines: bool = False) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, show_lines=lines)
    for i, name in enumerate(columns):
        table.add_column(name, overflow="fold", no_wrap=i == 0, vertical="top")
    return table


def _title(kind: Kind, cards: Sequence[Card]) -> Text:
    count = f" {len(cards)} brick{'s' if len(cards) != 1 else ''}"
    return Text.assemble((kind.title, "bold"), (f"  {kind.about}.{count}", "dim"))


def _key(text: str) -> Text:
    return Text(text, "bold cyan")


def _ways(ways: Iterable[tuple[str, str]]) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column()
    for command, what in ways:
        grid.add_row(Text(command, "green"), Text(what, "dim"))
    return grid


def _heading(name: str) -> str:
    return _HEADINGS.get(name, name.replace("_", " ").capitalize())


def _cell(card: Card, name: str) -> str:
    if name == "options":
        return option_list(card)
    if name in card.facts:
        fact: Any = card.facts[name]
        return fact if isinstance(fact, str) else ", ".join(fact)
    if name in card.derived:
        value = card.derived[name]
        return "" if value is None else f"{value:g}"
    return str(getattr(card, name, ""))


def _record(card: Card, columns: Iterable[str]) -> RenderableType:
    rows = [(_heading(name), _cell(card, name)) for name in columns]
    return Group(Text(""), _key(card.key), Padding(_rows(rows), (0, 0, 0, 2)))


def _rows(rows: Iterable[tuple[str, str | Text]]) -> Table:
    """Return label and text pairs, without those that say nothing."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", max_width=16)
    grid.add_column(overflow="fold")
    for label, text in rows:
        if text:
            grid.add_row(label, text)
    return grid


# --- Options --------------------------------------------------------------------------------------


def option_list(card: Card, most: int = 5) -> str:
    """Return a brick's main options with their defaults, in one line."""
    shown = [o for o in card.options if o.name not in _PLUMBING]
    parts = [o.name if o.required else f"{o.name}={_default(o.default)}" for o in shown]
    return ", ".join([*parts[:most], *(["..."] if len(parts) > most else [])])


def _default(value: object) -> str:
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        text = f"{value:g}".replace("e-0", "e-").replace("e+0", "e+")
        return text if set(text) & set(".en") else f"{text}.0"
    if isinstance(value, list):
        return f"({', '.join(_default(v) for v in value)})"
    return str(value) if value != "" else "''"


def _options(card: Card, width: int) -> RenderableType:
    """Return each option with its type, default and meaning; how it runs comes last, in a line."""
    main = [o for o in card.options if o.name not in _PLUMBING]
    rest = [o for o in card.options if o.name in _PLUMBING]
    if card.origin == "own":  # ours are described
        main, rest = [*main, *rest], []
    parts: list[RenderableType] = []
    if width < _NARROW or not any(option.doc for option in main):
        for option in main:
            parts.append(_option_head(option))
            if option.doc:
                parts.append(Padding(Text(plain(option.doc)), (0, 0, 0, 4)))
    else:
        grid = Table.grid(padding=(0, 2))
        grid.add_column(overflow="fold", max_width=max(24, width * 2 // 5))
        grid.add_column(overflow="fold")
        for option in main:
            grid.add_row(_option_head(option), plain(option.doc))
        parts.append(grid)
    if rest:
        parts.append(Text(f"and how it runs: {', '.join(o.name for o in rest)}", "dim"))
    return Group(*parts)


def _option_head(option: Option) -> Text:
    head = Text.assemble((option.name, "cyan"), (f": {option.type}", "dim"))
    quoted = isinstance(option.default, str) and "'" in option.type
    default = repr(option.default) if quoted else _default(option.default)
    return head.append(" (required)" if option.required else f" = {default}")


def plain(text: str) -> str:
    """Return a docstring's text without its markup."""
    return text.replace("``", "")


# --- One card -------------------------------------------------------------------------------------


def card_page(card: Card, width: int) -> RenderableType:
    """Return everything about one brick."""
    width = min(width, MEASURE)
    parts: list[RenderableType] = [_head(card), Text(card.summary)]
    if card.formula:
        parts += _section("Formula", Text(card.formula, "magenta"))
    if card.options:
        parts += _section("Options", _options(card, width - 2))
    facts = [(_heading(name), str(value)) for name, value in card.facts.items()]
    rows = [
        ("Use when", card.use_when),
        ("Avoid when", card.avoid_when),
        ("Best for", card.best_for),
        ("Tune first", card.tune_first),
        *facts,
        ("Cost", card.cost),
        ("State", _state(card)),
        ("Pairs with", ", ".join(card.pairs_with)),
        *_bad_pairs(card),
        ("Needs", f"{', '.join(card.needs)} (extra: {card.extra})" if card.needs else ""),
        ("Paper", card.paper),
        ("Source", _source(card)),
    ]
    parts += [Text(""), _rows(rows)]
    if card.kind in _RECIPE:
        parts += _section("In a recipe", Text(recipe_line(card), "green"))
    parts += _section("In Python", Text(f"from {_module(card)} import {card.name}", "green"))
    more = f"brickyard catalog {card.about.category} --compare    "
    more += f"brickyard guide {card.about.category}"
    more += f"    brickyard show {card.key} --plot" if card.kind in _DRAWN else ""
    return Constrain(Group(*parts, Text(""), Text(more, "dim")), width)


def _head(card: Card) -> Text:
    head = Text.assemble((card.key, "bold cyan"), (f"  {card.kind}  {card.name}", "dim"))
    if card.aliases:
        head.append(f"\nalso called {', '.join(card.aliases)}", "dim")
    return head


def _section(title: str, body: RenderableType) -> list[RenderableType]:
    return [Text(""), Text(title, "bold"), Padding(body, (0, 0, 0, 2))]


def _bad_pairs(card: Card) -> list[tuple[str, str]]:
    """Return what does not go with a brick and why, under one label."""
    rows = []
    for rule in not_with(card.key):
        what = f"{', '.join(rule.others(card.key))}: " if rule.others(card.key) else ""
        text = f"{what}{rule.wrong} Instead: {rule.instead}. ({rule.source})"
        rows.append(("" if rows else "Not with", text))
    return rows


def _state(card: Card) -> str:
    size = card.derived.get("state_bytes")
    return "" if size is None else f"{size:g} bytes a parameter in fp32 (measured on a matrix)"


def _source(card: Card) -> str:
    where = f"src/{card.source}.py" if card.source.startswith("brickyard/") else card.source
    return where if card.origin == "own" else f"{card.origin}'s own, unchanged; card in {where}"


def _module(card: Card) -> str:
    return card.derived.get("import_from") or card.target.partition(":")[0]


def recipe_line(card: Card) -> str:
    """Return a recipe's line with this brick: what must be given, and what to tune first.

    Example:
        >>> from brickyard.catalog import get
        >>> recipe_line(get("adamw"))
        'optimizer: {name: adamw, lr: 0.001, weight_decay: 0.01}'
    """
    words = set(card.tune_first.replace(",", " ").replace(":", " ").replace(";", " ").split())
    shown = [o for o in card.options if o.required or (o.name in words and _scalar(o.default))]
    given = "".join(f", {o.name}: {_yaml(o)}" for o in shown[:3])
    return _RECIPE[card.kind].format(f"{{name: {card.key}{given}}}" if given else card.key)


def _scalar(value: object) -> bool:
    return isinstance(value, int | float | str) and value != ""


def _yaml(option: Option) -> str:
    if option.required:
        return f"<{option.type}>"
    if isinstance(option.default, bool):
        return str(option.default).lower()
    return _default(option.default)


# --- Guides ---------------------------------------------------------------------------------------


def guides_page() -> RenderableType:
    """Return the list of guides."""
    table = _table("Guide", "About")
    for kind in KINDS.values():
        if (GUIDES / f"{kind.category}.md").exists():
            table.add_row(_key(kind.category), kind.about)
    for topic, about in TOPICS.items():
        table.add_row(_key(topic), about)
    ways = (("brickyard guide CATEGORY", "how to choose among its bricks"),)
    return Group(table, Text(""), _ways(ways))


def guide_page(text: str, width: int) -> RenderableType:
    """Return a guide, set from its Markdown."""
    from rich.markdown import Markdown, TableElement  # slow to import; only guides need them

    class Legible(TableElement):
        def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
            if self.header is None or self.header.row is None or self.body is None:
                return
            heads = [cell.content for cell in self.header.row.cells]
            rows = [[cell.content for cell in row.cells] for row in self.body.rows]
            yield _guide_table(heads, rows, options.max_width)

    class Guide(Markdown):
        elements: ClassVar = {**Markdown.elements, "table_open": Legible}

    return Constrain(Guide(text), min(width, MEASURE))


def _guide_table(heads: list[Text], rows: list[list[Text]], width: int) -> RenderableType:
    """Return a table whose words stay whole; where they cannot, a record for each row."""
    columns = [[head, *cells] for head, *cells in zip(heads, *rows, strict=True)]
    least = [max(len(word) for cell in c for word in ["", *cell.plain.split()]) for c in columns]
    most = [max(len(cell) for cell in column) for column in columns]
    room = width - 3 * (len(heads) - 1) - sum(least)
    if room < 0 or (width < _NARROW and len(heads) > 3):
        return Group(*(_guide_record(heads, row) for row in rows))
    table = _table(*(head.plain for head in heads))
    share = min(1.0, room / max(1, sum(most) - sum(least)))
    for column, short, long in zip(table.columns, least, most, strict=True):
        column.width, column.no_wrap = short + int((long - short) * share), False
    for row in rows:
        table.add_row(*row)
    return table


def _guide_record(heads: list[Text], row: list[Text]) -> RenderableType:
    pairs = [(head.plain, cell) for head, cell in zip(heads[1:], row[1:], strict=True)]
    return Group(row[0], Padding(_rows(pairs), (0, 0, 0, 2)))
