"""Read a run's losses at its end: a verdict in words, its evidence, the cheapest thing to try next.

What to try follows the ladder of debugging: overfit one batch, compare the first loss with that of
knowing nothing, read the curve, sweep the rate, look at norms. Findings come before all of these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.course import _constant, alone
from brickyard.doctor.finding import Finding
from brickyard.doctor.observe.record import LossSeen, Seen, Series
from brickyard.reading import Verdict, rise, settled, spread, unsteady

__all__ = ["read"]

_LADDER = "brickyard.doctor.preflight(model, loss, batch)"


class _Window(NamedTuple):
    """The mean loss of an epoch, or of some steps where epochs are few or unknown."""

    name: str
    mean: float


@dataclass
class _Curve:
    """Hold what is known of one run's loss."""

    values: np.ndarray  # of single steps; may hold what is not finite
    windows: list[_Window]
    unit: str
    valid: list[tuple[str, float]]  # evaluations: when, mean loss
    constant: tuple[float, str] | None  # the loss of the best constant answer

    @property
    def means(self) -> np.ndarray:
        return np.asarray([w.mean for w in self.windows])

    @property
    def start(self) -> float:
        """Return the loss at first: of a few steps, for single ones are noisy."""
        good = self.values[np.isfinite(self.values)]
        return float(np.median(good[: max(1, min(5, len(good) // 20))])) if len(good) else math.nan

    @property
    def end(self) -> float:
        """Return the loss at last."""
        good = self.values[np.isfinite(self.values)]
        return float(np.median(good[-max(5, len(good) // 10) :])) if len(good) else math.nan

    @property
    def path(self) -> str:
        """Say how the training loss went."""
        return f"The training loss went from {self.start:.4g} to {self.end:.4g}."


def read(seen: Seen, findings: Sequence[Finding] = ()) -> Verdict | None:
    """Return the verdict on a run's curves; None where no loss was seen, or several that compete.

    Args:
        seen: what was observed.
        findings: what the checks made of it: the first grave one is what to mend first.
    """
    series = alone(seen)
    if series is None:
        return None
    curve = _curve(seen, series)
    names = {f.check for f in findings if f.severity != "info"}
    for rule in _RULES:
        verdict = rule(curve, names)
        if verdict is not None:
            break
    else:
        verdict = _healthy(curve, names)
    grave = next((f for f in findings if f.severity != "info"), None)
    if grave is None:
        noted = any(f.check == "generalisation" for f in findings)
        if noted and verdict.tone == "good":  # of training alone: what was noted stands beside it
            sentence = f"in training, {verdict.sentence} Of the evaluations see the note above."
            return replace(verdict, sentence=sentence)
        return verdict
    first = f"First mend what was found above, {grave.check} before all: {grave.try_}"
    if verdict.tone in ("good", "none"):
        went = f"the training loss went from {curve.start:.4g} to {curve.end:.4g}"
        sentence = f"{went}; what it could reach shows when the fault is mended."
        return Verdict("unjudged", "warn", "Not judged yet", sentence, (), first)
    return Verdict(verdict.kind, verdict.tone, verdict.label, verdict.sentence, verdict.evidence,
                   first)  # fmt: skip


# --- What is known --------------------------------------------------------------------------------


def _curve(seen: Seen, series: Series) -> _Curve:
    values = np.asarray(series.values, dtype=np.float64)
    windows, unit = _windows(values, np.asarray(series.steps), seen.epoch_steps)
    losses = list(seen.losses.values())
    plain = len(losses) == 1 and losses[0].facts.get("reduction") == "mean"
    constant = _constant(losses[0]) if plain and _readable(losses[0]) else None
    return _Curve(values, windows, unit, _validation(seen, losses), constant)


def _readable(loss: LossSeen) -> bool:
    """Say whether a loss is comparable with that of a constant answer."""
    return not loss.facts.get("options") and "tokens" not in loss.facts


def _windows(
    values: np.ndarray, steps: np.ndarray, begins: Sequence[int]
) -> tuple[list[_Window], str]:
    """Return mean losses by epoch when there are some of them, else by equal numbers of steps."""
    epochs = sorted({*begins})
    if len(epochs) >= T.CURVE_WINDOWS:
        edges = np.searchsorted(steps, epochs[1:])
        parts = np.split(values, edges)
        return [_Window(f"epoch {i}", _mean(p)) for i, p in enumerate(parts, 1) if len(p)], "epoch"
    size = max(T.CURVE_STEPS, math.ceil(len(values) / 20))
    parts = [values[i : i + size] for i in range(0, len(values) - size + 1, size)]
    names = [f"step {steps[min((i + 1) * size, len(steps)) - 1] + 1}" for i in range(len(parts))]
    return [_Window(n, _mean(p)) for n, p in zip(names, parts, strict=True)], f"{size} steps"


def _mean(values: np.ndarray) -> float:
    good = values[np.isfinite(values)]
    return float(good.mean()) if len(good) else math.nan


def _validation(seen: Seen, losses: Sequence[LossSeen]) -> list[tuple[str, float]]:
    """Return the evaluations by the training's own criterion, of the loader that has most."""
    used = {x.function for x in losses}
    fit = [e for e in seen.evaluations.values() if e.function in used or not used]
    passes = max((e.rounds for e in fit), key=len, default=[])
    if len(passes) == 1:  # a loader made anew for each evaluation
        first = next(e for e in fit if e.rounds is passes)
        line = [e for e in fit if (e.function, e.place) == (first.function, first.place)]
        passes = [r for e in line for r in e.rounds]
    rounds = [(f"epoch {r.epoch}" if seen.epoch > 1 else f"step {r.step}", r.loss)
              for r in passes if r.rows]  # fmt: skip
    return [(name, loss) for name, loss in rounds if math.isfinite(loss)]


# --- Rules, in order ------------------------------------------------------------------------------


def _diverged(c: _Curve, names: set[str]) -> Verdict | None:
    """Speak when the loss ended non-finite, or far above where it began."""
    bad = ~np.isfinite(c.values)
    rose = rise(c.values[~bad])
    if bad[-3:].all():
        at = int(np.argmax(bad))
        sentence = f"the loss is not a finite number from backward pass {at + 1} on."
        evidence = [c.path] if not bad.all() else []
    elif "divergence" in names and rose is not None:
        sentence = f"the loss rose to {rose[2]:.4g}; it began at {rose[0]:.4g}."
        evidence = [f"Its lowest on the way was {rose[1]:.4g}."]
    elif "divergence" in names:
        sentence, evidence = "the loss rose again and stayed high.", [c.path]
    else:
        return None
    return Verdict("diverged", "bad", "Diverged", sentence, tuple(evidence),
                   "Lower the rate to a fifth, and clip the gradient's norm at 1; with float16, "
                   "look at the loss scale.")  # fmt: skip


def _short(c: _Curve, names: set[str]) -> Verdict | None:
    """Speak when there are too few windows for a trend."""
    if len(c.windows) >= T.CURVE_WINDOWS:
        return None
    return Verdict("short", "none", "Too short to judge",
                   f"{len(c.values)} losses make no trend.", (c.path,),
                   f"What can be asked before training: {_LADDER}.")  # fmt: skip


def _overfit(c: _Curve, names: set[str]) -> Verdict | None:
    """Speak when the validation loss rose after its best while training went on falling."""
    losses = np.asarray([loss for _, loss in c.valid])
    if len(losses) < T.CURVE_WINDOWS or len(c.windows) < T.CURVE_WINDOWS:
        return None
    best = int(losses.argmin())
    low, end = float(np.median(losses[max(0, best - 1) : best + 2])), float(losses[-3:].mean())
    if best > len(losses) - 4 or end - low <= max(3 * spread(losses), T.OVERFIT_RISE * abs(low)):
        return None
    after = c.means[int(best / len(losses) * len(c.means)) :]
    before, last = float(after[0]), float(after[-1])
    fell = before - last > T.OVERFIT_FALL * abs(before)
    if not fell and not last < 0.5 * low:
        return None
    when = c.valid[best][0]
    return Verdict(
        "overfit", "warn", "Overfits",
        f"the validation loss rose from {losses[best]:.4g} ({when}) to {end:.4g}, while the "
        f"training loss {'fell' if fell else 'was'} {'to' if fell else 'at'} {last:.4g}.",
        (c.path, f"The best evaluation of {len(losses)} was that of {when}."),
        f"Keep the weights of {when} (early stopping); then dropout, weight decay, augmentation or "
        "more data.",
    )  # fmt: skip


def _underfit(c: _Curve, names: set[str]) -> Verdict | None:
    """Speak when the loss is at rest, not far below that of a constant answer."""
    if c.constant is None or c.constant[0] <= 0:
        return None
    level, what = c.constant
    way = (level - c.end) / level
    falls = _fall(c.means[-max(4, len(c.means) // 3) :]) > T.CURVE_FALL * level
    stuck = "not-learning" in names
    if not stuck and (way >= T.UNDERFIT_WAY or falls or len(c.values) < T.NOT_LEARNING_STEPS):
        return None
    return Verdict(
        "underfit", "warn", "Underfits",
        f"the training loss rests at {c.end:.4g}; a constant answer has {level:.4g}, {what}.",
        (f"It went {max(way, 0.0):.0%} of the way from there to zero.",
         "Noisy labels, or inputs without the answer in them, look the same."),
        f"See whether one batch can be learned by heart: {_LADDER} does, and sweeps the rate. "
        "Only then more width, or more steps.",
    )  # fmt: skip


def _noisy(c: _Curve, names: set[str]) -> Verdict | None:
    """Speak when losses scatter more than their trend goes."""
    losses = [loss for _, loss in c.valid]
    for told, values, unit in (
        ("validation loss", losses, "evaluation"),
        ("mean training loss", c.means, c.unit if c.unit == "epoch" else f"span of {c.unit}"),
    ):
        found = unsteady(values)
        if found is not None:
            return Verdict(
                "noisy", "warn", "Noisy",
                f"from one {unit} to the next, the {told} scatters by {found.spread:.3g} around "
                f"its trend.",
                (f"Over the last {found.count} values the trend itself went {found.trend:.3g}; "
                 f"since the first, {found.gained:.3g} was gained.",),
                "Let the rate fall to zero at the end, or halve it; then a larger batch, or an "
                "average of the weights.",
            )  # fmt: skip
    return None


def _plateau(c: _Curve, names: set[str]) -> Verdict | None:
    """Speak when the first third of the run reached all there was to gain, or nothing was."""
    means = c.means
    late = float(np.median(means[-max(2, len(means) // 3) :]))
    if c.start - late <= max(2 * spread(means), T.PLATEAU * abs(c.start)):
        return Verdict(
            "plateau", "warn", "Plateau", "the training loss did not fall.", (c.path,),
            f"See whether one batch can be learned by heart, and at which rate: {_LADDER}.",
        )  # fmt: skip
    bar = max(2 * spread(means), T.PLATEAU * abs(c.start - float(means.min())))
    reached = settled(-means, bar)
    if len(means) < 6 or reached >= len(means) / 3 or means.min() >= c.start:
        return None
    name = c.windows[reached].name
    return Verdict(
        "plateau", "good", "Plateau",
        f"from {name} on the training loss stayed at {float(np.median(means[reached:])):.4g}.",
        (c.path, f"Lowest mean of {'an epoch' if c.unit == 'epoch' else c.unit}: "
         f"{means.min():.4g}."),
        "A lower rate from there on, or an earlier end; if that level is too high, sweep the rate "
        f"({_LADDER}) before the model grows.",
    )  # fmt: skip


def _healthy(c: _Curve, names: set[str]) -> Verdict:
    """Say that all is well, and whether there was more to gain."""
    means = c.means
    late = means[-max(4, len(means) // 4) :]
    fall = _fall(late)
    evidence = [c.path]
    if c.valid:
        name, best = min(c.valid, key=lambda one: one[1])
        evidence.append(f"Best validation loss: {best:.4g} ({name}); last: {c.valid[-1][1]:.4g}.")
    if fall > max(2 * spread(means), T.CURVE_FALL * abs(c.start - float(means.min()))):
        spans = "epochs" if c.unit == "epoch" else f"spans of {c.unit}"
        return Verdict(
            "still_improving", "good", "Still improving",
            f"the training loss fell by {fall:.3g} over the last {len(late)} of {len(means)} "
            f"{spans}.",
            tuple(evidence), "Train longer: nothing says that this is the end.",
        )  # fmt: skip
    sentence = "the loss fell, and nothing went wrong on the way."
    return Verdict("healthy", "good", "Healthy", sentence, tuple(evidence),
                   "Repeat it with two other seeds before comparing it to anything: one run is one "
                   "draw.")  # fmt: skip


def _fall(late: np.ndarray) -> float:
    """Return how far means fell: twice the distance of the halves, for single ones are noisy."""
    half = len(late) // 2
    return 2 * float(late[:half].mean() - late[-half:].mean())


_RULES: tuple[Callable[[_Curve, set[str]], Verdict | None], ...] = (
    _diverged, _short, _overfit, _underfit, _noisy, _plateau,
)  # fmt: skip
