"""Guides: their form, and that they can be read in terminals of any width."""

import io
import re

import pytest
from rich.console import Console

from brickyard.catalog import KINDS
from brickyard.catalog.pages import guide_page
from brickyard.catalog.shelf import GUIDES, TOPICS

FILES = sorted(GUIDES.glob("*.md"))


def printed(text, width):
    file = io.StringIO()
    Console(file=file, width=width, highlight=False).print(guide_page(text, width))
    return file.getvalue()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_guide_has_its_parts(path):
    text = path.read_text(encoding="utf-8")
    assert path.stem in {*TOPICS, *(kind.category for kind in KINDS.values())}
    assert text.startswith("# ")
    for heading in ("## How to choose", "## Common mistakes"):
        assert heading in text
    assert re.search(r"^\|---", text, re.M), "no decision table"
    assert len(re.findall(r"\b(?:19|20)\d\d\b", text)) >= 3, "sources have years"
    assert 40 <= len(text.splitlines()) <= 150
    assert text.endswith("\n")
    assert "\t" not in text


@pytest.mark.parametrize("width", [50, 60, 80, 120, 200])
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_guide_fits_the_terminal_and_keeps_its_words_whole(path, width):
    text = path.read_text(encoding="utf-8")
    shown = printed(text, width)
    assert max(map(len, shown.splitlines())) <= width
    rows = [line for line in text.splitlines() if line.startswith("|") and "---" not in line]
    for word in {word for row in rows for word in re.findall(r"`([a-z0-9_]+)`", row)}:
        assert re.search(rf"(?<!\w){re.escape(word)}(?!\w)", shown), f"{word} is torn or cut off"
    assert "…" not in shown
