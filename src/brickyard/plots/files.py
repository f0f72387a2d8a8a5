"""Write a figure to a file: SVG always, PNG where a renderer is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from brickyard.errors import UserError
from brickyard.plots.draw import WIDTH, draw
from brickyard.plots.figure import Figure
from brickyard.runs import atomic_write

__all__ = ["write"]


def write(figure: Figure, path: str | Path, width: int = WIDTH) -> Path:
    """Write a figure and return the file's path.

    Args:
        figure: what to draw.
        path: a file whose name ends in ``.svg`` or ``.png``.
        width: pixels; a PNG has twice as many, for screens with small pixels.

    Raises:
        UserError: another ending, nothing to draw, no renderer for PNG, or a place that cannot
            be written to.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in (".svg", ".png"):
        raise UserError(f"a picture is a file .svg or .png; got {str(path)!r}")
    if figure.reason:
        raise UserError(f"there is no picture: {figure.reason}")
    if ending == ".png" and importlib.util.find_spec("resvg_py") is None:
        raise UserError(
            "PNG needs resvg_py, not installed here; run: pip install 'brickyard[plot]', "
            f"or write SVG: {path.with_suffix('.svg')}"
        )
    try:
        text = draw(figure, width)
    except ValueError as error:
        raise UserError(str(error)) from None
    content = text.encode() if ending == ".svg" else _png(text)
    try:
        with atomic_write(path, "wb") as file:
            file.write(content)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
    return path


def _png(svg: str) -> bytes:
    import resvg_py  # pyright: ignore[reportMissingImports]  the extra "plot"

    return bytes(resvg_py.svg_to_bytes(svg_string=svg, zoom=2))
