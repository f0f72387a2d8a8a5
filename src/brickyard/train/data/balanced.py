"""Batches that hold several samples of each of their classes, for losses that compare samples."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from brickyard.errors import DataError
from brickyard.train.data.base import Split
from brickyard.train.data.batching import Batch, TensorBatches, Transform, mix_seed

__all__ = ["ClassBatches", "class_order"]


def class_order(labels: Tensor, per_class: int, seed: int, epoch: int) -> Tensor:
    """Return an order in which ``per_class`` samples of a class stand together.

    A pure function of its arguments, so that any batch of any epoch can be had again. Groups of a
    class are spread evenly over the epoch. What does not fill a group waits for another epoch; a
    class with fewer samples than a group has repeats them.

    Args:
        labels: class indices, shape (n,).
        per_class: samples a group.
        seed: of the run.
        epoch: number of the epoch.

    Example:
        >>> labels = torch.tensor([0, 1, 0, 1, 0, 1, 1])
        >>> order = class_order(labels, 2, seed=0, epoch=0)
        >>> labels[order].view(-1, 2).T.diff(dim=0).abs().sum().item(), len(order)
        (0, 6)
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, epoch))
    groups, times = list[Tensor](), list[Tensor]()
    for label in labels.unique().tolist():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        if len(members) < per_class:
            members = members.repeat(-(-per_class // len(members)))[:per_class]
        count = len(members) // per_class
        groups.append(members[: count * per_class].view(count, per_class))
        times.append((torch.arange(count) + torch.rand(count, generator=generator)) / count)
    return torch.cat(groups)[torch.cat(times).argsort()].flatten()


class ClassBatches(TensorBatches):
    """Cut tensors into shuffled batches with ``per_class`` samples of each of their classes.

    Args:
        split: tensors x and class indices y.
        batch_size: samples per batch, a multiple of ``per_class``.
        per_class: samples of a class that stand together, 2 at least.
        seed: of the orders and of the transform's generator.
        transform: called as transform(x, y, generator) on each batch.

    Raises:
        DataError: a size that does not fit, or samples that are not in memory.

    Example:
        >>> split = Split(torch.zeros(20, 3), torch.arange(20) % 4)
        >>> x, y = next(ClassBatches(split, 6, 3, seed=0).epoch(0))
        >>> y.view(2, 3).unique(dim=1).shape
        torch.Size([2, 1])
    """

    def __init__(
        self, split: Split, batch_size: int, per_class: int, *, seed: int,
        transform: Transform | None = None, prefetch: int = 2,
    ):  # fmt: skip
        if not split.in_memory or split.y is None or split.y.ndim != 1:
            raise DataError(
                "batches by class need samples in memory with one label each; leave per_class out"
            )
        if per_class < 2 or batch_size % per_class or batch_size < 2 * per_class:
            raise DataError(
                "a batch must hold two classes or more with per_class samples each, at least 2: "
                f"batch_size is {batch_size} and per_class {per_class}"
            )
        super().__init__(
            split, batch_size, shuffle=True, seed=seed, transform=transform, prefetch=prefetch
        )
        self.per_class = per_class
        total = len(class_order(split.y, per_class, seed, 0))
        if total < batch_size:
            raise DataError(f"there are samples for {total} of a batch of {batch_size}; lower it")
        self.count = total // batch_size  # a last small batch might have nothing to compare
        self.stop = self.count * batch_size

    def _pairs(self, number: int, start: int) -> Iterator[Batch]:
        order = class_order(self._y, self.per_class, self.seed, number)
        cuts = order[start * self.batch_size : self.stop].split(self.batch_size)
        return ((self._x[i], self._y[i]) for i in cuts)
