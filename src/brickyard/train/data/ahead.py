"""Prepare the next batches in a thread while the present one is trained on."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

import torch

T = TypeVar("T")

_POLL_SECONDS = 0.05


def spare_core(accelerator: bool = False) -> bool:
    """Say whether a core has nothing to do while torch computes.

    Args:
        accelerator: torch computes elsewhere.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        cores = os.cpu_count() or 1
    return cores > (1 if accelerator else torch.get_num_threads())


def ahead(
    source: Iterator[T], depth: int, begin: Callable[[], object] | None = None
) -> Iterator[T]:
    """Yield what ``source`` yields, which a thread asks for up to ``depth`` items in advance.

    The order is the same, and so is every item, as long as ``source`` shares no state with who
    takes them. When nobody asks on, the thread ends.

    Args:
        source: is only used by the thread.
        depth: items that may wait.
        begin: called by who takes the first item, before there is a thread. Here processes are to
            be forked: in a fork of another thread, Python takes apart what the main thread keeps
            for itself, and a process group among that waits for threads that a fork does not have.

    Example:
        >>> list(ahead(iter(range(5)), 2))
        [0, 1, 2, 3, 4]
    """
    ready: queue.Queue[tuple[str, Any]] = queue.Queue(depth)
    left = threading.Event()

    def put(what: str, item: Any) -> bool:
        while not left.is_set():
            with suppress(queue.Full):
                ready.put((what, item), timeout=_POLL_SECONDS)
                return True
        return False

    def work() -> None:
        try:
            for item in source:
                if not put("item", item):
                    return
            put("end", None)
        except BaseException as error:  # raised where the item is awaited
            put("error", error)

    if begin is not None:
        begin()
    thread = threading.Thread(target=work, name="brickyard-ahead", daemon=True)
    thread.start()
    try:
        while True:
            what, item = ready.get()
            if what == "error":
                raise item
            if what == "end":
                return
            yield item
    finally:
        left.set()
        thread.join()
