"""Turn what a user's own function returned into Data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from brickyard.errors import DataError, near
from brickyard.train.data.assemble import as_array, assemble, check_finite, join
from brickyard.train.data.base import Data, Split
from brickyard.train.data.datasets import from_datasets, sampled
from brickyard.train.data.splitting import Plan, first_equal

FORMS = (
    "Data; (train, val) datasets; (x_train, y_train, x_val, y_val); one dataset or (x, y) to be "
    "split; or a dict with such names"
)
#: Besides samples, a dict may say these.
SETTINGS = (
    "task",
    "val_share",
    "duplicates",
    "standardize",
    "classes",
    "features",
    "image",
    "name",
)
_ARRAYS = (("x", "y"), ("x_train", "y_train", "x_val", "y_val"))
_DATASETS = (("dataset",), ("train", "val"))


@dataclass(frozen=True)
class _Found:
    """Hold what a value holds: arrays (two or four), or datasets (one or two)."""

    arrays: tuple[Any, ...] = ()
    datasets: tuple[Any, ...] = ()
    settings: dict[str, Any] = field(default_factory=dict)


def from_user(
    value: Any, *, name: str = "data", seed: int = 0, val: float = 0.2,
    task: str | None = None, duplicates: str = "together", skip: bool = False,
) -> Data:  # fmt: skip
    """Turn what a user's function returned into Data.

    Accepted: :class:`Data`; a pair of datasets (train, val); the tuple (x_train, y_train, x_val,
    y_val); one dataset or the pair (x, y), which is split; or a dict with the keys ``train`` and
    ``val``, ``dataset``, ``x`` and ``y``, or the four names above. A dict may also hold ``task``,
    ``val_share``, ``duplicates``, ``standardize``, ``classes``, ``features``, ``name``, and
    ``image``: the shape (H, W) or (C, H, W) of the pictures that flat samples hold.
    Arrays may be of NumPy, torch or pandas. Datasets are map-style: ``len`` and pairs (x, y).

    Args:
        value: what the function returned.
        name: what reports call the data.
        seed: of the split, where there is one to make.
        val: fraction of the samples for validation, or their number from 1 up.
        task: ``"classification"`` or ``"regression"``; None to infer it from the targets.
        duplicates: ``"together"`` keeps identical samples on one side, and makes an overlap of
            given splits an error; ``"allow"`` does neither.
        skip: leave out samples of datasets that cannot be read, where all are read beforehand.

    Raises:
        DataError: another form, or content that cannot be trained on.

    Example:
        >>> x = np.random.rand(100, 4)
        >>> data = from_user((x, x.sum(1)))
        >>> data.task, data.input_shape, len(data.train)
        ('regression', (4,), 80)
    """
    if isinstance(value, Data):
        return _checked(value)
    found = _recognise(value)
    settings = found.settings
    name = str(settings.get("name", name))
    plan = Plan(
        task=settings.get("task", task),
        val=settings.get("val_share", val),
        seed=seed,
        duplicates=settings.get("duplicates", duplicates),
        given=len(found.arrays[0]) if len(found.arrays) == 4 else None,
    )
    classes = tuple(settings.get("classes", ()))
    if found.datasets:
        useless = [k for k in ("standardize", "features", "image") if k in settings]
        if useless:
            raise DataError(f"{useless[0]} has no effect on datasets; do it in the dataset")
        return from_datasets(name, found.datasets, plan, classes, skip)
    if len(found.arrays) == 4:
        _check_pairs(found.arrays)
        x = join(found.arrays[0], found.arrays[2], "x_train", "x_val")
        y = join(found.arrays[1], found.arrays[3], "y_train", "y_val")
    else:
        x, y = as_array(found.arrays[0], "x"), as_array(found.arrays[1], "y")
    features = settings.get("features") or _headings(found.arrays[0])
    facts = {"source": "a function of yours", "features": list(features)}
    if "image" in settings:
        facts["image"] = list(settings["image"])
    return assemble(
        name, x, y, plan, standardize=bool(settings.get("standardize", False)),
        classes=classes, facts=facts,
    )  # fmt: skip


def _recognise(value: Any) -> _Found:
    if value is None:
        raise DataError(f"the data function returned None; is a return missing? Return {FORMS}")
    if isinstance(value, Mapping):
        return _from_mapping(value)
    if is_dataset(value):
        return _from_dataset(value)
    if isinstance(value, tuple | list) and len(value) == 2:
        first, second = value
        if is_dataset(first) and is_dataset(second):
            return _from_two(first, second)
        if _is_pair(first) and _is_pair(second):
            return _Found(arrays=(*first, *second))
        if not (is_dataset(first) or is_dataset(second)):
            return _Found(arrays=(first, second))
    if isinstance(value, tuple | list) and len(value) == 4:
        return _Found(arrays=_four(tuple(value)))
    what = type(value).__name__
    if isinstance(value, tuple | list):
        what = f"{what} of {len(value)}: {', '.join(type(v).__name__ for v in value[:6])}"
    raise DataError(f"the data function returned {what}; return {FORMS}")


def _from_mapping(value: Mapping[str, Any]) -> _Found:
    keys = {str(k) for k in value}
    settings = {k: value[k] for k in SETTINGS if k in keys}
    rest = keys - set(settings)
    for names in _ARRAYS:
        if rest == set(names):
            return _Found(arrays=tuple(value[k] for k in names), settings=settings)
    for names in _DATASETS:
        if rest == set(names):
            inner = _recognise(
                tuple(value[k] for k in names) if len(names) > 1 else value[names[0]]
            )
            return _Found(inner.arrays, inner.datasets, settings)
    allowed = {k for names in (*_ARRAYS, *_DATASETS) for k in names} | set(SETTINGS)
    unknown = sorted(rest - allowed)
    if unknown:
        raise DataError(f"the dict has the unknown key {unknown[0]!r}{near(unknown[0], allowed)}")
    raise DataError(
        f"the dict has {', '.join(sorted(rest)) or 'no samples'}; it needs x and y, or x_train, "
        "y_train, x_val and y_val, or train and val, or dataset"
    )


def is_dataset(value: Any) -> bool:
    """Say whether a value is a map-style dataset.

    Raises:
        DataError: it is a DataLoader or streams samples.
    """
    if isinstance(value, DataLoader):
        raise DataError("return the dataset itself, not a DataLoader: the trainer makes batches")
    if isinstance(value, IterableDataset):
        raise DataError(
            "datasets must be map-style (len and [index]), so that every sample has a place to "
            "resume at; got an IterableDataset"
        )
    if isinstance(value, Dataset):
        return True
    plain = isinstance(value, torch.Tensor | np.ndarray | tuple | list | str | bytes | Mapping)
    return (
        not plain
        and hasattr(value, "__getitem__")
        and hasattr(value, "__len__")
        and not hasattr(value, "__array__")
    )


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, tuple | list)
        and len(value) == 2
        and all(hasattr(v, "shape") and hasattr(v, "__len__") for v in value)
    )


def _from_dataset(value: Any) -> _Found:
    if isinstance(value, TensorDataset):
        return _Found(arrays=_tensors(value))
    return _Found(datasets=(value,))


def _from_two(train: Any, val: Any) -> _Found:
    if isinstance(train, TensorDataset) and isinstance(val, TensorDataset):
        return _Found(arrays=(*_tensors(train), *_tensors(val)))
    return _Found(datasets=(train, val))


def _tensors(dataset: TensorDataset) -> tuple[Any, Any]:
    if len(dataset.tensors) != 2:
        raise DataError(
            f"a TensorDataset must hold two tensors, x and y; got {len(dataset.tensors)}"
        )
    return dataset.tensors[0], dataset.tensors[1]


def _four(value: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return four arrays; catch the order of scikit-learn's train_test_split."""
    if not all(hasattr(v, "__len__") for v in value):
        raise DataError(f"four values must be arrays; return {FORMS}")
    a, b, c, d = (len(v) for v in value)
    if a != b and a == c and b == d:
        raise DataError(
            f"the four arrays have {a}, {b}, {c} and {d} entries, the order of train_test_split; "
            "return (x_train, y_train, x_val, y_val), or a dict with these names"
        )
    return value


