"""Say what to lower when memory does not suffice."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from brickyard.doctor.observe.tensors import tensors
from brickyard.errors import RunError

if TYPE_CHECKING:
    from brickyard.train.parts import State
    from brickyard.train.setup import Setup

__all__ = ["OutOfMemory", "building_told", "memory_told"]

_WORDS = re.compile(
    r"can't allocate memory|out of memory|not enough memory|unable to allocate", re.I
)
_ASKED = re.compile(r"tried to allocate ([\d.]+ ?(?:[KMGT]i?B|bytes))", re.I)


class OutOfMemory(RunError):  # noqa: N818  an outcome, and the word that users search for
    """Memory does not suffice for the recipe."""


@contextmanager
def memory_told(setup: Setup, state: State) -> Iterator[None]:
    """Turn an allocator's error into one that says what takes the memory and what to lower.

    Args:
        setup: what is trained.
        state: where it stands.

    Raises:
        OutOfMemory: instead of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        if not _of_memory(error):
            raise
        raise OutOfMemory(_message(setup, state, error)) from error


@contextmanager
def building_told() -> Iterator[None]:
    """Turn an allocator's error before the first step into one that says what to lower.

    Raises:
        OutOfMemory: instead of the allocator's error.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _of_memory(error):
            raise
        raise OutOfMemory(
            f"out of memory while the run is built{_more(error)}: the model, the data or the first "
            "samples in the model do not fit. Lower the model's width or depth, or the number or "
            "size of the samples"
        ) from error


def _of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or bool(_WORDS.search(str(error)))


def _more(error: BaseException) -> str:
    """Return what the allocator was asked for, in brackets; empty if it does not say."""
    asked = _ASKED.search(str(error))
    return f" (it asked for {_tidy(asked[1])} more)" if asked else ""


def _message(setup: Setup, state: State, error: BaseException) -> str:
    parts, recipe = setup.parts, setup.recipe
    weights = list(parts.model.parameters())
    held = [t for row in parts.optimizer.state.values() for t in tensors(row)]
    grads = [p.grad for p in weights if p.grad is not None]
    sizes = (
        f"weights {_size(weights)}, gradients {_size(grads)}, optimizer state {_size(held)}; the "
        "rest is activations and data"
    )
    if _passed(error.__traceback__, "evaluate.py"):
        where, lower = "evaluating", [f"eval_batch_size (now {recipe.eval_batch_size})"]
    else:
        where, lower = "training", _lower(setup)
    return (
        f"out of memory while {where} after step {state.step}{_more(error)}: {sizes}. Lower "
        f"{'; or take '.join(lower)}. The last checkpoint is intact"
    )


def _lower(setup: Setup) -> list[str]:
    """Return what would take less, beginning with what changes nothing else."""
    recipe, found = setup.recipe, []
    size, many = recipe.batch_size, recipe.accumulate
    found.append(
        f"batch_size (now {size}): {size // 2} with accumulate: {2 * many} is the same step"
        if size > 1 else "the size of the samples: batch_size is 1 already"
    )  # fmt: skip
    if recipe.checkpoint_layers is None:
        found.append("checkpoint_layers: auto, which keeps fewer activations")
    if recipe.precision.name == "fp32":
        found.append("precision: bf16, which halves activations")
    elif recipe.precision.name in ("bf16", "fp16"):
        found.append(f"precision: {recipe.precision.name}_weights, which halves weights too")
    return found


def _size(many: Iterable[Tensor]) -> str:
    return _bytes(sum(t.nbytes for t in many))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def _tidy(asked: str) -> str:
    number, _, unit = asked.partition(" ")
    return _bytes(float(number)) if unit == "bytes" else asked


def _passed(trace: TracebackType | None, file: str) -> bool:
    """Say whether an error came through a file of this package."""
    while trace is not None:
        path = Path(trace.tb_frame.f_code.co_filename)
        if path.name == file and path.parent == Path(__file__).parent:
            return True
        trace = trace.tb_next
    return False
