"""Take a user's map-style datasets: find their labels, check samples, split by index."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from brickyard.errors import DataError
from brickyard.train.data.assemble import describe, rename, scale_target
from brickyard.train.data.base import Data, Split, fingerprint, merge_facts
from brickyard.train.data.reading import Unreadable, short, unreadable
from brickyard.train.data.splitting import Parts, Plan, partition
from brickyard.train.data.target import Target, read_target

#: Up to so many samples are all read at the start, to compare training with validation.
READ_ALL = 2000
#: So many samples of a larger one are read to notice that it changed before a resume.
SAMPLED = 64


class Samples(Dataset[tuple[Tensor, Tensor]]):
    """Give out a dataset's samples with checked shapes and the types that training needs.

    Args:
        dataset: the user's.
        shape: what the first training sample has.
        target: the task, and how many outputs.
        scale: mean and deviation that regression targets are standardised with.
        index: which of the dataset's samples; None for all.
    """

    def __init__(
        self, dataset: Any, shape: tuple[int, ...], target: Target,
        scale: tuple[Any, Any] = (0.0, 1.0), index: np.ndarray | None = None,
    ):  # fmt: skip
        self.dataset = dataset
        self.shape = shape
        self.task = target.task
        self.outputs = target.outputs
        self.scale = scale
        self.index = None if index is None else index.tolist()

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.dataset) if self.index is None else len(self.index)

    def __getitem__(self, place: int) -> tuple[Tensor, Tensor]:
        """Return sample and target, ready for a batch.

        Raises:
            DataError: this sample differs in shape from the first, holds non-finite values, or has
                no valid target.
        """
        number = place if self.index is None else self.index[place]
        x, y = read_pair(self.dataset, number)
        if tuple(x.shape) != self.shape:
            raise DataError(
                f"samples must have one shape; sample {number} has {tuple(x.shape)} and the first "
                f"{self.shape}"
            )
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise DataError(f"sample {number} has non-finite values; correct it or take it out")
        return x, self._target(number, y)

    def _target(self, number: int, y: Any) -> Tensor:
        values = torch.as_tensor(y)
        if self.task == "classification":
            if values.numel() != 1 or not 0 <= int(values) < self.outputs:
                raise DataError(
                    f"labels must be 0 to {self.outputs - 1}; sample {number} has {y!r}"
                )
            return values.reshape(()).long()
        values = values.reshape(-1).to(torch.float32)
        if len(values) != self.outputs or not bool(torch.isfinite(values).all()):
            raise DataError(
                f"targets must be {self.outputs} finite numbers; sample {number} has {y!r}"
            )
        return ((values - self.scale[0]) / self.scale[1]).to(torch.float32)


def from_datasets(
    name: str, datasets: Sequence[Any], plan: Plan, classes: Sequence[str] = (),
    skip: bool = False,
) -> Data:  # fmt: skip
    """Return Data from one dataset, which is split, or from two, for training and validation.

    Labels are taken from a dataset's ``targets`` or ``labels`` where these agree with its samples;
    otherwise every sample is read once. Up to 2,000 samples are always read, to look for overlap.

    Args:
        name: what reports call the data.
        datasets: one, or training and validation.
        plan: how to split one.
        classes: names of the classes by index; the dataset's ``classes`` if not given.
        skip: leave out samples that cannot be read, where all are read beforehand.

    Raises:
        DataError: an empty dataset, samples that are no pairs of numbers, overlapping splits.
    """
    for side, dataset in zip(("training", "validation"), datasets, strict=False):
        if len(dataset) == 0:
            raise DataError(f"the {side} dataset is empty; there must be samples")
    lost: dict[str, Any] = {}
    if skip and _all_are_read(datasets):
        datasets, lost = _readable(datasets)
    if len(datasets) == 2:
        plan = Plan(plan.task, plan.val, plan.seed, plan.duplicates, len(datasets[0]))
        _check_subsets(datasets[0], datasets[1], plan)
    with _own_random_numbers():
        x = _example(datasets[0], skip)
        raw, hashes, how = _survey(datasets)
    target = _class_indices(read_target(raw, plan.task), raw, classes or _class_names(datasets[0]))
    parts = partition(hashes, target, plan)
    _, _, mean, std = scale_target(target, parts)
    shape = tuple(x.shape)
    if plan.given is None:
        made = [Samples(datasets[0], shape, target, (mean, std), i)
                for i in (parts.train, parts.val)]  # fmt: skip
    else:
        made = [Samples(d, shape, target, (mean, std)) for d in datasets]
    facts = {"source": "a dataset of yours", "labels_from": how, "in_memory": False}
    return Data(
        name=name, task=target.task, train=Split(dataset=made[0]), val=Split(dataset=made[1]),
        input_shape=shape, outputs=target.outputs, classes=target.classes,
        target_mean=mean, target_std=std,
        facts=merge_facts(facts, lost, parts.facts, _unchecked(hashes, parts),
                          describe(target, parts, mean, std),
                          {} if hashes is not None else _sampled(datasets, raw, parts)),
    )  # fmt: skip


def _all_are_read(datasets: Sequence[Any]) -> bool:
    """Say whether every sample is read beforehand: there are few, or labels are not known."""
    if sum(map(len, datasets)) <= READ_ALL:
        return True
    with _own_random_numbers():
        return any(_stated_labels(dataset) is None for dataset in datasets)


def _read(dataset: Any, index: int) -> tuple[Tensor, Any]:
    """Return a sample that is read beforehand; one that cannot be read is named."""
    try:
        return read_pair(dataset, index)
    except Exception as error:
        raise unreadable(index, error) from error


def _example(dataset: Any, skip: bool) -> Tensor:
    """Return the first sample, or the first that can be read if others are skipped."""
    for i in range(len(dataset) if skip else 0):
        with suppress(Exception):
            return read_pair(dataset, i)[0]
    return _read(dataset, 0)[0]


def _readable(datasets: Sequence[Any]) -> tuple[list[Any], dict[str, Any]]:
    """Return datasets without the samples that cannot be read, and facts on those."""
    kept, lost = list[Any](), Unreadable()
    with _own_random_numbers():
        for side, dataset in zip(("train", "val"), datasets, strict=False):
            good: list[int] = []
            for i in range(len(dataset)):
                try:
                    dataset[i]
                    good.append(i)
                except Exception as error:  # whatever it is: that is what skipping means
                    lost.add(side, {i: short(error)})
            if not good:
                raise DataError(f"no sample of a dataset can be read; {lost.sentence()}")
            kept.append(dataset if len(good) == len(dataset) else Subset(dataset, good))
    return kept, {"unreadable": lost.found, "warnings": [lost.sentence()]} if len(lost) else {}


def _sampled(datasets: Sequence[Any], raw: np.ndarray, parts: Parts) -> dict[str, Any]:
    """Return a fingerprint of what is too much to be read: labels, sizes, classes, some samples."""
    digest = hashlib.blake2b(np.ascontiguousarray(raw).tobytes(), digest_size=16)
    digest.update(parts.train.tobytes())
    for dataset in datasets:
        sample_into(digest, dataset)
    return {"fingerprint": digest.hexdigest(),
            "fingerprint_of": f"labels and {SAMPLED} samples a dataset"}  # fmt: skip


def sampled(*splits: Split) -> str:
    """Return a fingerprint of splits: of all samples in memory, of some where they are read."""
    digest = hashlib.blake2b(fingerprint(*splits).encode(), digest_size=16)
    for split in splits:
        if split.dataset is not None:
            sample_into(digest, split.dataset)
    return digest.hexdigest()


def sample_into(digest: Any, dataset: Any) -> None:
    """Add a dataset's class, length and samples at fixed places, evenly spread, to a hash.

    Where reading twice gives different samples, as with augmentation from a generator of the
    dataset's own, they say nothing of the data and are left out.
    """
    n = len(dataset)
    digest.update(f"{type(dataset).__qualname__} {n}".encode())
    places = sorted({round(k * (n - 1) / (SAMPLED - 1)) for k in range(SAMPLED)})
    found = [[_bytes(dataset, i) for i in places] for _ in range(2)]
    if found[0] == found[1]:
        for one in found[0]:
            digest.update(one)


def _bytes(dataset: Any, index: int) -> bytes:
    """Return a sample's content, drawn from the same random numbers every time."""
    with _own_random_numbers():
        torch.manual_seed(index)
        np.random.seed(index % 2**32)
        random.seed(index)
        try:
            x, y = read_pair(dataset, index)
        except Exception:  # told when it is trained on, or skipped
            return b"unreadable"
        return x.contiguous().numpy().tobytes() + repr(np.asarray(y).tolist()).encode()