def _check_pairs(arrays: tuple[Any, ...]) -> None:
    for side, x, y in (("train", *arrays[:2]), ("val", *arrays[2:])):
        if len(x) != len(y):
            raise DataError(
                f"x and y must have one entry per sample; x_{side} has {len(x)}, y_{side} {len(y)}"
            )
        if len(x) == 0:
            raise DataError(f"x_{side} is empty; there must be samples to train and to validate on")


def _headings(x: Any) -> list[str]:
    columns = getattr(x, "columns", None)
    return [] if columns is None else [str(c) for c in columns]


def _checked(data: Data) -> Data:
    """Check Data that a user made by hand."""
    if not data.facts.get("fingerprint"):
        found = sampled(data.train, data.val)
        data = replace(data, facts={**data.facts, "fingerprint": found})
    splits = (("training", data.train), ("validation", data.val))
    for what, split in splits:
        if split.x is not None and split.y is not None:
            _check_split(data, what, split)
    if data.train.x is None or data.val.x is None or data.facts.get("duplicates") == "allow":
        return data
    train, val = data.train.x.detach().cpu().numpy(), data.val.x.detach().cpu().numpy()
    same = first_equal(np.concatenate([train, val]))
    hits = np.flatnonzero(same[len(train) :] < len(train))
    if len(hits):
        first = ", ".join(
            f"{i} (training sample {same[len(train) + i]})" for i in hits[:3].tolist()
        )
        raise DataError(
            f"{len(hits)} of {len(val)} validation samples are training samples too, so validation "
            f"would measure memory: validation sample {first}; take them out, or set "
            "facts={'duplicates': 'allow'}"
        )
    return data


