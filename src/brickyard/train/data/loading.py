"""Keep a DataLoader's processes from one epoch to the next, and start and end them in time."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from torch.utils.data import DataLoader

from brickyard.train.data.reading import Reader

#: What a process is asked to read: epoch, batch and samples.
Request = tuple[int, int, list[int]]


class Loader:
    """Read whole batches in processes that stay, or in this one.

    Args:
        reader: answers requests.
        workers: processes; 0 reads here.
        prefetch: batches that each of them reads ahead.
        pin: put batches into pinned memory.
    """

    def __init__(self, reader: Reader, workers: int, prefetch: int, pin: bool):
        #: Those that were started, by their ids.
        self.processes: dict[int | None, Any] = {}
        self._requests = _Requests()
        self._make = partial(
            DataLoader, reader,
            batch_size=None,  # a request is a whole batch
            num_workers=workers,
            collate_fn=_unchanged,
            worker_init_fn=_apart,
            prefetch_factor=max(1, prefetch) if workers else None,
            pin_memory=pin,
        )  # fmt: skip
        self._stays = workers > 0
        self._kept = self._loader(self._requests, self._stays)
        self._reading: object = None  # whom the processes that stay are reading for

    def _loader(self, requests: _Requests, stays: bool) -> DataLoader[Any]:
        # With a generator of its own: else every epoch would draw from the global one.
        own = torch.Generator()
        return self._make(sampler=requests, persistent_workers=stays, generator=own)

    def start(self, requests: Sequence[Request], owner: object) -> Iterator[Any]:
        """Start to read: by the processes that stay, unless they are reading for somebody else.

        Args:
            requests: to be answered in order.
            owner: who calls :meth:`leave` when it needs no more.
        """
        others = set(multiprocessing.active_children())
        if self._reading is None:
            self._requests.items, self._reading = requests, owner if self._stays else None
            items = iter(self._kept)
        else:
            items = iter(self._loader(_Requests(requests), stays=False))
        made = set(multiprocessing.active_children()) - others
        self.processes |= {process.pid: process for process in made}
        return items

    def leave(self, items: Iterator[Any] | None, owner: object) -> None:
        """Let the processes that stay read something else, or end those that do not stay.

        Args:
            items: what was started.
            owner: for whom.
        """
        if self._reading is owner:
            self._reading = None
        elif items is not self._kept._iterator:
            _end(items)

    def close(self) -> None:
        """End the processes; what is read later starts new ones.

        The garbage collector would do so some day, after it has closed the queues by which
        processes are told to leave: then each of them is waited for until it looks up, for
        seconds, in whatever this process does at that moment.
        """
        items = self._kept._iterator
        self._kept._iterator = self._reading = None
        self.processes.clear()
        _end(items)


class Reading:
    """Iterate over the answers to requests; nothing is started before it is asked for.

    Args:
        loader: reads them.
        requests: as :meth:`Loader.start` takes them.
    """

    def __init__(self, loader: Loader, requests: Sequence[Request]):
        self._loader, self._requests = loader, requests
        self._items: Iterator[Any] | None = None

    def begin(self) -> Iterator[Any]:
        """Start what reads, from the thread that is to fork it."""
        if self._items is None:
            self._items = self._loader.start(self._requests, self)
        return self._items

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.begin())

    def close(self) -> None:
        """Let go of what was started."""
        self._loader.leave(self._items, self)


class _Requests:
    """Hold what a DataLoader shall read next."""

    def __init__(self, items: Sequence[Request] = ()):
        self.items = items

    def __iter__(self) -> Iterator[Request]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


def _end(items: Any) -> None:
    """End the processes of a DataLoader's iterator, if it has some."""
    shutdown = getattr(items, "_shutdown_workers", None)
    if shutdown is not None:
        shutdown()


def _apart(worker: int) -> None:
    """Leave the group of the terminal and of launchers: a signal to all would end the reading.

    Their parent is asked to stop, finishes its step, saves, and ends them itself.
    """
    with suppress(AttributeError, OSError):
        os.setpgid(0, 0)


def _unchanged(batch: Any) -> Any:
    return batch
