"""Split samples into training and validation: seeded, stratified, identical ones on one side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from brickyard.errors import DataError
from brickyard.train.data.target import Target

#: Rows hashed at a time, in bytes; bounds the memory that hashing needs.
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Plan:
    """Hold how a reader was asked to split.

    Args:
        task: ``"classification"``, ``"regression"``, or None to infer it from the target.
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the random choice.
        duplicates: ``"together"`` keeps identical samples on one side, and makes an overlap of
            given splits an error; ``"allow"`` does neither.
        given: where a user's own split is kept: how many of the samples, from the first on, are
            training samples. The others are validation samples.
    """

    task: str | None = None
    val: float = 0.2
    seed: int = 0
    duplicates: str = "together"
    given: int | None = None

    def __post_init__(self) -> None:
        """Check the words."""
        if self.duplicates not in ("together", "allow"):
            raise DataError(f"duplicates must be 'together' or 'allow'; got {self.duplicates!r}")


@dataclass(frozen=True)
class Parts:
    """Hold indices of the training and validation samples, and facts about the split."""

    train: np.ndarray
    val: np.ndarray
    facts: dict[str, Any] = field(default_factory=dict)


def partition(rows: np.ndarray | None, target: Target, plan: Plan, row_base: int = 0) -> Parts:
    """Split samples as planned and see to it that no sample stands on both sides.

    Args:
        rows: what identical samples have in common, shape (n, ...); None where it is unknown.
        target: their targets.
        plan: how to split.
        row_base: the number of the first row in messages.

    Raises:
        DataError: a split would be empty, a class would miss on one side, or given splits overlap.
    """
    n = len(target.values)
    same = None if rows is None else first_equal(rows)
    warnings = _contradictions(same, target)
    copies = 0 if same is None else int((same != np.arange(n)).sum())
    labels = target.values if target.task == "classification" else None
    if plan.given is None:
        groups = same if plan.duplicates == "together" else None
        train, val = split(
            n, labels, plan.val, plan.seed, labels is not None, groups, target.classes
        )
        how = {"given": False, "seed": plan.seed, "stratified": labels is not None}
    else:
        train, val = np.arange(plan.given), np.arange(plan.given, n)
        how = {"given": True}
        if labels is not None:
            warnings += _one_sided(labels[train], labels[val], target.classes)
    shared = 0
    if same is not None:
        hits = np.flatnonzero(np.isin(same[val], same[train]))
        shared = len(hits)
        if shared:
            warnings.append(_overlap(same, train, val, hits, plan, row_base))
    facts = {
        "split": {**how, "identical": copies, "overlap": shared if rows is not None else None},
        "warnings": warnings,
    }
    return Parts(train, val, facts)


def split(
    n: int, y: np.ndarray | None, val: float, seed: int, stratify: bool,
    groups: np.ndarray | None = None, names: Sequence[str] = (),
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Return the indices of a training and a validation split, both ascending.

    With ``stratify`` every class gets its exact share of the validation samples, rounded by
    largest remainder, and one sample at least on either side. Groups are never torn; where they
    are large, the shares come as near as whole groups allow.

    Args:
        n: number of samples.
        y: labels, shape (n,); needed to stratify.
        val: fraction of the samples for validation, or their number from 1 up.
        seed: of the random choice; the same seed gives the same split on every NumPy version.
        stratify: keep the proportions of the labels on both sides.
        groups: samples of equal number stay together, shape (n,).
        names: names of the labels 0, 1, ... for messages.

    Raises:
        DataError: a side would be empty, or a class cannot be on both sides.

    Example:
        >>> train, val = split(10, np.array([0] * 8 + [1] * 2), 0.5, seed=0, stratify=True)
        >>> len(val), int((val >= 8).sum())
        (5, 1)
    """
    total = validation_size(n, val)
    strata = np.zeros(n, np.int64)
    if stratify:
        if y is None:
            raise ValueError("split: stratify needs the labels y; got None")
        strata = np.unique(y, return_inverse=True)[1]
    _, first, group = np.unique(
        np.arange(n) if groups is None else groups, return_index=True, return_inverse=True
    )
    sizes = np.bincount(group)
    stratum = strata[first]  # a group belongs to the class of its first member
    if stratify:
        _check_classes(np.asarray(y), strata, stratum, names, total)
    elif len(sizes) < 2:
        raise DataError(f"all {n} samples are identical: nothing is left to validate on")
    # RandomState's stream is frozen for ever; Generator's may change between NumPy versions.
    random = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF])
    chosen = np.zeros(len(sizes), bool)
    per_stratum = np.bincount(stratum, weights=sizes, minlength=strata.max() + 1).astype(np.int64)
    for code, quota in enumerate(_quotas(per_stratum, total)):
        members = random.permutation(np.flatnonzero(stratum == code))
        chosen[_fill(members, sizes[members], quota)] = True
    in_val = chosen[group]
    return np.flatnonzero(~in_val), np.flatnonzero(in_val)


