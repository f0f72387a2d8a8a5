"""The frame of the command line: commands, their arguments, and how errors end.

Built on argparse, which loads in hundredths of a second: with typer 0.29, which builds a pydantic
model for every parameter, ``brickyard catalog`` took twice the time that it has.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from brickyard.errors import UserError, near
from brickyard.version import __version__

ABOUT = "Training bricks for PyTorch: find one, read its card, train with it."


@dataclass(frozen=True)
class Command:
    """Describe one command: its name (of one or two words), its function and its arguments."""

    name: str
    run: Callable[..., int | None]
    arguments: tuple[tuple[tuple[str, ...], dict[str, Any]], ...]

    @property
    def about(self) -> str:
        """Return the first line of the function's docstring."""
        return (self.run.__doc__ or "").strip().partition("\n")[0]


COMMANDS: dict[str, Command] = {}


def argument(*names: str, **settings: Any) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Describe one argument of a command, as for ``ArgumentParser.add_argument``."""
    return names, settings


def command(
    name: str, *arguments: tuple[tuple[str, ...], dict[str, Any]]
) -> Callable[[Callable[..., int | None]], Callable[..., int | None]]:
    """Make a function a command; it gets its arguments by name and returns its exit code.

    Args:
        name: one or two words, such as ``"catalog"`` or ``"recipe check"``.
        arguments: what :func:`argument` returned.
    """

    def register(run: Callable[..., int | None]) -> Callable[..., int | None]:
        COMMANDS[name] = Command(name, run, arguments)
        return run

    return register


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        see = " See" if message.endswith("?") else "; see"
        raise UserError(f"{message}{see}: {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done; 1: nothing found; 2: a mistake of the caller, in one message on stderr; 130: Ctrl-C.

    Args:
        arguments: what stands behind ``brickyard``; the process's own when None.
    """
    with suppress(AttributeError):  # a replaced stdout may be any object
        sys.stdout.reconfigure(errors="replace")  # pyright: ignore[reportAttributeAccessIssue]
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except UserError as error:
        several = int(os.environ.get("WORLD_SIZE", "1")) > 1
        place = f" (rank {os.environ.get('RANK', '?')})" if several else ""
        print(f"error{place}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader left (`| head`): nobody is there to be told
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _run(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_overview())
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"brickyard {__version__}")
        return 0
    if arguments[1:] in (["-h"], ["--help"]) and arguments[0] not in COMMANDS:
        several = {k: v for k, v in COMMANDS.items() if k.startswith(f"{arguments[0]} ")}
        if several:
            print(_overview(several))
            return 0
    chosen, rest = _choose(arguments)
    parser = _Parser(prog=f"brickyard {chosen.name}", description=chosen.about, allow_abbrev=False)
    for names, settings in chosen.arguments:
        parser.add_argument(*names, **settings)
    whole = any(settings.get("nargs") == argparse.REMAINDER for _, settings in chosen.arguments)
    try:
        parse = parser.parse_known_args if whole else parser.parse_known_intermixed_args
        values, unknown = parse(rest)
    except SystemExit as stop:  # --help
        return int(stop.code or 0)
    if unknown:
        name = unknown[0].partition("=")[0]
        options = [n for names, _ in chosen.arguments for n in names if n.startswith("-")]
        hint = near(name, options) if name.startswith("-") else ""
        parser.error(f"{parser.prog} does not take {name!r}{hint}")
    return chosen.run(**vars(values)) or 0


def _choose(arguments: list[str]) -> tuple[Command, list[str]]:
    """Return the command that the first one or two words name, and the rest."""
    for size in (2, 1):
        found = COMMANDS.get(" ".join(arguments[:size]))
        if found and len(arguments) >= size:
            return found, arguments[size:]
    first = arguments[0]
    seconds = [name.split()[1] for name in COMMANDS if name.startswith(f"{first} ")]
    if seconds:
        given = f"; got {arguments[1]!r}" if arguments[1:] else ""
        raise UserError(f"brickyard {first} needs one of: {', '.join(seconds)}{given}")
    raise UserError(f"no command is called {first!r}{near(first, COMMANDS)}")


def _overview(commands: Mapping[str, Command] = COMMANDS) -> str:
    width = max(map(len, commands)) + 2
    lines = [f"  {one.name:{width}}{one.about}" for one in commands.values()]
    usage = "usage: brickyard COMMAND [arguments]      brickyard COMMAND --help"
    return "\n".join([usage, "", ABOUT, "", *lines])
