"""Begin and end a run of several processes: one writes the run folder, all end with one reason."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from brickyard.errors import RunError
from brickyard.runs import RECIPE, RunFolder
from brickyard.train.make import make

if TYPE_CHECKING:
    from brickyard.train.ranks import Ranks
    from brickyard.train.recipe import Recipe
    from brickyard.train.setup import Setup

__all__ = ["explained", "leave", "open_folder", "ranks_of", "run_folder"]


def ranks_of(recipe: Recipe) -> Ranks | None:
    """Return the processes that torchrun started; None where this one is alone."""
    if int(os.environ.get("WORLD_SIZE", "1")) < 2:
        return None
    from brickyard.train.ranks import Ranks

    return Ranks(recipe.distributed, recipe.device)


@contextmanager
def run_folder(name: str, out: str | Path | None, ranks: Ranks | None) -> Iterator[RunFolder]:
    """Make a new run folder, and hold it; other processes than the first write nowhere.

    Args:
        name: of the recipe.
        out: where the folder shall be.
        ranks: the processes.

    Raises:
        RunError: the folder cannot be made; every process hears of it.
    """
    error: RunError | None = None
    run: RunFolder | None = None
    if ranks is None or ranks.leads:
        try:
            run = RunFolder.create(name, out)
        except RunError as problem:
            error = problem
    if ranks is not None:
        told = ranks.decide(None if error is None else str(error))
        if told and error is None:
            error = RunError(told)
    if error is not None:
        raise error
    if run is not None:
        with run.held():
            yield run
        return
    with _nowhere(name) as run:
        yield run


@contextmanager
def open_folder(path: str | Path) -> Iterator[tuple[RunFolder, RunFolder, Ranks | None]]:
    """Open a run folder to go on with it; return where to read, where to write, and with whom.

    Args:
        path: the run folder.

    Raises:
        RunError: no run is there, or another process is training it.
        RecipeError: its recipe was changed into one that is wrong.
    """
    from brickyard.train.recipe import resolve

    run = RunFolder.open(path)
    ranks = ranks_of(resolve(run.recipe(), source=str(run.path / RECIPE)).recipe)
    if ranks is None or ranks.leads:
        with run.held():
            yield run, run, ranks
        return
    with _nowhere("follower") as mine:
        yield run, mine, ranks


@contextmanager
def _nowhere(name: str) -> Iterator[RunFolder]:
    """Make a run folder that is gone afterwards: what followers write down, the first one has."""
    with tempfile.TemporaryDirectory(prefix="brickyard-") as folder:
        yield RunFolder.create(name, Path(folder) / "run")


def leave(setup: Setup) -> bool:
    """Part from the other processes at the end of training; say whether this is the first one.

    The first one goes on with a whole model and all of the validation data.

    Args:
        setup: the trained run.
    """
    parts, evaluator = setup.parts, setup.evaluator
    ranks = parts.ranks
    if ranks is None:
        return True
    average, stopping = parts.average, parts.stopping
    if ranks.sharded:
        if stopping is not None and not stopping.restore_best and average is not None:
            with suppress(RuntimeError):
                average.keep()
        weights = ranks.whole(parts.model.state_dict())
        if ranks.leads:
            device = next(iter(weights.values())).device
            model = setup.task.build(partial(make, setup.recipe.model, "model"), setup.data)
            model.load_state_dict(weights)
            parts.model = model.to(device)
    ranks.leave()
    parts.ranks = evaluator.ranks = None
    evaluator.batches = getattr(evaluator.batches, "inner", evaluator.batches)
    return ranks.leads


@contextmanager
def explained(ranks: Ranks | None) -> Iterator[None]:
    """Let torchrun know what failed here, and tell a failure elsewhere from one of our own.

    Args:
        ranks: the processes.

    Raises:
        RunError: another process ended.
    """
    if ranks is None:
        with nullcontext():
            yield
        return
    try:
        yield
    except Exception as error:
        if isinstance(error, RuntimeError) and _lost(str(error)):
            raise RunError(
                f"another process of the run ended, and rank {ranks.rank} cannot go on without "
                "it; what that one said is the cause"
            ) from error
        with suppress(Exception):  # telling torchrun must not hide the error
            from torch.distributed.elastic.multiprocessing.errors import get_error_handler

            get_error_handler().record_exception(error)
        error.add_note(f"on rank {ranks.rank} of {ranks.count}")
        raise


def _lost(text: str) -> bool:
    signs = ("Connection closed by peer", "Connection reset", "Broken pipe", "Timed out waiting",
             "NCCL communicator was aborted", "Socket Timeout", "recvValue failed")  # fmt: skip
    return any(sign in text for sign in signs)