#: What targets that are indices look like: in words, their axes, and the value for none.
_INDICES: dict[str, tuple[str, int, int | None]] = {
    "classification": ("int64 class indices of shape (n,)", 1, None),
    "segmentation": ("int64 class indices of shape (n, H, W), -100 for none", 3, -100),
    "language_model": ("int64 next tokens of shape (n, T), -100 for none", 2, -100),
    "transcription": ("int64 symbols of shape (n, most), -1 after the last", 2, -1),
}


def _check_split(data: Data, what: str, split: Split) -> None:
    x, y = split.x, split.y
    if x is None or y is None or data.task == "environment":
        return
    if tuple(x.shape[1:]) != tuple(data.input_shape):
        raise DataError(
            f"the {what} samples have shape {tuple(x.shape[1:])}; "
            f"Data says input_shape={tuple(data.input_shape)}"
        )
    check_finite(x.detach().cpu().numpy())
    if data.task == "regression":
        if not y.is_floating_point() or y.shape != (len(x), data.outputs):
            raise DataError(
                f"regression takes float targets of shape (n, outputs), here "
                f"({len(x)}, {data.outputs}); the {what} y is {y.dtype} {tuple(y.shape)}"
            )
        if not bool(torch.isfinite(y).all()):
            raise DataError(f"the {what} y has non-finite values; take these samples out")
        return
    if data.task == "multi_label":
        if y.shape != (len(x), data.outputs) or not bool(((y == 0) | (y == 1)).all()):
            raise DataError(
                f"multi_label takes 0 or 1 for every label, shape (n, {data.outputs}); the {what} "
                f"y is {y.dtype} {tuple(y.shape)} with values {float(y.min()):g} to "
                f"{float(y.max()):g}"
            )
        return
    rule, axes, none = _INDICES[data.task]
    if y.dtype != torch.int64 or y.ndim != axes:
        raise DataError(f"{data.task} takes {rule}; the {what} y is {y.dtype} {tuple(y.shape)}")
    known = y if none is None else y[y != none]
    low, high = (int(known.min()), int(known.max())) if known.numel() else (0, 0)
    if low < 0 or high >= data.outputs:
        also = "" if none is None else f" or {none}"
        raise DataError(
            f"class indices must be 0 to {data.outputs - 1}{also}; the {what} y has {low} to {high}"
        )
