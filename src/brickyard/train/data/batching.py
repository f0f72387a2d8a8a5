"""Cut splits into batches: the order is a pure function of seed and epoch, so any point resumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor

from brickyard.errors import DataError, UserError
from brickyard.train.data.ahead import ahead, spare_core
from brickyard.train.data.base import Split
from brickyard.train.data.loading import Loader, Reading
from brickyard.train.data.reading import (
    POLICIES,
    Reader,
    Unreadable,
    explaining_deaths,
    mix_seed,
)

Batch = tuple[Tensor, Tensor]
Transform = Callable[[Tensor, Tensor, torch.Generator], Batch]

#: Up to this size an epoch is permuted at once and batches are views of the copy. Larger ones are
#: gathered batch by batch, while each batch is still in the processor's cache.
_PERMUTE_BYTES = 1 << 20


class Batches(Protocol):
    """Give out batches of a split, epoch by epoch."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        ...

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of an epoch from the batch ``start`` on."""
        ...


def epoch_order(n: int, seed: int, epoch: int) -> Tensor:
    """Return the order of ``n`` samples in an epoch, int64 of shape (n,)."""
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    return torch.randperm(n, generator=generator)


class _Plan:
    """Count batches and hold what both kinds of batches share."""

    def __init__(
        self, split: Split, batch_size: int, *, shuffle: bool, seed: int,
        transform: Transform | None, drop_last: bool,
    ):  # fmt: skip
        if batch_size < 1:
            raise DataError(f"batch_size must be 1 at least; got {batch_size}")
        if transform is not None and not shuffle:
            raise DataError(
                "a transform is for training batches, which are shuffled; validation samples are "
                "measured as they are: give transform=None or shuffle=True"
            )
        n = len(split)
        if drop_last and n < batch_size:
            raise DataError(
                f"drop_last leaves no batch: there are {n} samples and batch_size is {batch_size}"
            )
        self.split = split
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.transform = transform
        self.drop_last = drop_last
        self.ahead = 0
        self.count = n // batch_size if drop_last else -(-n // batch_size)
        self.stop = self.count * batch_size if drop_last else n

    def __len__(self) -> int:
        """Return the number of batches per epoch."""
        return self.count

    def _check_start(self, start: int) -> None:
        if not 0 <= start <= self.count:
            raise ValueError(f"start must be 0 to {self.count}, a batch of the epoch; got {start}")

    def _look_ahead(self, prefetch: int, accelerator: bool = False) -> None:
        """Let a thread transform batches, if that is safe and there is a core for it."""
        safe = getattr(self.transform, "own_numbers", False)
        self.ahead = prefetch if safe and spare_core(accelerator) else 0

    def _transformed(
        self, transform: Transform, pairs: Iterator[Batch], epoch: int, start: int,
        begin: Callable[[], object] | None = None,
    ) -> Iterator[Batch]:  # fmt: skip
        made = self._transforming(transform, pairs, epoch, start)
        return ahead(made, self.ahead, begin) if self.ahead else made

    def _transforming(
        self, transform: Transform, pairs: Iterator[Batch], epoch: int, start: int
    ) -> Iterator[Batch]:
        generator: torch.Generator | None = None
        for index, (x, y) in enumerate(pairs, start):
            generator = generator or torch.Generator(x.device)
            generator.manual_seed(mix_seed(self.seed, epoch, index))
            yield transform(x, y, generator)


class TensorBatches(_Plan):
    """Cut tensors in memory into batches, without a DataLoader.

    Small splits are permuted once per epoch and batches are views of that copy; large ones are
    gathered batch by batch. Both give the same batches. Without shuffling, batches are views of
    the split itself: don't write into them.

    Args:
        split: tensors x and y.
        batch_size: samples per batch.
        shuffle: draw a new order in every epoch.
        seed: of the orders and of the transform's generator.
        transform: called as transform(x, y, generator) on each batch; its generator is seeded by
            seed, epoch and batch. For training only, so it needs ``shuffle``.
        drop_last: leave out a last batch that is smaller than the others.
        prefetch: batches that a thread transforms ahead. Only where a core has nothing else to do,
            and for transforms that say, by an attribute ``own_numbers``, that their generator is
            their only source of random numbers.

    Raises:
        DataError: no batch would be left, or a transform without shuffling.

    Example:
        >>> split = Split(torch.arange(10.0)[:, None], torch.arange(10))
        >>> batches = TensorBatches(split, 4, shuffle=True, seed=0)
        >>> all_of_it = [y.tolist() for _, y in batches.epoch(3)]
        >>> [y.tolist() for _, y in batches.epoch(3, start=1)] == all_of_it[1:]
        True
    """

    def __init__(
        self, split: Split, batch_size: int, *, shuffle: bool, seed: int,
        transform: Transform | None = None, drop_last: bool = False, prefetch: int = 2,
    ):  # fmt: skip
        if split.x is None or split.y is None:
            raise DataError("TensorBatches takes a split with tensors; use LoaderBatches")
        super().__init__(
            split, batch_size, shuffle=shuffle, seed=seed, transform=transform,
            drop_last=drop_last,
        )  # fmt: skip
        self._look_ahead(_checked(prefetch))
        self._x, self._y = split.x.detach(), split.y.detach()
        size = sum(t.numel() * t.element_size() for t in (split.x, split.y))
        self._at_once = size <= _PERMUTE_BYTES

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of epoch ``number`` from the batch ``start`` on.

        Args:
            number: the epoch; with the seed it alone fixes the order.
            start: the batch to begin with; earlier ones cost nothing.
        """
        self._check_start(start)
        pairs = self._pairs(number, start) if start < self.count else iter(())
        if self.transform is None:
            return pairs
        return self._transformed(self.transform, pairs, number, start)

    def _pairs(self, number: int, start: int) -> Iterator[Batch]:
        x, y, size = self._x, self._y, self.batch_size
        part = slice(start * size, self.stop)
        if not self.shuffle:
            return zip(x[part].split(size), y[part].split(size), strict=True)
        order = epoch_order(len(x), self.seed, number)[part]
        if self._at_once:
            return zip(_rows(x, order).split(size), _rows(y, order).split(size), strict=True)
        return ((_rows(x, i), _rows(y, i)) for i in order.split(size))


