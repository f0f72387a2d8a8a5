"""Find the line of the user's code that called us."""

from __future__ import annotations

import linecache
import os
import sys
import sysconfig
from types import FrameType

import torch

from brickyard.doctor.observe.record import NOWHERE, Place

_TORCH = os.path.dirname(torch.__file__) + os.sep
_OURS = os.path.dirname(os.path.dirname(os.path.dirname(__file__))) + os.sep
_LIBRARY = tuple(
    {sysconfig.get_path(n) + os.sep for n in ("stdlib", "platstdlib")} - {os.sep}
)  # fmt: skip
_PACKAGES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_KNOWN: dict[str, int] = {}
USER, PACKAGE, HIDDEN = 0, 1, 2


def _level(file: str) -> int:
    """Return whose code a file is: the user's, another package's, or torch's, python's or ours."""
    level = _KNOWN.get(file)
    if level is None:
        if file.startswith((_TORCH, _OURS)) or file.startswith("<frozen"):
            level = HIDDEN
        elif any(part in file for part in _PACKAGES):
            level = PACKAGE
        elif file.startswith(_LIBRARY) or file == "<string>":
            level = HIDDEN
        else:
            level = USER
        _KNOWN[file] = level
    return level


def user_frame(skip: int = 1) -> FrameType | None:
    """Return the innermost frame of the user's code; of a package's when there is none."""
    try:
        frame: FrameType | None = sys._getframe(skip)
    except ValueError:  # called from the top
        return None
    fallback = None
    while frame is not None:
        level = _level(frame.f_code.co_filename)
        if level == USER:
            return frame
        if level == PACKAGE and fallback is None:
            fallback = frame
        frame = frame.f_back
    return fallback


def user_place(skip: int = 1) -> Place:
    """Return the innermost line of the user's code."""
    return place_of(user_frame(skip + 1))


def place_of(frame: FrameType | None) -> Place:
    """Return the line a frame is at, with a path relative to the working folder if inside."""
    if frame is None:
        return NOWHERE
    return make_place(frame.f_code.co_filename, frame.f_lineno)


def make_place(file: str, line: int) -> Place:
    """Return a place; paths inside the working folder are relative to it."""
    text = linecache.getline(file, line).strip()
    if os.path.isabs(file):
        try:
            near = os.path.relpath(file)
        except (OSError, ValueError):
            near = file
        if not near.startswith(".."):
            file = near
    return Place(file, line, text)


def inside(name: str) -> bool:
    """Say whether a frame of a file that ends with ``name`` is on the stack."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename.endswith(name):
            return True
        frame = frame.f_back
    return False


def steps_under_way() -> list[int]:
    """Return the identities of the optimizers that are in a step, the outermost first.

    One whose own ``step`` calls its parent's is there twice. A step that an exception ended is not
    among them, though torch calls no hook at its end.
    """
    found = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_qualname == "Optimizer.profile_hook_step.<locals>.wrapper":
            found.append(id(frame.f_locals.get("self")))
        frame = frame.f_back
    return found[::-1]
