"""Checks of what goes into the model: finite, scaled, not constant."""

from __future__ import annotations

from collections.abc import Iterable

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check
from brickyard.doctor.observe.record import Seen


@check(
    21, "input-nonfinite", "error", weight=1.0,
    sees="NaN or infinite values in batches",
    why="One such value makes the loss and then all weights NaN.",
    try_="Fill or drop missing values; look for divisions by a deviation of 0.",
    allows="nothing: batches are looked at as the loader gives them",
    source="Humbatova et al. 2020, group training data",
)  # fmt: skip
def input_nonfinite(seen: Seen) -> Iterable[Say]:
    """Report batches with values that are not finite."""
    for note in seen.of("input-nonfinite"):
        v = note.values
        if not seen.of("nonfinite-loss") and not seen.of("nonfinite-grad"):
            continue  # masked or filled before the model saw them
        yield Say(
            f"{v['bad']} of {v['of']} values of {note.where} are NaN or infinite{v['batch']}.",
            note.where, note.place, step=max(1, note.step),
        )  # fmt: skip


@check(
    22, "input-raw-range", "warning", weight=0.7,
    sees="inputs of the model that look like bytes, or features of very different spread",
    why="Unscaled inputs give a huge first loss and gradients, and slow, unstable training.",
    try_="Divide by 255 or standardize with the training data's mean and deviation.",
    allows="first layers that normalize or embed, integer inputs, decision variables of few "
    "values, scaled data with rare outliers",
    source="stackoverflow.com/questions/46995209",
)  # fmt: skip
def raw_range(seen: Seen) -> Iterable[Say]:
    """Report inputs that nobody scaled."""
    for note in seen.of("input-statistics"):
        v = note.values
        if v["normalizes"] or note.count < T.IN_ROW:
            continue
        if v["integral"] and v["largest"] > T.RAW_RANGE and v["std"] > T.RAW_STD:
            said = (
                f"nothing but whole numbers from {v['smallest']:g} to {v['largest']:g}, with a "
                f"deviation of {v['std']:.3g}"
            )
        elif v["std_median"] > T.RAW_STD and v["largest"] > 100:
            said = (
                f"{v['features']} features whose deviations have the median {v['std_median']:.3g}, "
                f"and values up to {v['largest']:g}"
            )
        elif v["ratio"] > T.RAW_RATIO and v["std_max"] > T.RAW_STD:
            said = f"features whose deviations differ by a factor of {v['ratio']:.2g}"
        else:
            continue
        yield Say(f"The input of {note.where} has {said}.", note.where, note.place,
                  step=max(1, note.step))  # fmt: skip


@check(
    23, "input-constant", "warning", weight=0.6,
    sees="features that are equal across a batch, and samples that are equal",
    why="Inputs that do not vary carry no information: a broken reader, mask or transform.",
    try_="Look at a batch: plot it, print it.",
    allows="up to nine tenths of constant features (borders of images), equal samples that do "
    "vary in features (oversampled classes, few discrete states), integer inputs, generators",
    source="TheDeepChecker, pitfall constant inputs",
)  # fmt: skip
def constant_input(seen: Seen) -> Iterable[Say]:
    """Report inputs that do not vary."""
    for note in seen.of("input-statistics"):
        v = note.values
        if note.count < T.IN_ROW or v["samples"] < 8 or v["features"] < 4:
            continue
        if v["constant"] > 0.9 and v["distinct"] <= v["samples"] // 2:
            yield Say(
                f"{v['constant']:.0%} of {v['features']} features of the input of {note.where} are "
                f"equal in all {v['samples']} samples of a batch ({v['distinct']} distinct "
                "samples).",
                note.where, note.place, step=max(1, note.step),
            )  # fmt: skip
