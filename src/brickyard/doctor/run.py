"""Run somebody's script as itself, watched, and report at its end.

The script gets its own ``sys.argv``, ``sys.path[0]``, ``__main__`` module and working folder; torch
is imported when the script imports it, so that what it sets before (threads, devices) counts. The
exit code is the script's; a traceback shows the user's frames only. The report goes to stderr.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from types import CodeType, ModuleType, TracebackType
from typing import Any

from brickyard.doctor.finding import Report
from brickyard.doctor.session import Session

STRICT_CODE = 3
_OURS = os.path.dirname(os.path.abspath(__file__)) + os.sep


def run_script(
    script: str, arguments: Sequence[str], *, json: str | None = None, html: str | None = None,
    steps: int | None = None, strict: bool = False, module: bool = False,
    ignore: Sequence[str] = (),
) -> int:  # fmt: skip
    """Run a script watched and return the exit code: its own, or 3 for an error when strict.

    Args:
        script: path of the script, or name of the module.
        arguments: what it finds in ``sys.argv[1:]``.
        json: file for the report as JSON.
        html: file for the report as a page.
        steps: stop watching after so many optimizer steps and report then.
        strict: return 3 when there is a finding of severity error.
        module: run a module by its name, as ``python -m`` does.
        ignore: names of checks whose findings are left out.
    """
    said: list[Report] = []
    # the script may change the working folder
    json, html = (os.path.abspath(path) if path else None for path in (json, html))

    def tell(report: Report) -> None:
        """Print and write a report; once, unless a later one knows more."""
        report.script = script
        _print(report)
        for path, text in ((json, report.to_json), (html, report.to_html)):
            if path:
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text())
        said.append(report)

    session = Session(steps=steps, on_limit=tell, ignore=ignore)
    session.open()
    code = 1
    try:
        with _as_main(script, arguments, module) as main:
            code = _execute(script, main, module)
    finally:
        report = session.close(finished=code == 0)
        report.exit_code = code
        if said and session.limited:  # the script ran on: only its exit code is news
            said[-1].exit_code = code
            report = said[-1]
            if json:
                with open(json, "w", encoding="utf-8") as file:
                    file.write(report.to_json())
        else:
            tell(report)
    return STRICT_CODE if strict and report.worst() == "error" else code


def _execute(script: str, main: ModuleType, module: bool) -> int:
    """Run the code in ``__main__`` and return the exit code that python would give."""
    try:
        with _terminating():
            exec(_named(script, main) if module else _compile(script), main.__dict__)
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except KeyboardInterrupt as error:
        _show(error)
        return 130
    except BaseException as error:
        _show(error)
        return 1
    return 0


def _compile(script: str) -> CodeType:
    with open(script, "rb") as file:
        return compile(file.read(), script, "exec", dont_inherit=True)


def _named(name: str, main: ModuleType) -> CodeType:
    """Return a module's code, and tell ``__main__`` whose it is; of a package its ``__main__``."""
    spec = find_spec(name)
    if spec is not None and spec.submodule_search_locations is not None:
        spec = find_spec(f"{name}.__main__")
    code = spec.loader.get_code(spec.name) if spec is not None else None  # pyright: ignore
    if spec is None or code is None:
        raise ModuleNotFoundError(f"there is no module {name!r} that can be run, as for python -m")
    sys.argv[0] = str(spec.origin)
    main.__dict__.update(
        __file__=spec.origin, __cached__=spec.cached, __package__=spec.parent, __spec__=spec,
        __loader__=spec.loader,
    )  # fmt: skip
    return code


@contextmanager
def _as_main(script: str, arguments: Sequence[str], module: bool) -> Iterator[ModuleType]:
    """Make a module ``__main__`` for the script, as python does, and put all back after."""
    main = ModuleType("__main__")
    values: dict[str, Any] = {
        "__file__": script, "__cached__": None, "__builtins__": __builtins__, "__spec__": None,
    }  # fmt: skip
    main.__dict__.update(values)
    before = sys.modules.get("__main__"), sys.argv, list(sys.path)
    sys.modules["__main__"] = main
    sys.argv = ["-m" if module else script, *arguments]
    folder = os.getcwd() if module else os.path.dirname(os.path.realpath(script))
    sys.path[:] = [folder, *(p for p in sys.path[1:] if p != folder)]
    try:
        yield main
    finally:
        if before[0] is not None:
            sys.modules["__main__"] = before[0]
        sys.argv = before[1]
        sys.path[:] = before[2]
        with suppress(Exception):
            sys.stdout.flush()


@contextmanager
def _terminating() -> Iterator[None]:
    """Let SIGTERM end the script by an exception, so that a report is written."""

    def stop(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    try:
        own = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
        if own:
            signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not in the main thread
        own = False
    try:
        yield
    finally:
        if own and signal.getsignal(signal.SIGTERM) is stop:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _show(error: BaseException) -> None:
    """Print the traceback without our own frames."""
    trace = error.__traceback__
    seen: BaseException | None = error
    while seen is not None:
        seen.__traceback__ = _users(seen.__traceback__)
        seen = seen.__cause__ or seen.__context__
    trace = error.__traceback__
    sys.stdout.flush()
    if sys.excepthook is not sys.__excepthook__:
        sys.excepthook(type(error), error, trace)
    else:
        traceback.print_exception(type(error), error, trace)


def _users(trace: TracebackType | None) -> TracebackType | None:
    """Return a traceback without the frames of the doctor."""
    while trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OURS):
        trace = trace.tb_next
    if trace is not None:
        trace.tb_next = _users(trace.tb_next)
    return trace


def _print(report: Report) -> None:
    from brickyard.doctor.terminal import show

    with suppress(Exception):
        sys.stdout.flush()
    show(report, sys.stderr)
