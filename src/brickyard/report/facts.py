"""Gather from a run folder what verdicts and pages rest on: every part of it may be missing."""

from __future__ import annotations

import math
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from brickyard.errors import RunError
from brickyard.report.history import History, Series
from brickyard.report.wording import (
    MINUS,
    THIN,
    finite,
    is_share,
    metric,
    more_is_better,
    number,
    words,
)
from brickyard.runs import RunFolder


@dataclass(frozen=True)
class Facts:
    """Hold what is known of one run, and derive the quantities that rules ask for.

    Attributes:
        path: the run folder, as it was given.
        recipe: the resolved recipe.
        summary: ``summary.json``; empty while the run has not ended.
        history: the metric rows.
        evaluation: the arrays of ``evaluation.npz``.
        environment: ``environment.json``.
        unreadable: what could not be read, a sentence each.
    """

    path: str = "RUN"
    recipe: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    history: History = field(default_factory=lambda: History([]))
    evaluation: Mapping[str, np.ndarray] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    unreadable: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Facts:
        """Read a run folder; a damaged file is named in ``unreadable`` and counts as missing.

        Raises:
            RunError: there is no run in that folder.
        """
        run = RunFolder.open(path)
        parts: dict[str, Any] = {}
        broken = []
        for name in ("recipe", "summary", "metrics", "evaluation", "environment"):
            try:
                parts[name] = getattr(run, name)()
            except (RunError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
                broken.append(f"{name}: {error}")
        documents = {n: parts.get(n) for n in ("recipe", "summary", "environment")}
        return cls(
            path=str(path),
            history=History(row for row in parts.get("metrics", []) if isinstance(row, dict)),
            evaluation=_usable(parts.get("evaluation", {})),
            unreadable=tuple(broken),
            **{n: d if isinstance(d, dict) else {} for n, d in documents.items()},
        )

    # -- what was run ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Return the run's name."""
        named = self.summary.get("name") or self.recipe.get("name")
        return str(named or Path(self.path).resolve().name)

    @property
    def task(self) -> str:
        """Return the task's name, or what the classes tell where none is written."""
        told = self.summary.get("task") or self.recipe.get("task")
        if isinstance(told, str) and told:
            return told
        return "classification" if len(self.classes) else ""

    @property
    def exit_reason(self) -> str:
        """Return why the run ended; empty while no summary was written."""
        return str(self.summary.get("exit_reason") or "")

    @property
    def error(self) -> str:
        """Return the error that ended the run."""
        return str(self.summary.get("error") or "")

    @cached_property
    def classes(self) -> list[str]:
        """Return the names of the classes, in the order of their indices."""
        stored = self.evaluation.get("classes")
        if stored is not None and len(stored):
            return [str(c) for c in stored]
        return [str(c) for c in self.part("data").get("classes") or []]

    def part(self, name: str) -> Mapping[str, Any]:
        """Return a mapping of the summary; empty if there is none."""
        value = self.summary.get(name)
        return value if isinstance(value, Mapping) else {}

    @property
    def seconds(self) -> dict[str, float]:
        """Return where the time went."""
        pairs = ((str(k), finite(v)) for k, v in self.part("seconds").items())
        return {k: v for k, v in pairs if v is not None and v >= 0}

    @property
    def total_seconds(self) -> float | None:
        """Return how long the run took."""
        parts = self.seconds
        return parts.get("total") or (sum(parts.values()) or None)

    @property
    def budget_epochs(self) -> float | None:
        """Return the budget in epochs, if the recipe says it in epochs."""
        budget = self.recipe.get("budget")
        if isinstance(budget, Mapping):
            return finite(budget.get("epochs"))
        found = re.match(r"\s*(\d+(?:\.\d+)?)\s*ep", str(budget or ""))
        return float(found.group(1)) if found else finite(self.recipe.get("epochs"))

    @property
    def peak_lr(self) -> float | None:
        """Return the highest learning rate used."""
        used = self.history.get("train", "lr").finite.value
        optimizer = self.recipe.get("optimizer")
        asked = finite(optimizer.get("lr")) if isinstance(optimizer, Mapping) else None
        return float(used.max()) if len(used) else asked

    @property
    def clips(self) -> bool:
        """Say whether the recipe clips gradients."""
        return any(key.startswith("clip") and value for key, value in self.recipe.items())

    @property
    def dropout(self) -> float:
        """Return the highest dropout rate in the recipe."""
        rates = [finite(v) or 0.0 for path, v in _leaves(self.recipe) if "dropout" in path]
        return max(rates, default=0.0)

    @property
    def training_noise(self) -> list[str]:
        """Return what made training batches harder than validation ones, by the recipe."""
        augmented = ["augmentation"] if self.recipe.get("augmentation") else []
        return (["dropout"] if self.dropout > 0 else []) + augmented

    @property
    def images(self) -> bool:
        """Say whether the samples are images."""
        shape = self.part("data").get("input_shape")
        sides = [s for s in shape if isinstance(s, int)] if isinstance(shape, list) else []
        if not sides:
            return "worst_images" in self.evaluation
        return len(sides) == 3 and min(sides[1:]) > 3  # flat samples may be shown as pictures

    # -- the monitored metric -------------------------------------------------------------------

    @cached_property
    def monitor(self) -> str:
        """Return the name of the metric that decides which weights are best."""
        told = self.part("monitor").get("name")
        if told:
            return str(told).removeprefix("val_").removeprefix("val/")
        known = [name for split, name in self.history.series if split == "val"]
        for name in ("accuracy", "r2", "loss"):
            if name in known:
                return name
        return known[0] if known else "loss"

    @cached_property
    def mode(self) -> str:
        """Return ``"max"`` or ``"min"``."""
        told = self.part("monitor").get("mode")
        return str(told) if told in ("max", "min") else _mode_of(self.monitor)

    @cached_property
    def monitored(self) -> Series:
        """Return the finite values of the monitored metric on validation data."""
        return self.history.get("val", self.monitor).finite

    @property
    def evaluations(self) -> int:
        """Return how many finite values the monitored metric has."""
        return len(self.monitored)

    @property
    def best_index(self) -> int:
        """Return which evaluation was the best, from 0."""
        values = self.monitored.value
        return int(values.argmax() if self.mode == "max" else values.argmin()) if len(values) else 0

    @property
    def best(self) -> float:
        """Return the best monitored value; NaN without evaluations."""
        return float(self.monitored.value[self.best_index]) if self.evaluations else math.nan

    @property
    def final(self) -> float:
        """Return the last monitored value; NaN without evaluations."""
        return float(self.monitored.value[-1]) if self.evaluations else math.nan

    @property
    def best_epoch(self) -> float:
        """Return the epoch of the best evaluation."""
        return float(self.monitored.epoch[self.best_index]) if self.evaluations else math.nan

    @property
    def share(self) -> bool:
        """Say whether the monitored metric is a share of one, such as an accuracy."""
        return is_share(self.monitor, self.monitored.value)

    @property
    def monitor_words(self) -> str:
        """Return how a sentence calls the monitored metric."""
        return f"validation {words(self.monitor)}"

    def show(self, value: float) -> str:
        """Return a value of the monitored metric as text."""
        return metric(self.monitor, value)

    def show_gap(self, value: float) -> str:
        """Return a difference of two values of the monitored metric as text."""
        if not self.share:
            return number(value)
        return f"{value * 100:.1f}{THIN}points".replace("-", MINUS)

    def gain(self, value: float, over: float) -> float:
        """Return by how much ``value`` is better than ``over``; negative when worse."""
        return value - over if self.mode == "max" else over - value

    @cached_property
    def noise(self) -> float:
        """Return one standard error of the monitored value; the scatter where none is known."""
        return self.sampling or self.scatter

    @cached_property
    def sampling(self) -> float:
        """Return one standard error of a proportion over the validation samples; 0 if unknown.

        It is unknown where what is counted are pixels or symbols and not samples.
        """
        if not (self.share and self.val_size and self.task not in _COUNTS_PARTS):
            return 0.0
        p = (self.best * self.val_size + 1) / (self.val_size + 2)
        return math.sqrt(p * (1 - p) / self.val_size)

    @cached_property
    def scatter(self) -> float:
        """Return the deviation of the last half of the evaluations from a straight line."""
        late = self.monitored.value[-max(6, self.evaluations // 2) :]
        if len(late) < 4:
            return 0.0
        line = np.polyval(np.polyfit(np.arange(len(late)), late, 1), np.arange(len(late)))
        return float(np.sqrt(((late - line) ** 2).sum() / (len(late) - 2)))

    @property
    def val_size(self) -> int:
        """Return the number of validation samples; 0 if unknown."""
        told = finite(self.part("data").get("val"))
        return int(told) if told else len(self.evaluation.get("target", ()))

    def train_near(self, name: str, epoch: float) -> np.ndarray:
        """Return a training metric around an epoch: the nearest twentieth of the rows."""
        part = self.history.get("train", name).finite
        near = np.argsort(np.abs(part.epoch - epoch), kind="stable")
        return part.value[near[: max(1, len(part) // 20)]]

    def train_at(self, name: str, epoch: float) -> float:
        """Return the median of :meth:`train_near`; NaN if there are no rows."""
        values = self.train_near(name, epoch)
        return float(np.median(values)) if len(values) else math.nan

    @property
    def train_monitor(self) -> float:
        """Return the monitored metric on training data at the best epoch; NaN if unknown."""
        found = self.train_at(self.monitor, self.best_epoch)
        if not math.isnan(found):
            return found
        final = self.part("final").get("train")
        told = finite(final.get(self.monitor)) if isinstance(final, Mapping) else None
        return math.nan if told is None else told

    @property
    def loss_counts(self) -> bool:
        """Say whether the loss tells how good the model is.

        That of one player of a game, or of the episodes that an agent plays, does not: nobody
        measures it on held-out data.
        """
        return not self.evaluations or ("val", "loss") in self.history.series

    # -- what went with it ----------------------------------------------------------------------

    @property
    def val_loss_at_best(self) -> float:
        """Return the validation loss at the best epoch; NaN if unknown."""
        loss = self.history.get("val", "loss").finite
        if not len(loss):
            return math.nan
        return float(loss.value[np.abs(loss.epoch - self.best_epoch).argmin()])

    @property
    def loss_noise(self) -> float:
        """Return one standard error of the validation loss; 0 if unknown."""
        loss = self.evaluation.get("loss", np.empty(0))
        loss = loss[np.isfinite(loss)]
        return float(loss.std() / math.sqrt(len(loss))) if len(loss) > 1 else 0.0

    @cached_property
    def unpredicted(self) -> list[str]:
        """Return the classes that occur in the validation data and are never predicted."""
        target, prediction = (self.evaluation.get(n) for n in ("target", "prediction"))
        if self.task != "classification" or target is None or prediction is None:
            return []
        missing = sorted(set(target.tolist()) - set(prediction.tolist()))
        return [self.class_name(i) for i in missing]

    def class_name(self, index: Any) -> str:
        """Return the name of a class by its index."""
        known = isinstance(index, int | np.integer) and 0 <= index < len(self.classes)
        return self.classes[int(index)] if known else str(index)


#: Tasks whose shares are of pixels or symbols, of which a sample has many.
_COUNTS_PARTS = ("segmentation", "transcription", "multi_label", "language_model", "vae")


def _mode_of(name: str) -> str:
    return "max" if more_is_better(name) else "min"


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Return the values of a recipe with the dotted path of each; a brick's name is part of it."""
    if isinstance(tree, Mapping):
        path += f".{tree.get('name', '')}"
        for key, value in tree.items():
            yield from _leaves(value, f"{path}.{key}")
    elif isinstance(tree, list):
        for value in tree:
            yield from _leaves(value, path)
    else:
        yield path, tree


def _usable(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the evaluation's arrays in the shapes that the page draws; one column becomes flat."""
    found = dict(arrays)
    for name in ("target", "prediction", "confidence", "loss"):
        values = found.get(name)
        if values is not None and values.ndim == 2 and values.shape[1] == 1:
            found[name] = values[:, 0]
        elif values is not None and values.ndim != 1:
            del found[name]
    pair = [found.get("target"), found.get("prediction")]
    if any(p is None for p in pair) or len(pair[0]) != len(pair[1]):  # pyright: ignore
        beside = ("classes", "samples", "shown_")
        found = {k: v for k, v in found.items() if k.startswith(beside)}
    return found
