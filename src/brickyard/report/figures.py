"""Draw what a model gets right and wrong: confusion, reliability, scatter, residuals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from brickyard.plots.svg import (
    Scale,
    axes,
    dots,
    linear,
    margin,
    path,
    pct,
    plot,
    stretched,
    tag,
)  # fmt: skip
from brickyard.report.curves import Chart
from brickyard.report.wording import count, number, percent, plural

MOST_CLASSES = 60  # more than these do not fit: those with the most errors are drawn
MOST_POINTS = 4000


def confusion_counts(target: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Return how often each class (row) was predicted as each class (column), shape (K, K)."""
    t, p = target.astype(np.int64), prediction.astype(np.int64)
    known = (t >= 0) & (t < classes) & (p >= 0) & (p < classes)
    flat = np.bincount(t[known] * classes + p[known], minlength=classes * classes)
    return flat.reshape(classes, classes)


def confusion(counts: np.ndarray, names: Sequence[str]) -> Chart:
    """Draw a confusion matrix: rows are true classes, columns predicted ones.

    The shade is the share of the row; errors have their own hue, and a scale that shows single
    ones.

    Args:
        counts: shape (K, K).
        names: of the classes.
    """
    remarks = []
    if len(counts) > MOST_CLASSES:
        wrong = counts.sum(0) + counts.sum(1) - 2 * np.diag(counts)
        kept = np.sort(np.argsort(-wrong, kind="stable")[:MOST_CLASSES])
        remarks.append(f"the {MOST_CLASSES} of {plural(len(counts), 'class', 'classes')} "
                       "with the most errors")  # fmt: skip
        counts, names = counts[np.ix_(kept, kept)], [str(names[i]) for i in kept]
    k = len(counts)
    short = [_cut(name, 12) for name in names]
    rows = counts.sum(1)
    shares = counts / np.maximum(rows, 1)[:, None]
    cells = [
        _cell(i, j, int(counts[i, j]), float(shares[i, j]), k)
        for i, j in np.argwhere(counts > 0).tolist()
    ]
    thinned = k > 26
    labels = [
        tag("text", name, class_="y" + _rank(i, thinned), x="-8",
            y=pct((i + 0.5) / k), dy="4") for i, name in enumerate(short)
    ] + [
        tag("text", name, class_="column" + _rank(i, thinned), y="-8",
            x=pct((i + 0.5) / k)) for i, name in enumerate(short)
    ]  # fmt: skip
    right = int(np.trace(counts))
    told = (
        f"{plural(k, 'class', 'classes')}, {plural(int(counts.sum()), 'sample')}, {count(right)} "
        "on the diagonal. Rows are true classes, columns predicted ones."
    )
    svg = plot("confusion", "Confusion matrix", told, tag("rect", class_="field", width="100%",
               height="100%"), tag("g", *cells, class_="cells"),
               tag("g", *labels, class_="axes"))  # fmt: skip
    return Chart("confusion", "Confusion matrix", svg, margin(short), (), tuple(remarks),
                 {"names": list(names), "counts": counts.tolist(), "top": margin(short)
                  if max(map(len, short)) > 2 else 24, "tilt": max(map(len, short)) > 2,
                  "k": k})  # fmt: skip


def _cell(i: int, j: int, n: int, share: float, k: int) -> Markup:
    hit = i == j
    shade = 0.12 + 0.88 * share if hit else min(1.0, 0.16 + 1.3 * math.sqrt(share))
    gap = 0.03 / k
    box = tag("rect", x=pct(j / k + gap), y=pct(i / k + gap), width=pct(1 / k - 2 * gap),
              height=pct(1 / k - 2 * gap), class_="hit" if hit else "miss",
              fill_opacity=f"{shade:.2f}")  # fmt: skip
    if k > 40:
        return box
    strong = " strong" if shade > 0.62 else ""
    strong += " full" if hit and shade > 0.87 else ""
    text = tag("text", count(n), x=pct((j + 0.5) / k), y=pct((i + 0.5) / k), dy=".35em",
               class_="n" + strong)  # fmt: skip
    return box + text


def _rank(i: int, thinned: bool) -> str:
    """Return the classes by which a label of many is left out where there is little room."""
    return (" second" if i % 2 else " fourth" if i % 4 else "") if thinned else ""


