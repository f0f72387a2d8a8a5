"""Checkpoints of models that are cut over processes, by torch's distributed checkpoints.

Every process writes its own shards into one folder of safetensors files; everything else of a
checkpoint, with the shards' shapes and checksums, stays in the checkpoint's file. Any number of
processes can read them again, one alone too, and nothing in them is executed.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.hf_storage import (
    HuggingFaceStorageReader,
    HuggingFaceStorageWriter,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.tensor import DTensor, zeros

from brickyard.errors import RunError
from brickyard.optim.backends.sharded import cut_like
from brickyard.runs import sync_folder
from brickyard.train.manifest import checksum

if TYPE_CHECKING:
    from brickyard.train.ranks import Ranks

__all__ = ["cut", "pack", "unpack"]

_MARK = "brickyard.shard"


def pack(state: dict[str, Any], folder: Path, step: int, ranks: Ranks) -> dict[str, Any]:
    """Write the shards of a checkpoint; return it with a note where each of them was.

    Every process must call it.

    Args:
        state: nested dicts and lists with DTensors in them.
        folder: of the checkpoints.
        step: of the run.
        ranks: the processes.

    Raises:
        RunError: a process could not write; the checkpoints already there are intact.
    """
    found: dict[str, Tensor] = {}
    plain = _taken(state, "", found)
    if not found:
        return plain
    name = ranks.decide(f"shards-{step:08d}-{os.urandom(4).hex()}")
    path, error = folder / name, ""
    try:
        with _without_noise():
            writer = HuggingFaceStorageWriter(str(path), save_distributed=True)
            save(dict(found), storage_writer=writer)
    except Exception as problem:  # torch wraps what happened on any process
        error = str(problem).strip().splitlines()[-1][:200]
    error = next(filter(None, ranks.gather(error)), "")
    if error:
        raise RunError(
            f"cannot write the shards of a checkpoint into {path}: {error}; the checkpoints "
            "already there are intact"
        )
    files = _sealed(path) if ranks.leads else {}
    return {**plain, "shards": {"folder": name, "files": files}}


def _sealed(path: Path) -> dict[str, str]:
    """Flush a folder's files to the disk and return their checksums."""
    for file in path.iterdir():
        handle = os.open(file, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(path)
    return {file.name: checksum(file) for file in sorted(path.iterdir())}


def unpack(saved: dict[str, Any], folder: Path, model: nn.Module) -> dict[str, Any]:
    """Return a checkpoint with its tensors in it, cut as this run's model is.

    Args:
        saved: what the checkpoint's file holds.
        folder: of the checkpoints.
        model: the network, built and cut as this run has it.
    """
    if "shards" not in saved:
        return saved
    wanted: dict[str, dict[str, Any]] = {}
    _notes(saved, wanted)
    shapes = _layouts(model)
    made = {key: _empty(note, shapes.get(tuple(note["shape"]))) for key, note in wanted.items()}
    path = folder / saved["shards"]["folder"]
    alone = not torch.distributed.is_initialized()
    with _without_noise():
        load(made, storage_reader=HuggingFaceStorageReader(str(path)), no_dist=alone)
    return _filled({k: v for k, v in saved.items() if k != "shards"}, made)


def cut(saved: dict[str, Any], model: nn.Module) -> dict[str, Any]:
    """Return a checkpoint whose whole tensors are cut as this run's model is.

    Args:
        saved: model, optimizer and average of a run whose processes each held everything.
        model: the network, as this run has it.
    """
    shapes = _layouts(model)

    def fit(value: Any) -> Any:
        if isinstance(value, Tensor):
            like = shapes.get(tuple(value.shape))
            return value if like is None else cut_like(value, like)
        if isinstance(value, Mapping):
            return {key: fit(below) for key, below in value.items()}
        return [fit(below) for below in value] if isinstance(value, list) else value

    found = {key: fit(saved[key]) for key in ("model", "optimizer", "average")}
    return {**saved, **found}


def _layouts(model: nn.Module) -> dict[tuple[int, ...], DTensor]:
    """Return, for every shape of a parameter that is cut, one that has it."""
    return {tuple(p.shape): p for p in model.parameters() if isinstance(p, DTensor)}


def _empty(note: Mapping[str, Any], like: DTensor | None) -> Tensor:
    dtype = getattr(torch, note["dtype"])
    if like is None:
        return torch.zeros(note["shape"], dtype=dtype)
    return zeros(
        *note["shape"], dtype=dtype, device_mesh=like.device_mesh, placements=like.placements
    )


def _taken(value: Any, path: str, found: dict[str, Tensor]) -> Any:
    if isinstance(value, DTensor):
        key = path.strip("/") or "tensor"
        found[key] = value.detach()
        kind = str(value.dtype).removeprefix("torch.")
        return {_MARK: key, "shape": list(value.shape), "dtype": kind}
    if isinstance(value, Mapping):
        return {key: _taken(below, f"{path}/{key}", found) for key, below in value.items()}
    if isinstance(value, list | tuple):
        return [_taken(below, f"{path}/{i}", found) for i, below in enumerate(value)]
    return value


def _notes(value: Any, found: dict[str, dict[str, Any]]) -> None:
    if isinstance(value, Mapping):
        if _MARK in value:
            found[value[_MARK]] = dict(value)
        else:
            for below in value.values():
                _notes(below, found)
    elif isinstance(value, list | tuple):
        for below in value:
            _notes(below, found)


def _filled(value: Any, made: Mapping[str, Tensor]) -> Any:
    if isinstance(value, Mapping):
        if _MARK in value:
            return made[value[_MARK]]
        return {key: _filled(below, made) for key, below in value.items()}
    if isinstance(value, list):
        return [_filled(below, made) for below in value]
    return value


@contextmanager
def _without_noise() -> Iterator[None]:
    """Keep torch from warning that one process reads alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield
