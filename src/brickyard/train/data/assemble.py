"""Make Data out of arrays: convert, check, split, fit preprocessing on the training part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from brickyard.errors import DataError
from brickyard.train.data.base import Data, Split, class_counts, fingerprint, merge_facts
from brickyard.train.data.splitting import Parts, Plan, partition
from brickyard.train.data.target import Target, read_target


def assemble(
    name: str, x: Any, y: Any, plan: Plan, *, standardize: bool = False,
    classes: Sequence[str] = (), facts: Mapping[str, Any] | None = None,
) -> Data:  # fmt: skip
    """Split arrays and return them as Data.

    Args:
        name: what reports call the data.
        x: samples, shape (n, ...).
        y: targets, shape (n,) or (n, outputs).
        plan: how to split.
        standardize: take the training split's mean off and divide by its standard deviation: per
            column where samples are vectors, one figure for all entries otherwise.
        classes: names of the classes, if better than the labels themselves.
        facts: what the reader knows: source, features ...

    Raises:
        DataError: the arrays do not fit together, hold what cannot be trained on, or cannot be
            split as planned.
    """
    samples, how = as_samples(x)
    target = read_target(y, plan.task)
    if len(samples) != len(target.values):
        raise DataError(
            f"x and y must have one entry per sample; x has shape {samples.shape}, "
            f"y has {len(target.values)} entries"
        )
    if classes:
        target = rename(target, classes)
    features = tuple((facts or {}).get("features", ()))
    check_finite(samples, features)
    parts = partition(samples, target, plan)
    train, val = take(samples, parts.train), take(samples, parts.val)
    steps = {"x": how} if how else {}
    if standardize:
        train, val, fitted = standardized(train, val)
        steps |= fitted
    return finish(name, (train, val), target, parts, {**(facts or {}), "preprocessing": steps})


def as_samples(x: Any) -> tuple[np.ndarray, str]:
    """Return samples as float32, or as int64 where they are indices, and what was done.

    Booleans become 0 and 1. Bytes (uint8) are pixels and become [0, 1]. Other whole numbers stay
    whole: they are token or category indices.

    Raises:
        DataError: no array of numbers, or no dimension besides the samples'.
    """
    values = as_array(x, "x")
    if values.dtype.kind not in "biuf":
        raise DataError(
            f"x must hold numbers; got dtype {values.dtype}. "
            "For tables with text use the csv or parquet reader"
        )
    if values.ndim < 2 or 0 in values.shape[1:]:
        raise DataError(f"x must have shape (n, features) or (n, ...); got {values.shape}")
    if values.dtype == np.uint8:
        return values.astype(np.float32) / np.float32(255), "bytes / 255"
    if values.dtype.kind in "iu":
        return values.astype(np.int64), "whole numbers kept as indices"
    return np.ascontiguousarray(values, np.float32), ""


def as_array(value: Any, name: str) -> np.ndarray:
    """Return tensors, arrays, data frames and nested lists as one NumPy array.

    Raises:
        DataError: entries of different shapes.
    """
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        return (value.float() if value.dtype == torch.bfloat16 else value).numpy()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} must be one array, entries of one shape; {error}") from error


def join(first: Any, second: Any, name: str, other: str) -> np.ndarray:
    """Return a user's own training and validation arrays as one array.

    Raises:
        DataError: they differ in the shape of a sample, or in kind, so that the same number would
            mean different things.
    """
    a, b = as_array(first, name), as_array(second, other)
    if a.shape[1:] != b.shape[1:] or a.ndim == 0:
        raise DataError(
            f"training and validation samples must have one shape; {name!r} has shape {a.shape} "
            f"and {other!r} {b.shape}"
        )
    kinds = [("u1" if v.dtype == np.uint8 else v.dtype.kind.replace("u", "i")) for v in (a, b)]
    if kinds[0] != kinds[1]:
        raise DataError(
            f"{name!r} is {a.dtype} and {other!r} {b.dtype}, which are read differently; "
            "give both the same dtype"
        )
    return np.concatenate([a, b])


def check_finite(x: np.ndarray, features: Sequence[str] = (), row_base: int = 0) -> None:
    """Raise where samples hold NaN or infinity.

    Raises:
        DataError: naming the number of such entries, the first row and its column.
    """
    if x.dtype.kind != "f" or np.isfinite(x).all():
        return
    places = np.argwhere(~np.isfinite(x))
    row, *rest = (int(i) for i in places[0])
    where = f"column {features[rest[0]]!r}" if len(rest) == 1 and features else f"entry {rest}"
    raise DataError(
        f"x has {len(places)} non-finite values; the first is {x[tuple(places[0])]} in row "
        f"{row + row_base}, {where}. Fill them in or take these rows out"
    )


def take(x: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return rows of ``x``; a view where they stand together."""
    first, last = int(index[0]), int(index[-1])
    return x[first : last + 1] if last - first + 1 == len(index) else x[index]


def standardized(train: np.ndarray, val: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict]:
    """Return both splits with the training split's mean 0 and deviation 1, and the figures."""
    axis = 0 if train.ndim == 2 else None
    mean = train.mean(axis, dtype=np.float64)
    std = train.std(axis, dtype=np.float64)
    scale = np.where(std > 1e-12 * np.maximum(1, np.abs(mean)), std, 1.0)
    pair = [((part - mean) / scale).astype(np.float32) for part in (train, val)]
    figures = {"mean": np.asarray(mean).tolist(), "std": scale.tolist()}
    return pair[0], pair[1], {"standardized": {"fitted_on": "training split", **figures}}


def rename(target: Target, classes: Sequence[str]) -> Target:
    """Return a target whose classes carry the given names, in the order of the labels."""
    if target.task == "classification" and len(classes) != len(target.classes):
        raise DataError(
            f"there are {len(classes)} class names for {len(target.classes)} different labels "
            f"({', '.join(target.classes[:5])} ...); give one name per label"
        )
    if target.task == "multi_label" and len(classes) != target.outputs:
        raise DataError(
            f"there are {len(classes)} names for {target.outputs} labels; give one name per label"
        )
    names = tuple(str(c) for c in classes) if target.task != "regression" else ()
    return Target(target.task, target.values, names, target.reason)


def finish(
    name: str, x: tuple[np.ndarray, np.ndarray], target: Target, parts: Parts,
    facts: Mapping[str, Any],
) -> Data:  # fmt: skip
    """Return Data from finished samples: standardise regression targets, gather the facts.

    Args:
        name: what reports call the data.
        x: training and validation samples.
        target: targets of all samples.
        parts: which samples are where.
        facts: what the reader knows.

    Raises:
        DataError: a regression target is the same for all training samples.
    """
    y_train, y_val, mean, std = scale_target(target, parts)
    train = Split(torch.from_numpy(x[0]), torch.from_numpy(y_train))
    val = Split(torch.from_numpy(x[1]), torch.from_numpy(y_val))
    return Data(
        name=name,
        task=target.task,
        train=train,
        val=val,
        input_shape=tuple(x[0].shape[1:]),
        outputs=target.outputs,
        classes=target.classes,
        target_mean=mean,
        target_std=std,
        facts=merge_facts(
            facts,
            parts.facts,
            describe(target, parts, mean, std),
            {"fingerprint": fingerprint(train, val)},
        ),
    )


def scale_target(
    target: Target, parts: Parts
) -> tuple[np.ndarray, np.ndarray, float | torch.Tensor, float | torch.Tensor]:
    """Return both splits' targets and the figures that regression targets were scaled with.

    Raises:
        DataError: a regression target is the same for all training samples.
    """
    y_train, y_val = take(target.values, parts.train), take(target.values, parts.val)
    if target.task == "classification":
        return np.array(y_train), np.array(y_val), 0.0, 1.0
    if target.task == "multi_label":
        return y_train.astype(np.float32), y_val.astype(np.float32), 0.0, 1.0
    mean, std = y_train.mean(0), y_train.std(0)
    flat = std <= 1e-12 * np.maximum(1, np.abs(mean))
    if flat.any():
        raise DataError(
            f"the target is {mean[flat][0]:g} for all {len(y_train)} training samples; "
            "there is nothing to learn"
        )
    pair = [((part - mean) / std).astype(np.float32) for part in (y_train, y_val)]
    if len(mean) == 1:
        return pair[0], pair[1], float(mean[0]), float(std[0])
    figures = (torch.tensor(mean, dtype=torch.float32), torch.tensor(std, dtype=torch.float32))
    return pair[0], pair[1], *figures


def describe(target: Target, parts: Parts, mean: Any, std: Any) -> dict[str, Any]:
    """Return facts on the samples and targets of both splits."""
    facts: dict[str, Any] = {
        "task_reason": target.reason,
        "samples": {"train": len(parts.train), "val": len(parts.val)},
    }
    if target.task == "classification":
        facts["class_counts"] = {
            side: class_counts(torch.from_numpy(target.values[index]), target.classes)
            for side, index in (("train", parts.train), ("val", parts.val))
        }
    elif target.task == "multi_label":
        names = target.classes or tuple(map(str, range(target.outputs)))
        facts["label_shares"] = {
            side: dict(zip(names, target.values[index].mean(0).round(4).tolist(), strict=True))
            for side, index in (("train", parts.train), ("val", parts.val))
        }
    else:
        figures = {"mean": mean, "std": std}
        facts["target"] = {
            "standardized_with": "training split",
            **{k: v.tolist() if isinstance(v, torch.Tensor) else v for k, v in figures.items()},
        }
    return facts
