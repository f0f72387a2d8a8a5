"""Write the README's menu and file tree anew from cards and docstrings: python tools/readme.py."""

import ast
import sys
from pathlib import Path

from brickyard.catalog import KINDS, shelf

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
ROOMS = ("src/brickyard", "recipes", "examples", "benchmarks", "tools")


def menu():
    """Return the table of categories with their bricks."""
    lines = ["| category | bricks |", "|---|---|"]
    for kind in KINDS.values():
        keys = [f"`{card.key}`" for card in shelf(kind.name)]
        if keys:
            lines.append(f"| **{kind.title}** ({len(keys)}) | {', '.join(keys)} |")
    return "\n".join(lines)


def tree():
    """Return the files with the first line of each one's own words."""
    lines = []
    for room in ROOMS:
        folder = ROOT / room
        if not folder.is_dir():
            continue
        lines.append(f"{room}/")
        for path in sorted(folder.rglob("*")):
            about = describe(path)
            if about is None:
                continue
            parts = path.relative_to(folder).parts
            name = "  " * len(parts) + parts[-1]
            lines.append(f"{name:<30} {about}".rstrip())
    return "```text\n" + "\n".join(lines) + "\n```"


def describe(path):
    """Return one line about a file, '' for a folder, None for what no reader looks for."""
    if any(part.startswith((".", "__pycache__")) or part.endswith(".egg-info")
           for part in path.parts[len(ROOT.parts):]):  # fmt: skip
        return None
    if path.is_dir():
        return "" if any(path.rglob("*.*")) else None
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix == ".py":
        doc = ast.get_docstring(ast.parse(text)) or ""
        return doc.splitlines()[0].rstrip(".") if doc else ""
    first = text.splitlines()[0] if text else ""
    if path.suffix in (".yaml", ".md", ".css", ".js", ".html"):
        for mark in ("<!--", "/*", "{#", "#", "//"):
            first = first.removeprefix(mark)
        for mark in ("-->", "*/", "#}"):
            first = first.removesuffix(mark)
        return first.strip().rstrip(".")[:90]
    return {"catalog.json": "every card as data, generated"}.get(path.name, "")


def rewrite(text):
    """Return the README with both sections as they are now."""
    for name, make in (("menu", menu), ("tree", tree)):
        start, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = text.split(start, 1)
        after = rest.split(end, 1)[1]
        text = f"{before}{start}\n{make()}\n{end}{after}"
    return text


if __name__ == "__main__":
    README.write_text(rewrite(README.read_text(encoding="utf-8")), encoding="utf-8")
    sys.exit(0)