def _rows(tensor: Tensor, index: Tensor) -> Tensor:
    """Return the rows of ``tensor`` at ``index``."""
    if tensor.device.type == "cpu" and tensor.dtype != torch.bfloat16:
        # NumPy gathers in this thread. torch wakes its pool even for a hundred rows, which costs
        # milliseconds when another process has a core.
        return torch.from_numpy(tensor.numpy().take(index.numpy(), 0))
    return tensor.index_select(0, index.to(tensor.device))


class LoaderBatches(_Plan):
    """Read batches of a map-style dataset, in worker processes if asked for.

    Random numbers that the dataset draws (torch, NumPy's global generator, ``random``) are seeded
    by seed, epoch and batch, so batches are the same with any number of workers and after any
    resume; the process's own generators are left as they were. Worker processes stay for the next
    epoch, until :meth:`close`; an epoch that begins while another is under way has its own.

    Args:
        split: a dataset of pairs (x, y).
        batch_size: samples per batch.
        shuffle: draw a new order in every epoch.
        seed: of the orders and of all random numbers.
        transform: called as transform(x, y, generator) on each batch, in this process. For
            training only, so it needs ``shuffle``.
        drop_last: leave out a last batch that is smaller than the others.
        workers: processes that read; 0 reads in this one.
        prefetch: batches that each worker reads ahead, 1 at least; as many are transformed ahead,
            as in :class:`TensorBatches`.
        on_error: ``"stop"``, or ``"skip"`` to leave out samples that cannot be read;
            ``unreadable`` has them.
        pin: put batches into pinned memory, from where they reach an accelerator sooner.

    Raises:
        DataError: no batch would be left, a transform without shuffling, an unknown policy; when
            read: a sample cannot be read, a worker died.
    """

    def __init__(
        self, split: Split, batch_size: int, *, shuffle: bool, seed: int,
        transform: Transform | None = None, drop_last: bool = False, workers: int = 0,
        prefetch: int = 2, on_error: str = "stop", pin: bool = False,
    ):  # fmt: skip
        if split.dataset is None:
            raise DataError("LoaderBatches takes a split with a dataset; use TensorBatches")
        if workers < 0:
            raise DataError(f"workers must be 0 at least; got {workers}")
        if on_error not in POLICIES:
            raise DataError(f"on_error must be one of {', '.join(POLICIES)}; got {on_error!r}")
        super().__init__(
            split, batch_size, shuffle=shuffle, seed=seed, transform=transform,
            drop_last=drop_last,
        )  # fmt: skip
        self.unreadable = Unreadable()
        if workers:  # without them, samples are read here, with the process's own generators
            self._look_ahead(_checked(prefetch), accelerator=pin)
        reader = Reader(split.dataset, seed, on_error)
        self._loader = Loader(reader, workers, _checked(prefetch), pin)

    def epoch(self, number: int, start: int = 0) -> Iterator[Batch]:
        """Return the batches of epoch ``number`` from the batch ``start`` on.

        Args:
            number: the epoch; with the seed it alone fixes the order and all random numbers.
            start: the batch to begin with; earlier ones are not read.
        """
        self._check_start(start)
        n = len(self.split)
        order = epoch_order(n, self.seed, number) if self.shuffle else torch.arange(n)
        cuts = order[: self.stop].split(self.batch_size)
        reading = Reading(
            self._loader,
            [(number, index, cuts[index].tolist()) for index in range(start, self.count)],
        )
        pairs = self._read(reading, number, start)
        if self.transform is None:
            return pairs
        return self._transformed(self.transform, pairs, number, start, reading.begin)

    def _read(self, reading: Reading, epoch: int, start: int) -> Iterator[Batch]:
        index, processes = start, self._loader.processes
        try:
            while True:
                where = f"while batch {index} of epoch {epoch} was awaited"
                with explaining_deaths(where, processes):
                    found = next(reading, None)
                if found is None:
                    return
                if isinstance(found, UserError):
                    raise found
                (x, y), skipped = found
                if skipped:
                    self.unreadable.add("train" if self.shuffle else "val", skipped)
                index += 1
                yield x, y
        finally:
            reading.close()

    def close(self) -> None:
        """End the worker processes; a later epoch starts new ones."""
        self._loader.close()


