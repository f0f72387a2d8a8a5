"""Watch data loaders: order, labels, duplicates, overlap between training and evaluation."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler, Subset

from brickyard.doctor.observe.functions import put_back
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import user_place
from brickyard.doctor.observe.record import LoaderSeen
from brickyard.doctor.observe.samples import Samples
from brickyard.doctor.observe.tensors import finite, tensors
from brickyard.doctor.observe.workers import Collate, read_workers

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher

#: Passes over a loader's data that are compared with each other.
PASSES = 2
_MOST_ROWS = 30_000
_FEATURES = 512


@dataclass
class Loader:
    """A data loader and what its batches showed."""

    ref: weakref.ref[Any]
    seen: LoaderSeen
    dataset: Callable[[], Any]  # while it lives: loaders may be made anew for each pass
    hashes: list[torch.Tensor] = field(default_factory=list)
    rows: int = 0
    counts: torch.Tensor | None = None
    entropies: list[torch.Tensor] = field(default_factory=list)
    order: int = 0
    trained_in: int = -1
    in_order: bool = False
    compared: bool = False
    continuous: bool = False
    kept: dict[int, torch.Tensor] = field(default_factory=dict)  # samples of the first pass
    met: set[int] = field(default_factory=set)  # ... that were met again
    changed: set[int] = field(default_factory=set)  # ... and differed


class Data:
    """Follow every iteration over a DataLoader."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.loaders: weakref.WeakKeyDictionary[Any, Loader] = weakref.WeakKeyDictionary()
        self.iterators: weakref.WeakKeyDictionary[Any, Loader] = weakref.WeakKeyDictionary()
        self.last: tuple[Loader, Any] | None = None
        self.main: Loader | None = None
        self.known: list[Loader] = []
        self._weights: torch.Tensor | None = None
        self._collates: list[Collate] = []
        self.samples = Samples(watcher)
        self._followed: set[type] = set()
        self._pairs: set[tuple[int, int]] = set()  # data sets that were compared
        self._latest: tuple[Callable[[], Any], Loader | None] = (lambda: None, None)

    def install(self, patches: Patches) -> None:
        """Patch the iteration of data loaders."""
        patches.replace(DataLoader, "__iter__", self._patched_iter)
        self._patches = patches
        self.samples.install(patches)

    def _follow(self, iterator: Any) -> None:
        """Patch what gives the batches of an iterator, once for each kind of them."""
        owner = next(c for c in type(iterator).__mro__ if "__next__" in vars(c))
        if owner not in self._followed:
            self._followed.add(owner)
            self._patches.replace(owner, "__next__", self._patched_next)

    def _patched_iter(self, original: Any) -> Any:
        def iterate(loader: Any) -> Any:
            w = self.w
            if not w.active or w.busy:
                return original(loader)
            collate = None
            with w.own_time("data"):
                known = self.loaders.get(loader)
                if known is None or known.seen.iterations < PASSES:
                    self.samples.wanted = True  # workers are given indices before it returns
                if loader.num_workers > 1 and known is None:
                    collate = Collate(loader)
            try:
                if collate is not None:
                    loader.collate_fn = collate
                iterator = original(loader)
            finally:
                if collate is not None:
                    loader.collate_fn = collate.original
            with w.own_time("data"):
                if collate is not None:
                    collate.place = user_place(2)
                    self._collates.append(collate)
                self._follow(iterator)
                self._began(loader, iterator)
            return iterator

        return iterate

    def _patched_next(self, original: Any) -> Any:
        def following(iterator: Any) -> Any:
            w = self.w
            if not w.active or w.busy:
                return original(iterator)
            ref, info = self._latest
            if ref() is not iterator:
                info = self.iterators.get(iterator)
                self._latest = weakref.ref(iterator), info
            mode = w.functions.lift() if w.functions.mode is not None else None
            try:
                batch = original(iterator)
            except StopIteration:
                if info is not None:
                    with w.own_time("data"):
                        self._ended(info)
                raise
            finally:
                if mode is not None:
                    put_back(mode)
            if info is not None:
                self.last = (info, batch)
                info.seen.batches += 1
                if info.seen.iterations <= PASSES:
                    with w.own_time("data"):
                        self._look(info, batch, self.samples.given(iterator))
            return batch

        return following

    def _began(self, loader: Any, iterator: Any) -> None:
        info = self.loaders.get(loader)
        if info is None:
            seen = LoaderSeen(len(self.w.seen.loaders), user_place(3))
            sampler = getattr(loader, "sampler", None)
            mapped = not isinstance(loader.dataset, IterableDataset)
            seen.facts.update(
                sampler=type(sampler).__name__,
                in_order=mapped and isinstance(sampler, SequentialSampler),
                drawn=getattr(sampler, "shuffle", type(sampler).__name__ == "RandomSampler"),
                mapped=mapped, batch_size=loader.batch_size, workers=loader.num_workers,
                dataset=type(loader.dataset).__name__,
            )  # fmt: skip
            try:
                seen.facts["size"] = len(loader.dataset)
            except TypeError:
                seen.facts["size"] = None
            info = self.loaders[loader] = Loader(weakref.ref(loader), seen, _data_of(loader))
            self.known.append(info)
            self.w.seen.loaders.append(seen)
        info.seen.iterations += 1
        info.order = 0
        self.samples.wanted = any(
            i.seen.iterations <= PASSES and i.ref() is not None for i in self.known
        )
        if not info.seen.training and self.main is not None:
            self.w.evaluations.begin()
            self.w.swaps.evaluating()
        self.iterators[iterator] = info

    def _look(self, info: Loader, batch: Any, index: Any) -> None:
        found = [t for t in tensors(batch) if t.ndim >= 1]
        if not found:
            return
        x = found[0]
        rows = x.shape[0]
        y = next(
            (t for t in found[1:] if t.ndim == 1 and t.shape[0] == rows
             and not t.is_floating_point() and t.dtype != torch.bool), None,
        )  # fmt: skip
        if x.device.type != "cpu":
            return
        mark = y if y is not None else x.flatten(1)[:, :4] if x.ndim > 1 else x
        info.order = hash((info.order, mark.contiguous().cpu().numpy().tobytes()))
        self.samples.compare(info, index, x)
        if info.seen.iterations > 1:
            return
        self._finite(info, found)
        if y is not None and int(y.min()) >= 0 and int(y.max()) < 4096:
            counts = torch.bincount(y.cpu(), minlength=0)
            info.entropies.append(counts)
        if x.ndim >= 2 and info.rows < _MOST_ROWS:
            if not info.hashes and x.is_floating_point() and x[0].numel() >= 4:
                info.continuous = not bool((x[:16] == x[:16].round()).all())
            info.hashes.append(self._hash(x))
            info.rows += rows

    def _finite(self, info: Loader, found: list[torch.Tensor]) -> None:
        for i, one in enumerate(found):
            if one.is_floating_point():
                total = float(one.sum())
                if total - total != 0.0 and not finite(one):
                    bad = int((~torch.isfinite(one)).sum())
                    at = f", first in batch {info.seen.batches} of the loader"
                    self.w.seen.note("input-nonfinite", f"tensor {i} of a batch", info.seen.place,
                                     bad=bad, of=one.numel(), batch=at)  # fmt: skip

    def _hash(self, x: torch.Tensor) -> torch.Tensor:
        """Return one number per sample, equal for equal samples."""
        flat = x.detach().flatten(1)
        step = max(1, flat.shape[1] // _FEATURES)
        flat = flat[:, ::step][:, :_FEATURES].contiguous()
        if flat.is_floating_point():
            flat = flat + 0.0  # -0 is 0
        size = flat.element_size()
        if size < 8 and flat.shape[1] * size % 8 == 0:  # several in one
            flat = flat.view(torch.int64)
        elif flat.is_floating_point():
            flat = flat.view({2: torch.int16, 4: torch.int32, 8: torch.int64}[size])
        values = flat.to(torch.int64)
        if self._weights is None:
            own = torch.Generator().manual_seed(20)
            self._weights = torch.randint(-(2**62), 2**62, (_FEATURES,), generator=own) | 1
        return (values * self._weights[: values.shape[1]]).sum(1)

    def _ended(self, info: Loader) -> None:
        seen = info.seen
        seen.orders.append(info.order)
        seen.ends.append(seen.batches)
        if seen.iterations == 1 and info.entropies:
            self._entropy(info)
        if not seen.training and not info.compared:
            info.compared = True
            self._overlap(info)
        elif seen.training and seen.iterations == 1 and info.hashes:
            hashes = torch.cat(info.hashes)
            seen.facts["duplicates"] = hashes.numel() - hashes.unique().numel()
            seen.facts["hashed"] = hashes.numel()
        if seen.training:
            self.w.evaluations.begin()
            self.w.swaps.evaluating()

    def _entropy(self, info: Loader) -> None:
        size = max(c.numel() for c in info.entropies)
        table = torch.stack([_padded(c, size) for c in info.entropies]).double()
        info.seen.batch_entropy = _entropies(table)
        info.seen.facts["entropy"] = _entropies(table.sum(0, keepdim=True))[0]
        info.seen.labels = {i: int(n) for i, n in enumerate(table.sum(0).tolist()) if n}
        info.seen.facts["repeats"] = info.seen.batches
        info.entropies = []

    def _overlap(self, val: Loader) -> None:
        """Look for samples of an evaluation's data among the training data."""
        held = val.dataset()
        main = self.main.dataset() if self.main is not None else None
        for train in self.known:
            trained = train.dataset()
            if not train.seen.training or trained is None or held is None:
                continue
            if train.ref() is None and trained is not main:
                continue  # another fold's
            pair = (id(trained), id(held))
            if pair in self._pairs or _same_data(trained, held):
                continue
            self._pairs.add(pair)
            shared = _shared_indices(trained, held)
            if shared and shared[0]:
                self.w.seen.note("overlap", "data", val.seen.place, shared=shared[0],
                                 of=shared[1], how="indices")  # fmt: skip
            elif train.hashes and val.hashes and train.hashes[0].shape:
                one, two = torch.cat(train.hashes), torch.cat(val.hashes)
                both = int(torch.isin(two, one).sum())
                own = one.numel() - one.unique().numel()
                if both:
                    self.w.seen.note("overlap", "data", val.seen.place, shared=both,
             of=two.numel(), how="content", own=own,
                                     train=one.numel(), continuous=val.continuous)  # fmt: skip

    # -- training ------------------------------------------------------------------------------
    def fresh(self) -> bool:
        """Say whether the last batch began an iteration that was not trained with yet."""
        return self.last is not None and self.last[0].trained_in != self.last[0].seen.iterations

    def trained(self) -> None:
        """Hear of a backward pass: the loader that gave the last batch trains."""
        if self.last is None:
            return
        info = self.last[0]
        if info.trained_in != info.seen.iterations:
            info.trained_in = info.seen.iterations
            info.seen.training = True
            if self.main is None:
                self.main = info
            if info is self.main or self.main.ref() is None:
                self.main = info
                self.w.new_epoch()

    def last_is_bad(self) -> bool:
        """Say whether the last batch holds values that are not finite."""
        return self.last is not None and not all(finite(t) for t in tensors(self.last[1]))

    def gather(self, last: bool = False) -> None:
        """Read what worker processes left, once all of them did.

        Args:
            last: do not wait for the others.
        """
        for collate in list(self._collates):
            if not last and not collate.complete():
                continue
            self._collates.remove(collate)
            for where, values in read_workers(collate):
                self.w.seen.note("workers-alike", where, collate.place, **values)

    def at_end(self) -> None:
        """Finish what an interrupted iteration left."""
        self.gather(last=True)
        for info in self.known:
            if info.seen.training and info.entropies:
                self._entropy(info)
        self.last = None


def _data_of(loader: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(loader.dataset)
    except TypeError:  # a list, say
        ref = weakref.ref(loader)
        return lambda: getattr(ref(), "dataset", None)


def _padded(counts: torch.Tensor, size: int) -> torch.Tensor:
    return torch.nn.functional.pad(counts, (0, size - counts.numel()))


def _entropies(counts: torch.Tensor) -> list[float]:
    """Return the entropy of every row."""
    share = counts / counts.sum(1, keepdim=True)
    return torch.special.entr(share).sum(1).tolist()


def _same_data(one: Any, two: Any) -> bool:
    """Say whether two loaders read the same samples on purpose."""
    if one is two:
        return True
    parts = getattr(one, "tensors", None), getattr(two, "tensors", None)
    if parts[0] and parts[1] and parts[0][0].data_ptr() == parts[1][0].data_ptr():
        return parts[0][0].shape == parts[1][0].shape
    if isinstance(one, Subset) and isinstance(two, Subset) and one.dataset is two.dataset:
        return list(one.indices) == list(two.indices)
    # a part of the training data, looked at for its training score
    return isinstance(two, Subset) and two.dataset is one


def _shared_indices(one: Any, two: Any) -> tuple[int, int] | None:
    if isinstance(one, Subset) and isinstance(two, Subset) and one.dataset is two.dataset:
        second = {int(i) for i in two.indices}
        return len(second & {int(i) for i in one.indices}), len(second)
    return None
