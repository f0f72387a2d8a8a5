"""Judge a run in words: what happened, the evidence in numbers, the cheapest thing to try next.

Every rule is a pure function from :class:`Facts` to a :class:`Verdict` or None; :func:`judge` takes
the first that speaks. A difference counts only when it is larger than the noise: the standard error
of an accuracy over the validation samples, or the scatter of the last evaluations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from brickyard.reading import settled, unsteady
from brickyard.report.facts import Facts
from brickyard.report.mishaps import diverged, failed, interrupted, short, unmeasured, unvalidated
from brickyard.report.phrases import Verdict, against, chance, ends_broken, gap, told
from brickyard.report.wording import (
    count,
    duration,
    epochs,
    join,
    metric,
    number,
    percent,
    plural,
    words,
)
from brickyard.report.yardsticks import constant, ideal, yardsticks

__all__ = ["Verdict", "judge", "notes"]


def judge(facts: Facts) -> Verdict:
    """Return the verdict on a run: of the first rule that has one."""
    rules: tuple[Callable[[Facts], Verdict | None], ...] = (
        diverged, failed, unmeasured, interrupted, unvalidated, short, not_learning, overfit,
        worsened, still_improving, underfit, overconfident, noisy, stopped_early, plateau,
    )  # fmt: skip
    for rule in rules:
        verdict = rule(facts)
        if verdict is not None:
            return verdict
    return healthy(facts)


# -- runs that ended ------------------------------------------------------------------------------


def not_learning(f: Facts) -> Verdict | None:
    """Speak when the validation result is no better than a constant answer."""
    same = constant(f)
    if same is None:
        return None
    whole = abs(ideal(f.monitor) - same[0])
    if f.gain(f.best, same[0]) > max(2 * f.noise, 0.02 * whole):
        return None
    loss = f.history.get("train", "loss")
    start, end = (float(np.median(v)) if len(v) else math.nan
                  for v in (loss.head(0.05, 2), loss.tail(0.1, 2)))  # fmt: skip
    went = f"Training loss: {number(start)} at first, {number(end)} at last."
    evidence = told([against(f), went if len(loss.finite) else ""])
    if start > 0 and end < 0.5 * start:
        return Verdict(
            "unrelated", "bad", "Nothing carries over",
            "training data was learned, validation data is answered as if by chance.", evidence,
            "Check that inputs and targets stay paired: shuffled labels look exactly like this.",
        )  # fmt: skip
    return Verdict(
        "not_learning", "bad", "Did not learn",
        f"{f.monitor_words} of {f.show(f.best)} is what {same[1]} gets.", evidence,
        "Train on one batch of 32 samples until its loss is near zero: if that fails, the fault "
        "is in the model, the loss or the learning rate, not in the data.",
    )  # fmt: skip


def overfit(f: Facts) -> Verdict | None:
    """Speak when the monitored value got worse after its best while training went on improving."""
    if not (_got_worse(f) and f.loss_counts):
        return None
    fell = _training_fall(f, f.best_epoch)
    train, val = f.train_at("loss", f.history.last_epoch), f.val_loss_at_best
    if fell is None and not train < 0.5 * val:
        return None
    epoch = epochs(f.best_epoch)
    why = "while the training loss went on falling." if fell else "with the training data learned."
    path = (
        f"Training loss over the same epochs: {number(fell[0])} to {number(fell[1])}."
        if fell
        else f"Training loss at the end: {number(train)}; best validation loss: {number(val)}."
    )
    kept = f"The kept weights are those of epoch {epoch}: nothing is lost but time."
    return Verdict("overfit", "warn", "Overfits", f"{_worsening(f)}, {why}",
                   told([path, kept, chance(f)]), _regularise(f))  # fmt: skip


def _got_worse(f: Facts) -> bool:
    """Say whether the monitored value ended below its best by more than noise."""
    # The best of many noisy values is too good to be true: its neighbours temper it.
    values, i = f.monitored.value, f.best_index
    lost = f.gain(float(values[max(0, i - 1) : i + 2].mean()), float(values[-3:].mean()))
    return lost > max(2 * f.noise, 3 * f.scatter, 0.005 if f.share else 0.03 * abs(f.best))


def _worsening(f: Facts) -> str:
    went = "rose" if f.mode == "min" else "fell"
    return (
        f"{f.monitor_words} {went} from {f.show(f.best)} to {f.show(f.final)} "
        f"after epoch {epochs(f.best_epoch)}"
    )


def worsened(f: Facts) -> Verdict | None:
    """Speak when the monitored value got worse after its best, and training did not improve."""
    if not _got_worse(f):
        return None
    before, after = f.train_at("loss", f.best_epoch), f.train_at("loss", f.history.last_epoch)
    path = f"Training loss over the same epochs: {number(before)} to {number(after)}."
    known = f.loss_counts and not math.isnan(before + after)
    also = ", and training did not improve either." if f.loss_counts else "."
    return Verdict(
        "worsened", "warn", "Got worse", f"{_worsening(f)}{also}",
        told([path if known else "", chance(f)]),
        "Let the learning rate fall towards zero at the end: what was reached is not held.",
    )  # fmt: skip


def _training_fall(f: Facts, since: float) -> tuple[float, float] | None:
    """Return the training loss at ``since`` and at the end, if it fell beyond doubt."""
    first, last = (f.train_near("loss", e) for e in (since, f.history.last_epoch))
    if not (len(first) and len(last)):
        return None
    fall = float(first.mean() - last.mean())
    doubt = math.hypot(first.std() / math.sqrt(len(first)), last.std() / math.sqrt(len(last)))
    if fall <= max(0.02 * abs(float(first.mean())), 3 * doubt):
        return None
    return float(np.median(first)), float(np.median(last))


def _regularise(f: Facts) -> str:
    if f.images and not f.recipe.get("augmentation"):
        return "Augment: shifts, crops and flips that keep the label are the cheapest cure."
    if f.dropout < 0.1:
        return "Add dropout of 0.2 before the last layer, or triple the weight decay."
    return "More data, or half the model: dropout is in use already."


def still_improving(f: Facts) -> Verdict | None:
    """Speak when the budget ended while the monitored value was still getting better."""
    values = f.monitored.value
    if f.exit_reason != "budget":
        return None
    recent = values[-max(4, math.ceil(len(values) / 4)) :]
    slope = float(np.polyfit(np.arange(len(recent)), recent, 1)[0])
    gained = f.gain(slope, 0.0) * (len(recent) - 1)
    late = f.best_index >= len(values) - max(1, len(recent) // 2)
    bar = max(f.noise, 3 * f.scatter, 0.002 if f.share else 0.02 * abs(f.best))
    if not (late and gained > bar):
        return None
    going = "rising" if f.mode == "max" else "falling"
    factor = f"budget={epochs(2 * f.budget_epochs)}ep" if f.budget_epochs else "twice the budget"
    time = f" (about {duration(2 * f.total_seconds)})" if f.total_seconds else ""
    return Verdict(
        "still_improving", "good", "Still improving",
        f"{f.monitor_words} reached {f.show(f.best)} and was {going} when the budget ended.",
        told([f"Last {plural(len(recent), 'evaluation')}: {f.show(recent[0])} to "
               f"{f.show(recent[-1])}.", chance(f)]),
        f"Train longer: {factor}{time}.",
    )  # fmt: skip


def underfit(f: Facts) -> Verdict | None:
    """Speak when training stays poor too, and validation equals it."""
    for yard in yardsticks(f):
        whole = abs(yard.ideal - yard.constant)
        way = abs(yard.train - yard.constant) / whole
        forward = (yard.train - yard.constant) * (yard.ideal - yard.constant) > 0
        if way >= 0.6 or not forward or abs(yard.train - yard.val) >= 0.1 * whole:
            continue
        train, val, same, best = (
            metric(yard.metric, v) for v in (yard.train, yard.val, yard.constant, yard.ideal)
        )
        return Verdict(
            "underfit", "warn", "Underfits",
            f"{words(yard.metric)} in training and validation agree ({train} and {val}), "
            "at a low level." if yard.ideal else
            f"{words(yard.metric)} in training and validation agree ({train} and {val}), "
            "far from zero.",
            (f"{yard.how.capitalize()} gets {same}: training went {percent(way, 0)} of the way "
             f"from there to {best}.",
             "Noisy labels, or inputs without the answer in them, look the same."),
            "Double the model's width, or the learning rate: whichever is cheaper to run first.",
        )  # fmt: skip
    return None


def overconfident(f: Facts) -> Verdict | None:
    """Speak when the validation loss rises after its minimum while the monitored metric holds."""
    loss = f.history.get("val", "loss").finite
    if f.monitor == "loss" or len(loss) < 4 or f.task != "classification":
        return None
    at = float(loss.epoch[loss.value.argmin()])
    low, end = float(loss.value.min()), float(np.median(loss.value[-2:]))
    real = end > 1.25 * low > 0 and end - low > 2 * f.loss_noise
    if not real or _training_fall(f, at) is None:
        return None
    return Verdict(
        "overconfident", "warn", "Overconfident",
        f"{f.monitor_words} held at {f.show(f.best)}, but the validation loss rose by "
        f"{percent(end / low - 1, 0)} after epoch {epochs(at)}: its mistakes get more certain.",
        (f"Validation loss: {number(low)} at its lowest, {number(end)} at the end.",
         f"{f.monitor_words.capitalize()} at the end: {f.show(f.final)}."),
        "Label smoothing of 0.1; until then, do not read the confidences as probabilities.",
    )  # fmt: skip


def stopped_early(f: Facts) -> Verdict | None:
    """Speak when early stopping ended the run and nothing got worse."""
    if f.exit_reason != "early_stop":
        return None
    since = plural(f.evaluations - 1 - f.best_index, "evaluation")
    of = f" of {epochs(f.budget_epochs)}" if f.budget_epochs else ""
    return Verdict(
        "stopped_early", "good", "Stopped early",
        f"{_peak(f)}; {since} without a better one ended the run, as asked.",
        told([f"Ended in epoch {epochs(f.history.last_epoch)}{of}.", chance(f), gap(f)]),
        "Set the schedule to end at this length: the low rate at its end usually gains a little.",
    )  # fmt: skip


def _peak(f: Facts) -> str:
    verb = "peaked at" if f.mode == "max" else "was lowest at"
    return f"{f.monitor_words} {verb} {f.show(f.best)} in epoch {epochs(f.best_epoch)}"


def noisy(f: Facts) -> Verdict | None:
    """Speak when the monitored value jumps about more than its trend and its samples explain."""
    values = f.monitored.value
    found = unsteady(values, 3 * f.sampling)  # from ten values, chance doubles it
    if found is None:
        return None
    middle = float(np.median(values[-found.count :]))
    return Verdict(
        "noisy", "warn", "Noisy",
        f"over the last {plural(found.count, 'evaluation')}, {f.monitor_words} scattered by "
        f"{f.show_gap(found.spread)} around its trend, which went {f.show_gap(found.trend)}.",
        told([f"The best of them, {f.show(f.best)} in epoch {epochs(f.best_epoch)}, is luck in "
              f"part: their median is {f.show(middle)}.", chance(f)]),
        _steadier(f),
    )  # fmt: skip


def _steadier(f: Facts) -> str:
    if "return" in f.monitor or "reward" in f.monitor:
        return "Average more episodes in each evaluation, then repeat the run with other seeds."
    if not f.recipe.get("schedule"):
        held = "it is constant, and small last steps hold what was reached."
        return f"Let the learning rate fall to zero (a cosine schedule): {held}"
    return "Halve the learning rate, double the batch, or evaluate an average of the weights (EMA)."


def plateau(f: Facts) -> Verdict | None:
    """Speak when the first third of the run reached all there was to gain."""
    values = f.monitored.value
    bar = max(f.noise, 0.002 if f.share else 0.01 * abs(f.best))
    reached = settled([f.gain(v, 0.0) for v in values], bar)
    epoch = float(f.monitored.epoch[reached])
    spare = 1 - epoch / f.history.last_epoch
    if len(values) < 6 or spare < 2 / 3:
        return None
    time = f", {duration(f.total_seconds * spare / 2)}" if f.total_seconds else ""
    return Verdict(
        "plateau", "good", "Plateau",
        f"from epoch {epochs(epoch)} on, {f.monitor_words} stayed within noise of its best, "
        f"{f.show(f.best)}.",
        told([f"Epoch {epochs(epoch)}: {f.show(values[reached])}; best, epoch "
               f"{epochs(f.best_epoch)}: {f.show(f.best)}; end: {f.show(f.final)}.", chance(f)]),
        f"A shorter schedule does as well and saves {percent(spare / 2, 0)} of the time{time}: "
        "spend it on a bigger model or on other seeds.",
    )  # fmt: skip


def healthy(f: Facts) -> Verdict:
    """Say that all is well, with the peak and what came after it."""
    stayed = "." if f.best_index == f.evaluations - 1 else " and stayed."
    evidence = told([f"At the end: {f.show(f.final)}.", gap(f), chance(f)])
    return Verdict("healthy", "good", "Healthy", _peak(f) + stayed, evidence, _next(f))


def _next(f: Facts) -> str:
    train, val = f.train_at("loss", f.best_epoch), f.val_loss_at_best
    if (
        f.gain(f.train_monitor, f.best) > max(3 * f.noise, 0.02 * abs(f.best))
        or val > 3 * train > 0
    ):
        return f"What is left to win is the gap to the training data. {_regularise(f)}"
    return "Repeat it with two other seeds before comparing it to anything: one run is one draw."


def notes(f: Facts) -> list[str]:
    """Return what else is worth knowing, whatever the verdict."""
    return list(
        told([_found(f), _recovered(f), _starved(f), _silent_classes(f), _better_than_training(f)])
    )


def _found(f: Facts) -> str:
    """Name what the doctor found beyond doubt: it comes before every advice on the curves."""
    findings = f.summary.get("findings")
    grave = [one for one in findings if isinstance(one, Mapping) and one.get("severity") == "error"
             ] if isinstance(findings, list) else []  # fmt: skip
    if not grave:
        return ""
    names = join(list(dict.fromkeys(str(one.get("check")) for one in grave))[:4])
    return f"The doctor found {plural(len(grave), 'error')}, to be mended before all else: {names}."


def _recovered(f: Facts) -> str:
    loss = f.history.get("train", "loss")
    bad = ~np.isfinite(loss.value)
    if not bad.any() or ends_broken(loss):
        return ""
    rows = plural(int(bad.sum()), "training row")
    first = count(loss.step[bad.argmax()])
    return f"{rows} not finite, first at step {first}; the loss recovered."


def _starved(f: Facts) -> str:
    share = f.seconds.get("data", 0.0) / (f.total_seconds or math.inf)
    if share < 0.4:
        return ""
    return (
        f"{percent(share, 0)} of the time was spent waiting for data: loader workers, or data "
        "decoded once and kept, shorten the run."
    )


def _silent_classes(f: Facts) -> str:
    if not f.unpredicted:
        return ""
    more = len(f.unpredicted) - 4
    names = [*f.unpredicted[:4], *([f"{more} more"] if more > 0 else [])]
    return f"Never predicted, though they occur: {join(names)}."


def _better_than_training(f: Facts) -> str:
    if not f.share or not f.gain(f.best, f.train_monitor) > max(3 * f.noise, 0.02):
        return ""
    return (
        f"Validation ({f.show(f.best)}) beats training ({f.show(f.train_monitor)}): dropout and "
        "augmentation do that, and so do samples that are in both splits."
    )
