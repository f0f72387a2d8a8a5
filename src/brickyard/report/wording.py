"""Write numbers, durations and names the way a reader wants them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from brickyard.plots.numbers import MINUS, THIN, count, number, setting, to_float
from brickyard.plots.numbers import finite as finite  # for the report's other modules

#: Metrics that are shares of one: written as per cent when their values lie in [0, 1].
_SHARES = ("acc", "robust_acc", "precision", "recall", "f1", "top", "auroc", "auc", "iou", "dice",
           "jaccard", "hit", "coverage", "specificity", "sensitivity")  # fmt: skip
#: Metrics of which more is better; every other one counts as an error.
_MORE_IS_BETTER = (*_SHARES, "r2", "r_2", "score", "correlation", "pearson", "spearman", "kappa",
                   "psnr", "ssim", "matthews", "mcc", "bleu", "reward", "return", "samples_per",
                   "per_second")  # fmt: skip
_NAMES = {
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "mae": "MAE",
    "mse": "MSE",
    "rmse": "RMSE",
    "mean_absolute_error": "MAE",
    "mean_squared_error": "MSE",
    "root_mean_squared_error": "RMSE",
    "r2": "R²",
    "f1": "F1",
    "auroc": "AUROC",
    "auc": "AUC",
    "iou": "IoU",
    "mean_iou": "mean IoU",
    "dice_score": "Dice score",
    "knn_accuracy": "kNN accuracy",
    "latent_kl": "latent KL",
    "label_f1": "label F1",
    "val": "validation",
    "train": "training",
}


def epochs(value: float) -> str:
    """Return a position in epochs: whole, or with the digits that matter."""
    if not math.isfinite(value):
        return number(value)
    if abs(value - round(value)) < 0.02 and value >= 0.5:
        return count(round(value))
    return setting(value, 2) if value < 10 else f"{value:.1f}"


def length(text: str) -> str:
    """Return a length of a recipe in words: ``12ep`` is ``12 epochs``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)ep", text)
    if not found:
        return text
    return f"{found.group(1)} {'epoch' if found.group(1) == '1' else 'epochs'}"


def short_count(value: float) -> str:
    """Return a big number in short: ``1.2 M``."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.{0 if scaled >= 100 else 1}f}{THIN}{unit}"
    return count(round(value))


def percent(value: float, digits: int = 1) -> str:
    """Return a share of one as per cent; never rounded up to 100 or down to 0."""
    shown = value * 100
    if not math.isfinite(shown):
        return number(value)
    most = 100 - 10**-digits
    if shown != 100:
        shown = min(shown, most) if shown < 100 else shown
    if shown > 0:
        shown = max(shown, 10**-digits)
    text = f"{shown:.{digits}f}"
    return f"{'100' if shown == 100 else text}{THIN}%".replace("-", MINUS)


def duration(seconds: float | None) -> str:
    """Return a time span.

    Example:
        >>> duration(0.0123), duration(83), duration(7380)
        ('12\u202fms', '1\u202fmin 23\u202fs', '2\u202fh 3\u202fmin')
    """
    if seconds is None or not math.isfinite(seconds):
        return "\u2013"
    if seconds < 0.9995:
        return f"{seconds * 1e3:.0f}{THIN}ms" if seconds >= 1e-3 or seconds == 0 else f"<1{THIN}ms"
    if seconds < 59.95:
        return f"{seconds:.1f}{THIN}s"
    total = round(seconds)
    if total < 3600:
        return f"{total // 60}{THIN}min {total % 60}{THIN}s"
    total = round(seconds / 60)
    if total < 48 * 60:
        return f"{total // 60}{THIN}h {total % 60}{THIN}min"
    return f"{total // 1440}{THIN}d {total % 1440 // 60}{THIN}h"


def is_share(name: str, values: Iterable[float] = ()) -> bool:
    """Say whether a metric is a share of one, to be written as per cent."""
    stem = _stem(name)
    return stem.startswith(_SHARES) and all(0 <= v <= 1 for v in values if math.isfinite(v))


def more_is_better(name: str) -> bool:
    """Say whether a metric's bigger values are the better ones, judging by its name."""
    return _stem(name).startswith(_MORE_IS_BETTER)


def _stem(name: str) -> str:
    stem = name.lower()
    for prefix in ("val_", "train_", "mean_", "macro_", "micro_", "weighted_", "balanced_", "avg_"):
        stem = stem.removeprefix(prefix)
    return stem


def metric(name: str, value: Any, digits: int = 3) -> str:
    """Return a metric's value: per cent for shares of one, else a number."""
    x = to_float(value)
    if x is None or not math.isfinite(x) or not is_share(name, [x]):
        return number(value, digits)
    return percent(x, 2 if 0.995 <= x < 1 else 1)


def words(name: str) -> str:
    """Return a metric's or setting's name in words: ``grad_norm`` is ``gradient norm``."""
    return _NAMES.get(name.lower(), name.replace("_", " "))


def title(name: str) -> str:
    """Return :func:`words` with a capital letter."""
    text = words(name)
    return text[:1].upper() + text[1:]


def moment(seconds: float) -> str:
    """Return a file's time of change as local date and time."""
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M")


def size(octets: float) -> str:
    """Return a file's size."""
    for unit in ("B", "kB", "MB"):
        if octets < 1000:
            return f"{octets:.{0 if unit == 'B' or octets >= 100 else 1}f}{THIN}{unit}"
        octets /= 1000
    return f"{octets:.1f}{THIN}GB"


def plural(n: int, one: str, many: str = "") -> str:
    """Return a count with its noun."""
    return f"{count(n)} {one if n == 1 else many or one + 's'}"


def join(items: Iterable[str]) -> str:
    """Return ``a, b and c``."""
    parts = list(items)
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
