"""Pass the doctor on to processes that a watched one starts with ``subprocess``.

The environment of a child names a folder for findings, and this folder stands first on its
``PYTHONPATH``. There the child takes both back, and waits for torch: only then is anything else of
ours imported. Nothing here may cost time: every python below a watched script runs it.
"""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

#: The variable that says ``STEPS:FOLDER`` to a child.
NAME = "BRICKYARD_DOCTOR"
PATHS = "PYTHONPATH"
HERE = os.path.dirname(os.path.abspath(__file__))
_ENV = 10  # where subprocess.Popen takes the environment when it is given by position
#: Programs that import torch and train nothing.
_HELPERS = ("compile_worker", "multiprocessing.resource_tracker", "multiprocessing.forkserver")


def lent(env: "Mapping[Any, Any] | None", told: str) -> "dict[Any, Any]":
    """Return an environment in which a python starts watched.

    Args:
        env: what the child would have got; None for this process's own.
        told: what a child is told: ``STEPS:FOLDER``.
    """
    given = dict(os.environ if env is None else env)
    key: Any = PATHS if os.fsencode(PATHS) not in given else os.fsencode(PATHS)
    paths = os.fsdecode(given.get(key, ""))
    if paths.split(os.pathsep)[0] != HERE:
        given[key] = f"{HERE}{os.pathsep}{paths}" if paths else HERE
    given[NAME] = told
    return given


def starting(original: "Callable[..., None]", told: "Callable[[], str]") -> "Callable[..., None]":
    """Return ``subprocess.Popen.__init__`` that passes the doctor on.

    Args:
        original: as it was.
        told: gives what children are told; called at every start.
    """

    def start(self: "Any", *args: "Any", **kwargs: "Any") -> None:
        try:
            if len(args) > _ENV:
                args = (*args[:_ENV], lent(args[_ENV], told()), *args[_ENV + 1 :])
            else:
                kwargs = {**kwargs, "env": lent(kwargs.get("env"), told())}
        except Exception:  # a child that is not watched is better than one that does not start
            pass
        original(self, *args, **kwargs)

    for name in ("__module__", "__name__", "__qualname__", "__doc__"):
        setattr(start, name, getattr(original, name))
    start.__wrapped__ = original  # pyright: ignore[reportFunctionMemberAccess]
    return start


def arrive() -> None:
    """Take from the environment what the parent put there, and wait for torch."""
    told = os.environ.pop(NAME, "")
    paths = os.environ.get(PATHS, "")
    if paths == HERE:
        del os.environ[PATHS]
    elif paths.startswith(HERE + os.pathsep):
        os.environ[PATHS] = paths[len(HERE) + 1 :]
    line = " ".join(sys.orig_argv)
    if not told or any(name in line for name in _HELPERS):
        return

    def pass_on() -> None:
        popen: Any = sys.modules["subprocess"].Popen
        popen.__init__ = starting(popen.__init__, lambda: told)

    def follow() -> None:
        try:
            from brickyard.doctor.children import follow

            follow(told)
        except Exception as error:  # another python, without us: its run goes on
            _unwatched(told, error)

    when_imported("subprocess", pass_on)
    when_imported("torch", follow)


def _unwatched(told: str, error: Exception) -> None:
    """Leave word that this process was not watched."""
    import json

    who = f"process {os.getpid()}"
    text = f"it was not watched: {type(error).__name__}: {error} (in {sys.executable})"
    name = os.path.join(told.partition(":")[2], f"child-{os.getpid()}.json")
    try:
        with open(name, "w", encoding="utf-8") as file:
            json.dump({"pid": os.getpid(), "problems": [[who, text]]}, file)
    except OSError:
        pass


def when_imported(name: str, call: "Callable[[], None]") -> "Callable[[], None]":
    """Call ``call`` right after package ``name`` was imported; returns what takes this back.

    Args:
        name: a top-level package.
        call: takes nothing; an exception in it reaches the importer.
    """
    finder: Any = _Finder(name, call)
    sys.meta_path.insert(0, finder)
    return finder.remove


class _Finder:
    """Find one package as usual, and hear of the end of its import."""

    def __init__(self, name: str, call: "Callable[[], None]") -> None:
        self.name = name
        self.call = call
        self.busy = False

    def remove(self) -> None:
        if self in sys.meta_path:
            sys.meta_path.remove(self)  # pyright: ignore[reportArgumentType]

    def find_spec(self, name: str, path: "Any" = None, target: "Any" = None) -> "Any":
        if name != self.name or self.busy:
            return None
        self.busy = True
        try:
            found = (finder.find_spec(name, path, target) for finder in sys.meta_path)
            spec = next((one for one in found if one is not None), None)
        finally:
            self.busy = False
        if spec is None or spec.loader is None:
            return spec
        loader: Any = spec.loader
        execute = loader.exec_module

        def exec_module(module: "Any") -> None:
            """Import the package, then tell."""
            try:
                execute(module)
            finally:
                del loader.exec_module
            if self in sys.meta_path:  # somebody may only have asked whether there is a torch
                self.remove()
                self.call()

        loader.exec_module = exec_module
        return spec
