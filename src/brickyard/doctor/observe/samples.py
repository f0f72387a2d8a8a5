"""Compare samples of the same index from one pass over a data set to the next.

A few samples of the first pass are kept with their indices, and met again in later ones. The data
set itself is never asked: one with a state of its own would go on from another one.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import IterableDataset, SequentialSampler, dataloader, default_collate

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.patches import Patches

if TYPE_CHECKING:
    from brickyard.doctor.observe.data import Loader
    from brickyard.doctor.observe.watcher import Watcher


class Samples:
    """Follow which index each row of a batch has."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.asked: weakref.WeakKeyDictionary[Any, deque[Any]] = weakref.WeakKeyDictionary()
        self.wanted = False  # some loader is in a pass that is compared

    def install(self, patches: Patches) -> None:
        """Patch where the iterators of loaders draw indices.

        torch offers them under this name only; another torch without it is no error: samples are
        not compared then.
        """
        try:
            patches.replace(dataloader._BaseDataLoaderIter, "_next_index", self._patched)
        except AttributeError as error:
            self.w.problem("samples", error)

    def _patched(self, original: Any) -> Any:
        def next_index(iterator: Any) -> Any:
            index = original(iterator)
            if self.wanted and self.w.active:
                self.asked.setdefault(iterator, deque()).append(index)
            return index

        return next_index

    def given(self, iterator: Any) -> Any:
        """Return the indices of the batch that an iterator gave last: they come in order."""
        asked = self.asked.get(iterator)
        return asked.popleft() if asked else None

    def compare(self, info: Loader, index: Any, x: torch.Tensor) -> None:
        """Keep the first samples of the first pass, and compare them in the next ones.

        Args:
            info: the loader.
            index: what :meth:`given` returned for this batch.
            x: the batch's first tensor.
        """
        if not isinstance(index, list) or len(index) != x.shape[0] or not follows(info.ref()):
            return
        if info.seen.iterations == 1:
            for row, i in enumerate(index):
                if len(info.kept) >= T.PROBES:
                    return
                if isinstance(i, int):
                    info.kept.setdefault(i, x[row].detach().clone())
            return
        for row, i in enumerate(index):
            before = info.kept.get(i)
            if before is None or before.shape != x[row].shape:
                continue
            info.met.add(i)
            info.seen.facts["compared"] = len(info.met)
            if not torch.equal(before, x[row]) and not bool((before != before).any()):
                info.changed.add(i)
        if info.changed:
            self._report(info, x)

    def _report(self, info: Loader, x: torch.Tensor) -> None:
        info.seen.facts["changing"] = len(info.changed)
        if info.seen.training:
            return
        note = self.w.seen.note("changing-samples", "data", info.seen.place)
        note.values.update(changed=len(info.changed), probed=len(info.met), images=x.ndim == 4,
                           dataset=info.seen.facts["dataset"])  # fmt: skip


def follows(loader: Any) -> bool:
    """Say whether rows of a batch can be told by their indices.

    Args:
        loader: the data loader.
    """
    if loader is None or isinstance(loader.dataset, IterableDataset):
        return False
    if loader.persistent_workers or not getattr(loader, "in_order", True):
        return False  # indices are drawn before the pass begins, or come back in another order
    if isinstance(loader.sampler, SequentialSampler):
        return True
    return loader.collate_fn is default_collate  # another one may sort or drop rows
