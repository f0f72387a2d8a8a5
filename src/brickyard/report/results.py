"""Turn the evaluation of single samples into what the page shows of right and wrong answers."""

from __future__ import annotations

from typing import Any

import numpy as np

from brickyard.report.facts import Facts
from brickyard.report.figures import (
    class_rows,
    confusion,
    confusion_counts,
    confusions,
    regression_rows,
    reliability,
    residuals,
    scatter,
)  # fmt: skip
from brickyard.report.png import data_uri
from brickyard.report.wording import count, number, percent, plural, setting

_MOST_WORST = 24
#: Tasks whose targets and predictions are classes: told, or those of the nearest neighbour.
NAMED = ("classification", "embedding", "two_view")


def classification(f: Facts) -> dict[str, Any] | None:
    """Return confusion matrix, frequent mistakes, per-class rows and reliability."""
    target, prediction = f.evaluation.get("target"), f.evaluation.get("prediction")
    if f.task not in NAMED or target is None or prediction is None or not len(target):
        return None
    if target.dtype.kind not in "iub" or prediction.dtype.kind not in "iub":
        return None
    size = max(len(f.classes), int(target.max()) + 1, int(prediction.max()) + 1)
    names = [f.class_name(i) for i in range(size)]
    counts = confusion_counts(target, prediction, size)
    wrong = int((target != prediction).sum())
    confidence = f.evaluation.get("confidence")
    trusted = None
    if confidence is not None and len(confidence) == len(target):
        trusted = reliability(confidence.astype(np.float64), (target == prediction).astype(float))
    return {
        "matrix": confusion(counts, names),
        "mistakes": confusions(counts, names),
        "classes": class_rows(counts, names),
        "reliability": trusted,
        "told": f"{count(wrong)} of {plural(len(target), 'validation sample')} wrong "
        f"({percent(wrong / len(target))}), by the best weights."
        + ("" if f.task == "classification" else " Said is the class of the nearest other sample."),
    }


def regression(f: Facts) -> dict[str, Any] | None:
    """Return scatter, histogram of errors and their figures."""
    target, prediction = f.evaluation.get("target"), f.evaluation.get("prediction")
    if f.task != "regression" or target is None or prediction is None:
        return None
    target, prediction = target.astype(np.float64), prediction.astype(np.float64)
    keep = np.isfinite(target) & np.isfinite(prediction)
    lost = int((~keep).sum())
    target, prediction = target[keep], prediction[keep]
    if len(target) < 2:
        return None
    told = f"{plural(len(target), 'validation sample')}, by the best weights."
    if lost:
        told += f" Another {plural(lost, 'sample')} with a value that is not finite left out."
    return {
        "scatter": scatter(target, prediction),
        "histogram": residuals(target, prediction),
        "rows": regression_rows(target, prediction),
        "told": told,
    }


def worst(f: Facts) -> dict[str, Any] | None:
    """Return the samples with the highest loss: as images where there are any, else as rows."""
    arrays = f.evaluation
    target, prediction, loss = (arrays.get(n) for n in ("target", "prediction", "loss"))
    if target is None or prediction is None:
        return None
    index, images = arrays.get("worst_index"), arrays.get("worst_images")
    if images is not None and (index is None or not _drawable(images) or len(index) != len(images)):
        images = None
    if index is None and loss is not None and len(loss) == len(target):
        index = np.argsort(-np.nan_to_num(loss, nan=np.inf), kind="stable")
    if index is None:
        return None
    rows = []
    kept = index[: _MOST_WORST if images is not None else 10]
    for place, i in enumerate(np.asarray(kept, dtype=np.int64).tolist()):
        if 0 <= i < len(target):
            picture = data_uri(images[place]) if images is not None else ""
            rows.append({**_sample(f, i), "image": picture})
    tiny = images is not None and max(images.shape[1:3]) <= 64
    return {"rows": rows, "images": images is not None, "tiny": tiny} if rows else None


def shown(f: Facts) -> dict[str, Any] | None:
    """Return what the task shows of a few samples: pictures side by side, or texts."""
    found = {k.removeprefix("shown_"): v for k, v in f.evaluation.items() if k[:6] == "shown_"}
    pictures, texts = found.get("pictures"), found.get("texts")
    if pictures is not None and (pictures.ndim < 4 or not len(pictures)):
        pictures = None
    if texts is not None and (texts.ndim != 2 or texts.shape[1] != 2):
        texts = None
    if pictures is None and texts is None:
        return None
    titles = [str(t) for t in np.atleast_1d(found.get("titles", []))]
    captions = [str(t) for t in np.atleast_1d(found.get("captions", []))]
    rows = []
    for i, panels in enumerate([] if pictures is None else pictures):
        if all(_drawable(panel[None]) for panel in panels):
            named = zip([*titles, *[""] * len(panels)], panels, strict=False)
            each = [{"title": title, "image": data_uri(panel)} for title, panel in named]
            rows.append({"panels": each, "caption": captions[i] if i < len(captions) else ""})
    wide = pictures is not None and pictures.shape[3] > 2 * pictures.shape[2]
    return {
        "heading": str(found.get("heading", "Samples")),
        "told": str(found.get("told", "")),
        "rows": rows,
        "wide": wide,
        "tiny": pictures is not None and max(pictures.shape[2:4]) <= 96,
        "texts": [] if texts is None else [(str(a), str(b)) for a, b in texts],
    }


def _drawable(images: np.ndarray) -> bool:
    flat = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    return images.dtype == np.uint8 and flat and images.size > 0


def _sample(f: Facts, i: int) -> dict[str, Any]:
    arrays = f.evaluation
    loss, confidence = arrays.get("loss"), arrays.get("confidence")
    target, prediction = arrays["target"][i].item(), arrays["prediction"][i].item()
    named = f.task in NAMED
    sure = confidence is not None and len(confidence) == len(arrays["target"])
    return {
        "index": count(i),
        "true": f.class_name(target) if named else setting(target, 4),
        "said": f.class_name(prediction) if named else setting(prediction, 4),
        "right": named and target == prediction,
        "error": "" if named else number(prediction - target),
        "loss": number(float(loss[i])) if loss is not None and i < len(loss) else "",
        "confidence": percent(float(confidence[i])) if sure and confidence is not None else "",
        "share": float(confidence[i]) if sure and confidence is not None else 0.0,
    }