def read_pair(dataset: Any, index: int) -> tuple[Tensor, Any]:
    """Return sample ``index`` as a tensor, and its target as it is.

    Raises:
        DataError: it is no pair of an array and a target.
    """
    item = dataset[index]
    if not isinstance(item, tuple | list) or len(item) != 2:
        what = f"keys {', '.join(map(str, item))}" if isinstance(item, dict) else repr(type(item))
        raise DataError(
            f"a dataset's item must be a pair (x, y); item {index} has {what}. "
            "Wrap the dataset so that it returns such pairs"
        )
    x = item[0]
    if isinstance(x, np.ndarray):
        x = torch.from_numpy(x)
    if not isinstance(x, Tensor):
        raise DataError(
            f"x must be a tensor or array; sample {index} is a {type(x).__name__}. "
            "Convert it in the dataset (a PIL image: divide by 255, channels first)"
        )
    if x.dtype == torch.uint8:
        return x.to(torch.float32) / 255, item[1]
    if x.is_floating_point() or x.dtype == torch.bool:
        return x.to(torch.float32), item[1]
    return x.to(torch.int64), item[1]


@contextmanager
def _own_random_numbers() -> Iterator[None]:
    """Leave the process's random numbers as they were: reading may draw some."""
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()
    try:
        yield
    finally:
        torch.set_rng_state(before[0])
        np.random.set_state(before[1])
        random.setstate(before[2])