def validation_size(n: int, val: float) -> int:
    """Return how many of ``n`` samples are for validation.

    Raises:
        DataError: none would be, or all.
    """
    whole = val >= 1 and float(val).is_integer()
    if isinstance(val, bool) or not (0 < val < 1 or whole):
        raise DataError(
            f"val must be a fraction between 0 and 1, or a whole number of samples; got {val!r}"
        )
    size = int(val) if whole else round(val * n)
    if not 0 < size < n:
        side = "validation" if size == 0 else "training"
        raise DataError(
            f"val={val!r} of {n} samples leaves the {side} split empty; "
            f"give {'a larger val, or more data' if size == 0 else 'a smaller val'}"
        )
    return size


def first_equal(rows: np.ndarray) -> np.ndarray:
    """Return, for every row, the index of the first row that is equal to it.

    Exact: a vectorised 64-bit hash finds candidates, and their bytes decide. NaN equals NaN, and
    -0.0 equals 0.0.

    Args:
        rows: shape (n, ...), of numbers.
    """
    n = len(rows)
    flat = np.ascontiguousarray(rows).reshape(n, -1)
    _, first, inverse = np.unique(_hash_rows(flat), return_index=True, return_inverse=True)
    result = first[inverse]
    suspects = np.flatnonzero(result != np.arange(n))
    step = max(1, _CHUNK // max(1, flat[:1].nbytes))
    collided: list[int] = []
    for i in range(0, len(suspects), step):
        part = suspects[i : i + step]
        differ = (_lanes(flat[part]) != _lanes(flat[result[part]])).any(1)
        collided += part[differ].tolist()
    seen: dict[bytes, int] = {}
    for i in collided:  # equal hashes of different rows: practically never
        result[i] = seen.setdefault(_lanes(flat[i : i + 1]).tobytes(), i)
    return result


def _lanes(flat: np.ndarray) -> np.ndarray:
    """Return the bytes of rows as unsigned integers of the largest width that fits."""
    width = flat.shape[1] * flat.itemsize
    lane = next(t for t in (np.uint64, np.uint32, np.uint8) if width % np.dtype(t).itemsize == 0)
    canonical = flat + 0 if flat.dtype.kind == "f" else flat  # -0.0 becomes 0.0
    return canonical.view(lane)


def _hash_rows(flat: np.ndarray) -> np.ndarray:
    n, width = len(flat), flat.shape[1] * flat.itemsize
    hashes = np.zeros(n, np.uint64)
    factors = np.random.RandomState(0).randint(0, 2**63, _lanes(flat[:1]).shape[1], np.uint64)
    factors |= np.uint64(1)
    step = max(1, _CHUNK // max(1, width))
    for i in range(0, n, step):
        lanes = _lanes(flat[i : i + step]).astype(np.uint64)
        # Round floats have zeros in their low bits, which no multiplication alone would fill.
        lanes ^= lanes >> np.uint64(32)
        lanes *= factors
        lanes ^= lanes >> np.uint64(29)
        hashes[i : i + step] = lanes.sum(1, dtype=np.uint64)
    return hashes


def _check_classes(
    y: np.ndarray, strata: np.ndarray, stratum: np.ndarray, names: Sequence[str], total: int
) -> None:
    """Raise where a class cannot stand on both sides."""
    values, members = np.unique(y), np.bincount(strata)
    distinct = np.bincount(stratum, minlength=len(members))

    def name(code: int) -> str:
        return repr(names[values[code]] if len(names) else values[code].item())

    if (members == 1).any():
        rare = [name(c) for c in np.flatnonzero(members == 1)[:5]]
        raise DataError(
            f"class {', '.join(rare)} has one member only, which cannot be both trained on and "
            "validated; add samples of it, or take it out"
        )
    if (distinct < 2).any():
        code = int(np.flatnonzero(distinct < 2)[0])
        raise DataError(
            f"class {name(code)} has {members[code]} samples, but all are identical to one another "
            "or to samples of another class, and identical ones stay on one side; "
            "add others, or set duplicates to 'allow'"
        )
    k, n = len(members), len(y)
    if total < k or n - total < k:
        side, size = ("validation", total) if total < k else ("training", n - total)
        raise DataError(
            f"a {side} split of {size} cannot hold one sample of each of {k} classes; change val"
        )


def _quotas(sizes: np.ndarray, total: int) -> np.ndarray:
    """Share ``total`` among strata in proportion to their sizes, by largest remainder."""
    exact = sizes * (total / sizes.sum())
    low = 1 if len(sizes) > 1 else 0
    quota = np.clip(np.floor(exact + 1e-9).astype(np.int64), low, sizes - low)
    while (missing := total - int(quota.sum())) != 0:
        rest = exact - quota
        if missing > 0:
            quota[np.argmax(np.where(quota < sizes - low, rest, -np.inf))] += 1
        else:
            quota[np.argmin(np.where(quota > low, rest, np.inf))] -= 1
    return quota


def _fill(members: np.ndarray, sizes: np.ndarray, quota: int) -> np.ndarray:
    """Take groups in their random order, each that still fits into the quota."""
    reach = np.cumsum(sizes)
    taken = int(np.searchsorted(reach, quota, side="right"))
    chosen = list(members[:taken])
    left = quota - (int(reach[taken - 1]) if taken else 0)
    for member, size in zip(members[taken:], sizes[taken:], strict=True):
        if left == 0:
            break
        if size <= left:
            chosen.append(member)
            left -= size
    return np.array(chosen or [members[np.argmin(sizes)]], np.int64)


def _contradictions(same: np.ndarray | None, target: Target) -> list[str]:
    """Name identical samples whose labels differ: no model can be right on all of them."""
    if same is None or target.task != "classification":
        return []
    wrong = int((target.values != target.values[same]).sum())
    return [f"{wrong} samples repeat another sample with a different label"] if wrong else []


def _one_sided(train: np.ndarray, val: np.ndarray, classes: tuple[str, ...]) -> list[str]:
    unseen = [classes[c] for c in np.setdiff1d(val, train)]
    if unseen:
        raise DataError(
            f"the validation split has classes that the training split lacks: "
            f"{', '.join(map(repr, unseen[:5]))}; a model cannot learn them"
        )
    missing = [classes[c] for c in np.setdiff1d(train, val)]
    if not missing:
        return []
    return [f"the validation split has no sample of {', '.join(map(repr, missing[:5]))}"]


def _overlap(
    same: np.ndarray, train: np.ndarray, val: np.ndarray, hits: np.ndarray, plan: Plan, base: int
) -> str:
    """Describe samples on both sides; raise unless the user allows them."""
    pairs = []
    for hit in hits[:3]:
        twin = train[np.flatnonzero(same[train] == same[val[hit]])[0]]
        mine, offset = val[hit], plan.given or 0
        pairs.append(f"{mine - offset + base} (training sample {twin + base})")
    text = f"{len(hits)} of {len(val)} validation samples are training samples too"
    if plan.given is not None and plan.duplicates == "together":
        raise DataError(
            f"{text}, so validation would measure memory: validation sample "
            f"{', '.join(pairs)}; take them out, or set duplicates to 'allow'"
        )
    return f"{text} (duplicates: allow)"
