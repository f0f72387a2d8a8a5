"""Take everything that decides the next step out of a run, and put it back."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from brickyard.errors import RunError
from brickyard.regularize import EarlyStopping, Ensemble, SnapshotEnsemble
from brickyard.regularize.averaging import Average
from brickyard.train.checkpoint import FORMAT
from brickyard.train.data import mix_seed
from brickyard.train.data.reading import note_unreadable, unreadable_in
from brickyard.train.loop import State
from brickyard.train.setup import Setup

if TYPE_CHECKING:
    from brickyard.train.ranks import Ranks


def capture(setup: Setup, state: State) -> dict[str, Any]:
    """Return everything that decides the next step, as tensors and plain values."""
    parts = setup.parts
    return {
        "format": FORMAT,
        "step": state.step,
        "fingerprint": setup.data.facts.get("fingerprint", ""),
        "model": parts.model.state_dict(),
        "loss": parts.loss.state_dict() if isinstance(parts.loss, nn.Module) else {},
        "optimizer": parts.optimizer.state_dict(),
        "scheduler": None if parts.scheduler is None else parts.scheduler.state_dict(),
        "scaler": None if parts.scaler is None else parts.scaler.state_dict(),
        "stopping": None if parts.stopping is None else parts.stopping.state_dict(),
        "task": parts.task.state_dict(),
        "tally": None if parts.tally is None else parts.tally.state_dict(),
        "average": None if parts.average is None else parts.average.state_dict(),
        "snapshots": None if parts.snapshots is None else parts.snapshots.state_dict(),
        "unreadable": unreadable_in(parts.train, setup.evaluator.batches).found,
        "own": {str(i): one.state_dict() for i, one in _own(setup)},
        "state": {**vars(state), "window": [float(v) for v in state.window]},
        "rng": _numbers(),
    }  # fmt: skip


def _numbers() -> dict[str, Any]:
    """Return the states of all random number generators."""
    numpy_state: Any = np.random.get_state(legacy=True)
    python_state = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "python": [python_state[0], list(python_state[1]), python_state[2]],
        "numpy": [str(numpy_state[0]), torch.from_numpy(numpy_state[1].astype(np.int64)),
                  *(float(v) for v in numpy_state[2:])],
    }  # fmt: skip


def together(state: dict[str, Any], folder: Path, ranks: Ranks) -> dict[str, Any]:
    """Return one checkpoint of several processes; every one of them must call it.

    Args:
        state: what ``capture`` returned here.
        folder: of the checkpoints, where shards are written.
        ranks: the processes.
    """
    from brickyard.train.shards import pack

    losses = state["state"]["window"]  # since the latest row, each of this process's part
    seen = {**state["state"], "window": ranks.mean(losses) if losses else []}
    state = {**state, "state": seen, "rngs": ranks.gather(state["rng"]),
             "tally": ranks.gather(state["tally"])}  # fmt: skip
    return pack(state, ranks.decide(folder), state["step"], ranks)


def join(setup: Setup, saved: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a checkpoint as this run holds it, however many processes wrote it.

    Args:
        setup: the run, freshly built.
        saved: what the checkpoint's file holds.
        folder: of the checkpoints.
    """
    ranks = setup.parts.ranks
    if "shards" in saved or (ranks is not None and ranks.sharded):
        from brickyard.train import shards

        saved = shards.unpack(saved, folder, setup.parts.model)
        saved = shards.cut(saved, setup.parts.model)
    if ranks is None:
        return {**saved, "tally": _dealt(saved, 0, 1)}
    known = saved.get("rngs", [saved["rng"]])
    saved = {**saved, "tally": _dealt(saved, ranks.rank, ranks.count)}
    if len(known) == ranks.count:
        return {**saved, "rng": known[ranks.rank]}
    # Another number of processes: the first goes on, the others draw something new.
    drawn = torch.Generator().manual_seed(mix_seed(setup.recipe.seed, saved["step"], ranks.rank))
    return {**saved, "rng": {**known[0], "torch": drawn.get_state()}} if ranks.rank else saved


def _dealt(saved: Mapping[str, Any], rank: int, count: int) -> Any:
    """Return one process's share of the batches that training metrics still wait for."""
    many = saved["tally"] if "rngs" in saved else [saved["tally"]]
    if len(many) == count or None in many:
        return many[rank % len(many)]
    return [pair for one in many for pair in one][rank::count]


def _own(setup: Setup) -> Iterator[tuple[int, Any]]:
    """Yield the user's own regularizers that have a state."""
    for i, _, made in setup.regularizers.made:
        if hasattr(made, "state_dict") and not isinstance(
            made, EarlyStopping | Average | SnapshotEnsemble | Ensemble
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
        for name in ("scheduler", "scaler", "stopping", "tally", "average", "snapshots"):
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
    note_unreadable(parts.train, saved.get("unreadable", {}))
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