def _survey(datasets: Sequence[Any]) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Return all raw labels, hashes of all samples where they were read, and how it was done."""
    stated = [_stated_labels(d) for d in datasets]
    known = [s for s in stated if s is not None]
    total = sum(len(d) for d in datasets)
    if len(known) == len(datasets) and total > READ_ALL:
        return np.concatenate(known), None, "targets"
    labels, hashes = [], []
    for dataset in datasets:
        for i in range(len(dataset)):
            x, y = _read(dataset, i)
            labels.append(_raw_label(i, y))
            plain = (x + 0 if x.is_floating_point() else x).contiguous().numpy()
            hashes.append(hashlib.blake2b(plain.tobytes(), digest_size=16).digest())
    try:
        raw = np.array(labels)
    except ValueError as error:
        raise DataError(f"targets must have one shape; {error}") from error
    return raw, np.frombuffer(b"".join(hashes), np.uint64).reshape(-1, 2), "every sample"


def _raw_label(index: int, y: Any) -> Any:
    values = np.asarray(y)
    if values.dtype.kind not in "biufUS":
        raise DataError(f"y must be a number or a label; sample {index} has {type(y).__name__}")
    return values.reshape(-1) if values.size > 1 else values.reshape(-1)[0]


def _stated_labels(dataset: Any) -> np.ndarray | None:
    """Return the labels that a dataset states, if they agree with its samples."""
    if isinstance(dataset, Subset):
        inner = _stated_labels(dataset.dataset)
        return None if inner is None else inner[np.asarray(dataset.indices)]
    for name in ("targets", "labels"):
        stated = getattr(dataset, name, None)
        if stated is None or not hasattr(stated, "__len__") or len(stated) != len(dataset):
            continue
        values = np.asarray(stated)
        if values.dtype.kind in "biuf" and _agrees(dataset, values):
            return values
    return None


def _agrees(dataset: Any, labels: np.ndarray) -> bool:
    """Say whether stated labels are those of some samples."""
    found = []
    for i in {0, len(labels) // 2, len(labels) - 1}:
        with suppress(Exception):  # one that cannot be read is told later, or skipped
            y = np.asarray(read_pair(dataset, i)[1])
            found.append(np.array_equal(y.reshape(-1), labels[i].reshape(-1)))
    return bool(found) and all(found)


def _class_names(dataset: Any) -> tuple[str, ...]:
    while isinstance(dataset, Subset):
        dataset = dataset.dataset
    names = getattr(dataset, "classes", ())
    return tuple(str(n) for n in names) if isinstance(names, list | tuple) else ()


def _class_indices(target: Target, raw: np.ndarray, classes: Sequence[str]) -> Target:
    """Keep a dataset's labels as they are: they must be class indices already."""
    if target.task == "regression":
        return rename(target, ())
    labels = raw.reshape(-1)
    if labels.dtype.kind not in "biu" or labels.min() < 0:
        raise DataError(
            f"labels of a dataset must be class indices 0, 1, ...; the smallest is "
            f"{np.unique(labels)[0].item()!r}. Map them in the dataset"
        )
    count = int(labels.max()) + 1
    names = tuple(classes) or tuple(str(i) for i in range(count))
    if count > len(names):
        raise DataError(
            f"labels run to {count - 1}, but there are {len(names)} class names; name every class"
        )
    return Target("classification", labels.astype(np.int64), names, target.reason)


def _check_subsets(train: Any, val: Any, plan: Plan) -> None:
    """Compare indices where both splits come from one dataset: exact, and nothing is read."""
    if not (isinstance(train, Subset) and isinstance(val, Subset)):
        return
    if train.dataset is not val.dataset or plan.duplicates == "allow":
        return
    shared = sorted(set(train.indices) & set(val.indices))
    if shared:
        raise DataError(
            f"{len(shared)} of {len(val)} validation samples are training samples too: index "
            f"{', '.join(map(str, shared[:5]))} of the dataset; take them out, or set duplicates "
            "to 'allow'"
        )


def _unchecked(hashes: np.ndarray | None, parts: Parts) -> dict[str, Any]:
    if hashes is not None:
        digest = hashlib.blake2b(hashes.tobytes(), digest_size=16)
        digest.update(parts.train.tobytes())
        return {"fingerprint": digest.hexdigest()}
    return {"overlap_unchecked": f"only up to {READ_ALL} samples are read to look for overlap"}
