"""See whether the worker processes of a data loader draw the same random numbers.

The loader's ``collate_fn`` is wrapped while its workers start. In each worker the wrapper compares
the states of random generators that the data set holds with those at the start, after each of the
first batches, and leaves a few hashes in a temporary folder for the parent.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from brickyard.doctor.observe.record import NOWHERE

_BATCHES = 2
_GENERATORS = (np.random.Generator, np.random.RandomState, torch.Generator, random.Random)


class Collate:
    """Collate as before; in a worker, leave hashes of generators and of batches."""

    def __init__(self, loader: Any) -> None:
        self.original = loader.collate_fn
        self.dataset = loader.dataset
        self.mapped = not isinstance(loader.dataset, torch.utils.data.IterableDataset)
        self.folder = tempfile.mkdtemp(prefix="brickyard-doctor-")
        self.done = 0
        self.workers = loader.num_workers
        self.place = NOWHERE
        self.start = {name: _state(one) for name, one in generators(loader.dataset)}

    def complete(self) -> bool:
        """Say whether every worker left something."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        return sum(name.endswith("-0.json") for name in names) >= self.workers

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in vars(self).items() if k != "dataset"}

    def __call__(self, samples: Any) -> Any:
        """Collate samples."""
        batch = self.original(samples)
        if self.done < _BATCHES:
            with contextlib.suppress(Exception):
                self._leave(batch)
            self.done += 1
        return batch

    def _leave(self, batch: Any) -> None:
        info = torch.utils.data.get_worker_info()
        if info is None:
            return
        states = {name: _state(one) for name, one in generators(info.dataset)}
        used = {k: v for k, v in states.items() if v != self.start.get(k)}
        content = hashlib.sha1()
        for tensor in _tensors(batch):
            content.update(tensor.contiguous().numpy().tobytes())
        found = {"worker": info.id, "used": used, "batch": content.hexdigest()}
        path = os.path.join(self.folder, f"{info.id}-{self.done}.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(found, file)


def read_workers(collate: Collate) -> list[tuple[str, dict[str, Any]]]:
    """Return what workers have in common, and remove the folder.

    Args:
        collate: the wrapper that the parent made.
    """
    by_name: dict[str, dict[str, set[int]]] = {}
    batches: dict[str, set[int]] = {}
    for name in sorted(os.listdir(collate.folder)) if os.path.isdir(collate.folder) else []:
        path = os.path.join(collate.folder, name)
        with contextlib.suppress(Exception), open(path, encoding="utf-8") as file:
            found = json.load(file)
            if name.endswith("-0.json"):
                for key, state in found["used"].items():
                    by_name.setdefault(key, {}).setdefault(state, set()).add(found["worker"])
                batches.setdefault(found["batch"], set()).add(found["worker"])
        with contextlib.suppress(OSError):
            os.unlink(path)
    with contextlib.suppress(OSError):
        os.rmdir(collate.folder)
    alike = []
    for key, states in by_name.items():
        most = max(states.values(), key=len)
        if len(most) > 1:
            alike.append((key, {"workers": len(most), "how": "generator"}))
    same = max(batches.values(), key=len, default=set())
    if len(same) > 1 and not collate.mapped:
        alike.append(("the data set", {"workers": len(same), "how": "samples"}))
    return alike


def generators(dataset: Any) -> Iterator[tuple[str, Any]]:
    """Yield the random generators that a data set holds, with the path to each."""
    queue: list[tuple[str, Any, int]] = [("dataset", dataset, 0)]
    known: set[int] = set()
    while queue:
        path, one, depth = queue.pop(0)
        if id(one) in known or len(known) > 400:
            continue
        known.add(id(one))
        if isinstance(one, _GENERATORS):
            yield path, one
        elif depth < 4 and isinstance(one, list | tuple) and len(one) <= 32:
            queue += [(f"{path}[{i}]", v, depth + 1) for i, v in enumerate(one)]
        elif depth < 4 and hasattr(one, "__dict__") and not isinstance(one, torch.Tensor | type):
            queue += [(f"{path}.{k}", v, depth + 1) for k, v in list(vars(one).items())[:64]]


def _state(generator: Any) -> str:
    """Return a hash of a generator's state."""
    if isinstance(generator, torch.Generator):
        state: Any = generator.get_state().numpy().tobytes()
    elif isinstance(generator, np.random.Generator):
        state = repr(generator.bit_generator.state).encode()
    elif isinstance(generator, np.random.RandomState):
        state = repr(generator.get_state(legacy=False)).encode()
    else:
        state = repr(generator.getstate()).encode()
    return hashlib.sha1(state).hexdigest()


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for one in value.values():
            yield from _tensors(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _tensors(one)
