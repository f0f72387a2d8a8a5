"""Take everything that decides the next step out of a run, and put it back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from brickyard.errors import RunError
from brickyard.regularize import EarlyStopping, SnapshotEnsemble
from brickyard.regularize.averaging import Average
from brickyard.train.checkpoint import FORMAT
from brickyard.train.loop import State
from brickyard.train.setup import Setup


def capture(setup: Setup, state: State) -> dict[str, Any]:
    """Return everything that decides the next step, as tensors and plain values."""
    parts = setup.parts
    numpy_state: Any = np.random.get_state(legacy=True)
    python_state = random.getstate()
    return {
        "format": FORMAT,
        "step": state.step,
        "fingerprint": setup.data.facts.get("fingerprint", ""),
        "model": parts.model.state_dict(),
        "loss": parts.loss.state_dict() if isinstance(parts.loss, nn.Module) else {},
        "optimizer": parts.optimizer.state_dict(),
        "scheduler": None if parts.scheduler is None else parts.scheduler.state_dict(),
        "stopping": None if parts.stopping is None else parts.stopping.state_dict(),
        "task": parts.task.state_dict(),
        "tally": None if parts.tally is None else parts.tally.state_dict(),
        "average": None if parts.average is None else parts.average.state_dict(),
        "snapshots": None if parts.snapshots is None else parts.snapshots.state_dict(),
        "own": {str(i): one.state_dict() for i, one in _own(setup)},
        "state": {**vars(state), "window": [float(v) for v in state.window]},
        "rng": {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "python": [python_state[0], list(python_state[1]), python_state[2]],
            "numpy": [str(numpy_state[0]), torch.from_numpy(numpy_state[1].astype(np.int64)),
                      *(float(v) for v in numpy_state[2:])],
        },
    }  # fmt: skip


def _own(setup: Setup) -> Iterator[tuple[int, Any]]:
    """Yield the user's own regularizers that have a state."""
    for i, _, made in setup.regularizers.made:
        if hasattr(made, "state_dict") and not isinstance(
            made, EarlyStopping | Average | SnapshotEnsemble
        ):
            yield i, made


def restore(setup: Setup, saved: Mapping[str, Any]) -> State:
    """Put a checkpoint back into freshly built parts; return where the run stands.

    Raises:
        RunError: the checkpoint belongs to other data or another model.
    """
    parts = setup.parts
    if saved["fingerprint"] != setup.data.facts.get("fingerprint", ""):
        raise RunError("the data has changed since the checkpoint was written; start a new run")
    try:
        parts.model.load_state_dict(saved["model"])
        parts.optimizer.load_state_dict(saved["optimizer"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise RunError(
            f"the checkpoint does not fit the recipe's model or optimizer: {error}"
        ) from error
    try:
        if isinstance(parts.loss, nn.Module):
            parts.loss.load_state_dict(saved["loss"])
        for name in ("scheduler", "stopping", "tally", "average", "snapshots"):
            part = getattr(parts, name)
            if part is not None:
                part.load_state_dict(saved[name])
        for i, one in _own(setup):
            one.load_state_dict(saved["own"][str(i)])
    except (RuntimeError, ValueError, KeyError, TypeError) as error:
        raise RunError(
            f"the checkpoint does not fit the recipe: {error}; was recipe.yaml changed since?"
        ) from error
    parts.task.load_state_dict(saved["task"])
    rng = saved["rng"]
    torch.set_rng_state(rng["torch"])
    if rng["cuda"]:
        torch.cuda.set_rng_state_all(rng["cuda"])
    version, words, gauss = rng["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, position, has_gauss, cached = rng["numpy"]
    legacy = (name, keys.numpy().astype(np.uint32), int(position), int(has_gauss), cached)
    np.random.set_state(legacy)
    return State(**saved["state"])