def _checked(prefetch: int) -> int:
    if prefetch < 0:
        raise DataError(f"prefetch must be 0 at least; got {prefetch}")
    return prefetch


def batches(
    split: Split, batch_size: int, *, shuffle: bool, seed: int,
    transform: Transform | None = None, drop_last: bool = False, workers: int = 0,
    prefetch: int = 2, on_error: str = "stop", pin: bool = False,
) -> TensorBatches | LoaderBatches:  # fmt: skip
    """Return the batches that fit the split: of tensors in memory, or read from a dataset.

    Args:
        split: training or validation split.
        batch_size: samples per batch.
        shuffle: draw a new order in every epoch.
        seed: of the orders and of all random numbers.
        transform: called as transform(x, y, generator) on each training batch.
        drop_last: leave out a last batch that is smaller than the others.
        workers: processes that read a dataset; tensors in memory need none.
        prefetch: batches that are made ahead: by each worker, or by a thread where a transform
            allows it.
        on_error: for a dataset's samples that cannot be read: ``"stop"`` or ``"skip"``.
        pin: put batches of a dataset into pinned memory.

    Raises:
        DataError: no batch would be left, a transform without shuffling, or workers for tensors.

    Example:
        >>> split = Split(torch.zeros(10, 3), torch.zeros(10, dtype=torch.long))
        >>> len(batches(split, 4, shuffle=False, seed=0))
        3
    """
    if split.in_memory:
        if workers:
            raise DataError(
                f"workers={workers} has no effect: the samples are in memory; set it to 0"
            )
        return TensorBatches(
            split, batch_size, shuffle=shuffle, seed=seed, transform=transform,
            drop_last=drop_last, prefetch=prefetch,
        )  # fmt: skip
    return LoaderBatches(
        split, batch_size, shuffle=shuffle, seed=seed, transform=transform,
        drop_last=drop_last, workers=workers, prefetch=prefetch, on_error=on_error, pin=pin,
    )  # fmt: skip