def _cut(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def class_rows(counts: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Return per class: samples, recall, precision, F1 and what it is mistaken for most."""
    rows = []
    for i, name in enumerate(names):
        true, said, hit = int(counts[i].sum()), int(counts[:, i].sum()), int(counts[i, i])
        wrong = counts[i].copy()
        wrong[i] = 0
        worst = int(wrong.argmax())
        recall = hit / true if true else math.nan
        precision = hit / said if said else math.nan
        f1 = 2 * hit / (true + said) if true + said else math.nan
        rows.append({
            "name": name, "samples": count(true), "recall": _share(recall), "share": recall,
            "precision": _share(precision), "f1": _share(f1),
            "mistaken": f"{names[worst]} ({plural(int(wrong[worst]), 'time')})"
            if wrong[worst] else "",
        })  # fmt: skip
    return rows


def _share(value: float) -> str:
    return "–" if math.isnan(value) else percent(value)


def confusions(counts: np.ndarray, names: Sequence[str], most: int = 6) -> list[dict[str, Any]]:
    """Return the most frequent mistakes: true and predicted class, how often, what share."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    found = []
    for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True):
        if wrong[i, j]:
            share = percent(wrong[i, j] / counts[i].sum())
            found.append({"true": names[i], "said": names[j], "n": int(wrong[i, j]), "share": share,
                          "part": float(wrong[i, j] / wrong.max())})  # fmt: skip
    return found


def reliability(confidence: np.ndarray, right: np.ndarray, bins: int = 10) -> dict[str, Any] | None:
    """Draw how often the model is right at each confidence, and measure the distance.

    ``error`` is the expected calibration error over ``bins`` equal bins of confidence.

    Args:
        confidence: share of one given to the predicted class, shape (n,).
        right: whether the prediction was right, shape (n,).
        bins: how many.
    """
    keep = np.isfinite(confidence) & (confidence >= 0) & (confidence <= 1)
    confidence, right = confidence[keep], right[keep]
    if len(confidence) < 50:
        return None
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    total = np.bincount(place, minlength=bins)
    hits = np.bincount(place, weights=right, minlength=bins)
    said = np.bincount(place, weights=confidence, minlength=bins)
    filled = np.flatnonzero(total)
    accuracy, mean = hits[filled] / total[filled], said[filled] / total[filled]
    error = float((np.abs(accuracy - mean) * total[filled]).sum() / len(confidence))
    bars = [
        tag("rect", class_="bar", x=pct(b / bins + 0.006), width=pct(1 / bins - 0.012),
            y=pct(1 - a), height=pct(a), fill_opacity=f"{0.25 + 0.75 * min(1, n / 20):.2f}")
        for b, a, n in zip(filled.tolist(), accuracy.tolist(), total[filled].tolist(), strict=True)
    ]  # fmt: skip
    ends = np.array([0.0, 1.0])
    x, y = linear(0, 1, share=True, about=4), linear(0, 1, share=True, about=4)
    diagonal = tag("path", class_="reference", d=path(ends, ends))
    gap = float(confidence.mean() - right.mean())
    lean = "over-confident" if gap > 0.01 else "under-confident" if gap < -0.01 else "well matched"
    told = (
        f"Says {percent(float(confidence.mean()))} on average and is right in "
        f"{percent(float(right.mean()))}: {lean}."
    )
    svg = plot("reliability", "Reliability", f"{told} Expected calibration error {percent(error)}.",
               axes(x, y, "confidence", "right"), *bars, stretched(diagonal))  # fmt: skip
    figure = Chart("reliability", "Is its confidence deserved?", svg, margin(y.labels))
    return {"figure": figure, "told": told, "error": percent(error)}


def scatter(target: np.ndarray, prediction: np.ndarray) -> Chart:
    """Draw predicted against true values, with the line of a perfect model."""
    kept = _sample(np.abs(prediction - target))
    t, p = target[kept], prediction[kept]
    low, high = float(min(t.min(), p.min())), float(max(t.max(), p.max()))
    scale = linear(low, high)
    cells = np.unique(np.stack([np.rint(scale(t) * 1000), np.rint(scale(p) * 1000)]), axis=1) / 1000
    cloud = tag("path", class_="cloud", d=dots(cells[0], cells[1]))
    ends = np.array([0.0, 1.0])
    line = tag("path", class_="reference", d=path(ends, ends))
    remarks = []
    if len(kept) < len(target):
        remarks.append(f"{count(len(kept))} of {count(len(target))} samples, the largest errors "
                       "among them")  # fmt: skip
    told = f"{plural(len(target), 'sample')}; values from {number(low)} to {number(high)}."
    svg = plot("scatter", "Predicted against true values", told,
               axes(scale, scale, "true", "predicted"), stretched(line, cloud))  # fmt: skip
    return Chart("scatter", "Predicted against true", svg, margin(scale.labels), (), tuple(remarks))


def _sample(error: np.ndarray) -> np.ndarray:
    """Return the indices to draw: all, or the largest errors and a seeded draw of the others."""
    if len(error) <= MOST_POINTS:
        return np.arange(len(error))
    order = np.argsort(-error, kind="stable")
    drawn = np.random.default_rng(0).choice(order[200:], MOST_POINTS - 200, replace=False)
    return np.concatenate([order[:200], drawn])


def residuals(target: np.ndarray, prediction: np.ndarray) -> Chart:
    """Draw the histogram of prediction minus target; the outermost bins hold all beyond them."""
    error = prediction - target
    low, high = (float(v) for v in np.quantile(error, [0.005, 0.995]))
    reach = max(abs(low), abs(high)) or 1.0
    bins = int(np.clip(2 * round(len(error) ** (1 / 3)) + 1, 7, 41)) | 1
    edges = np.linspace(-reach, reach, bins + 1)
    total = np.histogram(np.clip(error, -reach, reach), edges)[0]
    x = _middle(linear(-reach, reach, about=4), reach)
    y = linear(0, float(total.max()), about=3)
    left, top = x(edges), y(total.astype(float))
    bars = [
        tag("rect", class_="bar", x=pct(a + 0.001), width=pct(max(b - a - 0.002, 0.001)),
            y=pct(1 - h), height=pct(h))
        for a, b, h in zip(left[:-1].tolist(), left[1:].tolist(), top.tolist(), strict=True)
        if h > 0
    ]  # fmt: skip
    zero = tag("line", class_="zero", x1="50%", x2="50%", y1="0", y2="100%")
    beyond = int((np.abs(error) > reach).sum())
    remarks = [f"{plural(beyond, 'sample')} beyond the ends, counted in the last bars"]
    mean, deviation = number(float(error.mean())), number(float(error.std()))
    told = f"Mean error {mean}, standard deviation {deviation}."
    svg = plot("residuals", "Histogram of errors", told, axes(x, y, "predicted − true", "samples"),
               *bars, zero)  # fmt: skip
    return Chart("residuals", "Errors", svg, margin(y.labels), (), tuple(remarks if beyond else ()))


def _middle(scale: Scale, reach: float) -> Scale:
    """Return the scale cut to ``-reach .. reach``, so that zero is in the middle."""
    kept = [(t, s) for t, s in zip(scale.ticks, scale.labels, strict=True) if abs(t) <= reach]
    return Scale(-reach, reach, False, tuple(t for t, _ in kept), tuple(s for _, s in kept))


def regression_rows(target: np.ndarray, prediction: np.ndarray) -> list[tuple[str, str, str]]:
    """Return name, value and meaning of what describes the errors of a regression."""
    error = prediction - target
    spread = float(((target - target.mean()) ** 2).mean())
    squared = float((error**2).mean())
    r2 = 1 - squared / spread if spread else math.nan
    half, most = (number(float(q)) for q in np.quantile(np.abs(error), [0.5, 0.95]))
    return [
        ("Mean absolute error", number(float(np.abs(error).mean())), "in units of the target"),
        ("Root mean square error", number(math.sqrt(squared)),
         f"the target's own deviation is {number(math.sqrt(spread))}"),
        ("R²", number(r2), "1 is perfect, 0 is the mean for everybody"),
        ("Bias", number(float(error.mean())), "mean of predicted minus true"),
        ("Half of the errors below", half, f"{percent(0.95, 0)} of them below {most}"),
    ]  # fmt: skip
