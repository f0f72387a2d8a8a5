"""Processes that have imported torch already: they start in no time, and are new all the same.

A server imports once what nearly every process of the tests needs, runs nothing of it, and is
forked for each of them. What a fresh interpreter alone can show is run by ``subprocess``.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkServerProcess
from multiprocessing.managers import SyncManager
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import torch.multiprocessing as mp

__all__ = ["manager", "on_each", "run", "start"]

os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the server, and so of all that it starts
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([
    "torch", "torch.utils.data", "torch.distributed", "torch.distributed.fsdp", "torch._dynamo",
    "sklearn.datasets", "sklearn.model_selection", "sklearn.preprocessing", "sklearn.metrics",
    "torchmetrics", "brickyard.cli", "brickyard.nn", "brickyard.train", "brickyard.report",
    "brickyard.doctor.run",
])  # fmt: skip


def start(
    arguments: Sequence[object], folder: Path | None = None, out: str = os.devnull,
    err: str = os.devnull, errors: Sequence[type[Warning]] = (),
) -> ForkServerProcess:  # fmt: skip
    """Start Python with arguments, as a shell would, and return the process.

    Args:
        arguments: a script, or ``-m`` and a module, or ``-c`` and code; and what they are given.
        folder: to run in.
        out: the file that takes what is printed.
        err: the file that takes what goes to standard error.
        errors: warnings that end the process.
    """
    words = list(map(str, arguments))
    settings = (str(folder or Path.cwd()), out, err, tuple(errors), dict(os.environ))
    process = _context.Process(target=_become, args=(words, *settings))
    process.start()
    return process


def run(
    arguments: Sequence[object], folder: Path | None = None, limit: float = 300,
    errors: Sequence[type[Warning]] = (),
) -> "subprocess.CompletedProcess[str]":  # fmt: skip
    """Run Python with arguments to its end; return the code and the texts it printed.

    Args:
        arguments: as ``start`` takes them.
        folder: to run in.
        limit: seconds after which the process is ended and the test fails.
        errors: warnings that end the process.
    """
    with TemporaryDirectory() as scratch:
        out, err = (os.path.join(scratch, name) for name in ("out", "err"))
        process = start(arguments, folder, out, err, errors)
        process.join(limit)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(list(map(str, arguments)), limit)
        texts = (Path(name).read_text(encoding="utf-8") for name in (out, err))
        return subprocess.CompletedProcess(list(arguments), process.exitcode, *texts)


def on_each(job: Callable[..., None], *arguments: Any, count: int) -> None:
    """Run a function of a module in several processes; an error in one of them ends all.

    Args:
        job: called with the number of the process, and the arguments.
        arguments: what can be pickled.
        count: of processes.
    """
    mp.start_processes(job, arguments, nprocs=count, start_method="forkserver")


def manager() -> SyncManager:
    """Return a started manager of shared objects; not a fork of this process and its threads."""
    return _context.Manager()


def _become(
    words: list[str], folder: str, out: str, err: str, errors: Sequence[type[Warning]],
    environment: dict[str, str],
) -> None:  # fmt: skip
    """Do as the interpreter does with its arguments."""
    for number, name in ((1, out), (2, err)):
        file = os.open(name, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # the usual one, for children of its own
    for category in errors:
        warnings.filterwarnings("error", category=category)
    if words[0] == "-m":
        sys.argv, sys.path[0:0] = words[1:], [folder]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    elif words[0] == "-c":
        sys.argv, sys.path[0:0] = ["-c", *words[2:]], [folder]
        sys.modules["__main__"] = main = ModuleType("__main__")
        exec(compile(words[1], "<string>", "exec"), vars(main))
    else:
        sys.argv, sys.path[0:0] = words, [os.path.dirname(words[0])]
        runpy.run_path(words[0], run_name="__main__")
