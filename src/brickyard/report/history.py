"""Read metric rows as series, and thin them without hiding a spike or a non-finite number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from brickyard.report.wording import finite, to_float

_ORDINALS = frozenset({"step", "epoch", "split"})


@dataclass(frozen=True)
class Series:
    """Hold one metric of one split, in the order it was written.

    Attributes:
        name: the metric.
        split: ``"train"`` or ``"val"``.
        step: optimizer steps done, shape (n,).
        epoch: the same in epochs, shape (n,).
        value: shape (n,); may hold what is not finite.
    """

    name: str
    split: str
    step: np.ndarray
    epoch: np.ndarray
    value: np.ndarray

    def __len__(self) -> int:
        return len(self.value)

    @property
    def finite(self) -> Series:
        """Return the part that is finite."""
        keep = np.isfinite(self.value)
        return Series(self.name, self.split, self.step[keep], self.epoch[keep], self.value[keep])

    def between(self, start: float, stop: float) -> np.ndarray:
        """Return the finite values at epochs in ``[start, stop]``."""
        part = self.finite
        return part.value[(part.epoch >= start) & (part.epoch <= stop)]

    def tail(self, share: float, least: int = 1) -> np.ndarray:
        """Return the last ``share`` of the finite values, at least ``least`` of them."""
        values = self.finite.value
        return values[-max(least, round(share * len(values))) :]

    def head(self, share: float, least: int = 1) -> np.ndarray:
        """Return the first ``share`` of the finite values, at least ``least`` of them."""
        values = self.finite.value
        return values[: max(least, round(share * len(values)))]


class History:
    """Hold all series of a run.

    Args:
        rows: the rows of ``metrics.jsonl``.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]):
        columns: dict[tuple[str, str], tuple[list[float], list[float], list[float]]] = {}
        for row in rows:
            split, step = str(row.get("split", "train")), finite(row.get("step"))
            epoch = finite(row.get("epoch"))
            if step is None:
                continue
            for name, raw in row.items():
                value = None if name in _ORDINALS else to_float(raw)
                if value is not None:
                    steps, epochs, values = columns.setdefault((split, name), ([], [], []))
                    steps.append(step)
                    epochs.append(step if epoch is None else epoch)
                    values.append(value)
        self.series = {
            key: Series(key[1], key[0], *(np.asarray(c, dtype=np.float64) for c in parts))
            for key, parts in columns.items()
        }

    def __bool__(self) -> bool:
        return bool(self.series)

    def get(self, split: str, name: str) -> Series:
        """Return one series; an empty one if there is none."""
        none = np.empty(0)
        return self.series.get((split, name), Series(name, split, none, none, none))

    @property
    def names(self) -> list[str]:
        """Return the metrics' names in the order of their first appearance."""
        return list(dict.fromkeys(name for _, name in self.series))

    @property
    def last_step(self) -> int:
        """Return the last step that any row tells of."""
        return int(max((s.step[-1] for s in self.series.values() if len(s)), default=0))

    @property
    def last_epoch(self) -> float:
        """Return the last epoch that any row tells of."""
        return float(max((s.epoch[-1] for s in self.series.values() if len(s)), default=0.0))


def thin(x: np.ndarray, y: np.ndarray, buckets: int) -> np.ndarray:
    """Return the indices to draw: of every bucket the first, lowest, highest and last point.

    A line through these covers the same pixels as one through all points when a bucket is a pixel
    column, so no spike is lost. The buckets are equal spans of ``x``. All values must be finite.

    Args:
        x: rising positions, shape (n,).
        y: values, shape (n,).
        buckets: at most four points are kept of each.
    """
    if len(x) <= 4 * buckets:
        return np.arange(len(x))
    starts = _bucket_starts(x, buckets)
    ends = np.append(starts[1:], len(x))
    keep = [starts, ends - 1]
    for start, end in zip(starts, ends, strict=True):
        part = y[start:end]
        keep.append(np.array([start + part.argmin(), start + part.argmax()]))
    return np.unique(np.concatenate(keep))


def _bucket_starts(x: np.ndarray, buckets: int) -> np.ndarray:
    """Return where each bucket that holds a point begins."""
    span = x[-1] - x[0]
    place = np.zeros(len(x)) if span <= 0 else np.minimum((x - x[0]) / span * buckets, buckets - 1)
    place = place.astype(int)
    return np.flatnonzero(np.append(True, np.diff(place) > 0))


@dataclass(frozen=True)
class Trend:
    """Hold a series' moving median and the range around it, at a few positions."""

    step: np.ndarray
    epoch: np.ndarray
    value: np.ndarray
    low: np.ndarray
    high: np.ndarray
    window: int


def trend(series: Series, points: int = 200) -> Trend:
    """Return the moving median (over a thirtieth of the rows) at ``points`` positions.

    ``low`` and ``high`` are the extremes of the rows that a position stands for. Only finite rows
    count.

    Args:
        series: a noisy series.
        points: how many positions.
    """
    part = series.finite
    n = len(part)
    window = max(3, n // 30) | 1
    edges = np.unique(np.linspace(0, n, min(points, n) + 1).astype(int))
    starts = edges[:-1]
    low = np.minimum.reduceat(part.value, starts)
    high = np.maximum.reduceat(part.value, starts)
    middle = (edges[:-1] + edges[1:] - 1) // 2
    middle[0], middle[-1] = 0, n - 1
    # At the start, where curves fall, the window stays nearly centred; at the end it looks back.
    half = window // 2
    after = np.clip(middle, half // 8, half)
    pairs = zip(np.maximum(middle - half, 0), middle + after + 1, strict=True)
    median = np.array([np.median(part.value[a:b]) for a, b in pairs])
    return Trend(part.step[middle], part.epoch[middle], median, low, high, window)


def broken(series: Series) -> list[tuple[float, float, int]]:
    """Return the runs of rows that are not finite: first epoch, last epoch, how many."""
    bad = ~np.isfinite(series.value)
    if not bad.any():
        return []
    edge = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(int)))
    pairs: Sequence[tuple[int, int]] = list(zip(edge[::2], edge[1::2], strict=True))
    return [(float(series.epoch[a]), float(series.epoch[b - 1]), int(b - a)) for a, b in pairs]
