"""Rules for runs that did not end well, or are too short to judge."""

from __future__ import annotations

import math
import re

import numpy as np

from brickyard.reading import Verdict, rise
from brickyard.report.facts import Facts
from brickyard.report.phrases import (
    against,
    best_so_far,
    chance,
    ends_broken,
    last_line,
    loss_path,
    told,
)
from brickyard.report.wording import count, epochs, number, plural, setting


def diverged(f: Facts) -> Verdict | None:
    """Speak when a loss ended non-finite, or the training loss far above where it had begun."""
    loss = f.history.get("train", "loss")
    evidence: list[str] = []
    if ends_broken(loss):
        bad = ~np.isfinite(loss.value)
        start = len(bad) - int(np.argmin(bad[::-1])) if not bad.all() else 0
        sentence = f"the loss stopped being a finite number at step {count(loss.step[start])}."
        evidence.append(f"{count(bad.sum())} of {plural(len(loss), 'training row')} not finite.")
    elif ends_broken(f.history.get("val", "loss")):
        sentence = "the validation loss is no longer a finite number."
    elif f.loss_counts and (rose := rise(loss.finite.value)) is not None:
        start, low, end = rose
        sentence = f"the training loss rose to {number(end)}; it began at {number(start)}."
        evidence.append(f"Its lowest on the way was {number(low)}.")
    elif f.exit_reason == "failed" and re.search(r"\bnan\b|non-?finite|not finite", f.error, re.I):
        own = re.search(r"Diverged: ([^;]+)", f.error)  # what to do about it stands below
        sentence = f"{own[1]}." if own else f"the run stopped: {last_line(f.error)}"
    else:
        return None
    evidence = [loss_path(loss), *evidence, _gradient_peak(f)]
    return Verdict("diverged", "bad", "Diverged", sentence, told(evidence), _calmer(f))


def _gradient_peak(f: Facts) -> str:
    norm = f.history.get("train", "grad_norm").finite
    if len(norm) < 4:
        return ""
    usual, peak = float(np.median(norm.value)), int(norm.value.argmax())
    if not norm.value[peak] > 10 * usual > 0:
        return ""
    return (
        f"Gradient norm: {number(usual)} in the median, {number(norm.value[peak])} "
        f"at step {count(norm.step[peak])}."
    )


def _calmer(f: Facts) -> str:
    loss = f.history.get("train", "loss")
    if len(loss) and not len(loss.finite):
        return (
            "Look at one batch by hand: inputs and targets finite, scaled, and in the range that "
            "the loss expects."
        )
    rate = f.peak_lr
    lower = (
        f"Lower the peak learning rate from {setting(rate)} to {setting(rate / 5, 2)}"
        if rate
        else "Lower the learning rate to a fifth"
    )
    return lower + ("." if f.clips else ", and clip the gradient's global norm at 1.0.")


def failed(f: Facts) -> Verdict | None:
    """Speak when the run ended with an error."""
    if f.exit_reason != "failed":
        return None
    step = f.history.last_step
    where = f"after {plural(step, 'step')}" if step else "before the first step"
    text = f.error.lower()
    if re.search(r"out of memory|memoryerror|can't allocate|unable to allocate", text):
        advice = "Halve the batch size and double the accumulation steps: the same mathematics."
    elif re.search(r"shape|dimension|size mismatch|must match the size", text):
        advice = "Compare the shape of one input with what the model's first layer takes."
    elif re.search(r"dataloader|worker", text):
        advice = "Run with no loader workers: the error then shows where it was raised."
    else:
        advice = "Run brickyard recipe check: it finds before training all that a recipe can tell."
    sentence = f"{where}: {last_line(f.error) or 'no reason was written.'}"
    return Verdict("failed", "bad", "Failed", sentence, told([best_so_far(f)]), advice)


def unmeasured(f: Facts) -> Verdict | None:
    """Speak when no metric was written."""
    if f.history:
        return None
    if f.exit_reason:
        return Verdict("unmeasured", "none", "No measurements", "the run wrote no metrics.")
    again = f"Build the page again when the run has ended: brickyard report {f.path}"
    return Verdict("unmeasured", "none", "Not finished", "nothing is measured yet.", (), again)


def interrupted(f: Facts) -> Verdict | None:
    """Speak when somebody or something stopped the run, or it has not ended."""
    if f.exit_reason not in ("interrupted", ""):
        return None
    of = f" of {epochs(f.budget_epochs)}" if f.budget_epochs else ""
    at = f"in epoch {math.floor(f.history.last_epoch) + 1}{of}"
    evidence = told([best_so_far(f), loss_path(f.history.get("train", "loss"))])
    advice = f"Continue where it stopped: brickyard resume {f.path}"
    if f.exit_reason:
        sentence = f"stopped {at}, and saved."
        return Verdict("interrupted", "warn", "Interrupted", sentence, evidence, advice)
    sentence = f"the last measurement is {at}; the run still goes on, or was killed."
    return Verdict("interrupted", "warn", "Not finished", sentence, evidence, advice)


def unvalidated(f: Facts) -> Verdict | None:
    """Speak when the monitored metric was never measured on validation data."""
    if f.evaluations:
        return None
    return Verdict(
        "unvalidated", "warn", "Not validated",
        f"{plural(f.history.last_step, 'step')} of training, and no {f.monitor_words}.",
        told([loss_path(f.history.get("train", "loss"))]),
        "Train up to the first evaluation: a training loss says nothing about new data.",
    )  # fmt: skip


def short(f: Facts) -> Verdict | None:
    """Speak when there are too few evaluations for a trend."""
    if f.evaluations >= 4:
        return None
    stand = f"{f.monitor_words} is {f.show(f.best)} after {plural(f.evaluations, 'evaluation')}."
    return Verdict("short", "none", "Too short to judge", stand, told([against(f), chance(f)]),
                   "Evaluate at least four times: a trend needs that many points.")  # fmt: skip
