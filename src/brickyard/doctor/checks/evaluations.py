"""Checks of evaluations: predictions that collapsed, and what they say about generalization."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from statistics import fmean

from brickyard.doctor import thresholds as T
from brickyard.doctor.checks.card import Say, check
from brickyard.doctor.checks.course import alone, criteria
from brickyard.doctor.observe.record import EvaluationSeen, LossSeen, Round, Seen, Series


@check(
    59, "collapse", "warning", weight=0.4,
    sees="answers of a supervised model, in evaluations and in training: a single class, or hardly "
    "any spread where the targets have some",
    why="The model answers alike whatever it is given, although the labels differ.",
    try_="Look at the rate, at class weights and at the first errors above.",
    allows="models in their first epoch, single evaluations, tasks in which one class has nine "
    "tenths of the labels, evaluations of fewer than 32 samples",
    source="Goodfellow et al., Deep Learning, chapter 11",
)  # fmt: skip
def collapse(seen: Seen) -> Iterable[Say]:
    """Report predictions that are all alike."""
    for site in seen.evaluations.values():
        last = [r for r in site.rounds if r.full and r.rows >= T.COLLAPSE_ROWS][-T.IN_ROW :]
        if len(last) < T.IN_ROW or 0 < last[0].epoch < 2:
            continue
        said = [_alike(one) for one in last]
        if all(said):
            yield Say(
                f"In the last {len(last)} evaluations (up to step {last[-1].step}) {said[-1]}.",
                site.function, site.place,
            )  # fmt: skip
            return
    for note in seen.of("one-answer"):
        v = note.values
        if note.count >= T.LOOKS and seen.epoch >= 2:
            yield Say(
                f"At the last {note.count} looks {note.where} answered {v['answer']} to all "
                f"{v['samples']} samples of a training batch with {v['labels']} different labels.",
                note.where, note.place,
            )  # fmt: skip


def _alike(one: Round) -> str:
    """Say how the answers of an evaluation are all alike; nothing when they are not."""
    if one.counts is not None:
        answers, labels = one.counts
        share = float(labels.max()) / max(int(labels.sum()), 1)
        if int((answers > 0).sum()) == 1 and share < T.COLLAPSE_LABEL:
            return (
                f"all {int(answers.sum())} samples were answered with class "
                f"{int(answers.argmax())}, while there are {int((labels > 0).sum())} different "
                f"labels, the most frequent one with {share:.0%}"
            )
    if one.sums is not None and one.rows > 1:
        means, squares = one.sums / one.rows
        spread = (squares - means * means).clamp(min=0.0).mean(1).sqrt().tolist()
        if spread[1] > 0.0 and spread[0] < T.COLLAPSE * spread[1]:
            return (
                f"the outputs for {one.rows} samples deviated by {spread[0]:.2g}, the targets by "
                f"{spread[1]:.3g}"
            )
    return ""


@check(
    60, "generalisation", "warning", weight=0.5,
    sees="(a) evaluation losses that stopped falling while training goes on, (b) or that are "
    "better than training's; (c) evaluations at chance while training is right; (d) the same order "
    "of samples in every epoch from a sampler that shuffles; (e) averaged weights that are kept up "
    "to date and never used",
    why="What is learned does not carry over to other data, or is not measured as it should be.",
    try_="Compare what training and evaluation are given.",
    allows="(a) and (b) are information; (b) models with dropout or batch norm, augmented or "
    "weighted training; (c) evaluations of fewer than 100 samples, tasks in which one class has "
    "most labels; (d) loaders that go in order on purpose or are made anew for each run; (e) "
    "averages that are evaluated or saved; evaluations without a loss function of torch are not "
    "seen",
    source="pytorch/pytorch#31771, pengzhiliang/MAE-pytorch#31; Zhang et al. 2017, Understanding "
    "deep learning requires rethinking generalization",
)  # fmt: skip
def generalisation(seen: Seen) -> Iterable[Say]:
    """Report what makes a model worse on other data than it could be, or seem better."""
    yield from _same_order(seen)
    for note in seen.of("average-unused"):
        yield Say(
            f"{note.where} was updated in training {note.values['updates']} and never evaluated, "
            "copied back or saved.",
            note.where, note.place, severity="info",
            why="An average that nobody evaluates or saves is lost with the run.",
            try_="Evaluate and save the averaged model, or leave the average out.",
        )  # fmt: skip
    series, losses = alone(seen), criteria(seen)
    for site in seen.evaluations.values():
        matching = [x for x in losses if x.function == site.function]
        if series is None or len(losses) != 1 or not matching:
            continue
        loss = matching[0]
        if loss.facts.get("reduction") != "mean" or not loss.facts.get("plain"):
            continue
        at_chance = list(_at_chance(site, loss, series))
        yield from at_chance
        if not at_chance:
            yield from _stale(seen, site, series)
            yield from _better(seen, site, loss, series)


def _same_order(seen: Seen) -> Iterable[Say]:
    """Report orders that repeat, from samplers that shuffle."""
    for loader in seen.loaders:
        orders, facts = loader.orders, loader.facts
        if not loader.training or len(orders) < 2 or facts.get("in_order"):
            continue
        if facts.get("drawn") and orders[0] == orders[1] and _varied(loader.labels, facts):
            yield Say(
                f"{facts['sampler']} gave the samples in the same order in epochs 1 and 2 "
                f"({loader.ends[0]} batches of {facts.get('batch_size')}, compared one by one).",
                "data", loader.place,
                why="Without set_epoch a distributed sampler repeats one order: every epoch has "
                "the same batches.",
                try_="sampler.set_epoch(epoch) at the beginning of each epoch.",
            )  # fmt: skip


def _varied(labels: dict[int, int], facts: dict[str, object]) -> bool:
    """Say whether an order could be told from another one by chance."""
    size = facts.get("size") or 0
    return isinstance(size, int) and size >= 16 and (not labels or len(labels) > 1)


def _between(series: Series, begin: int, end: int) -> list[float]:
    """Return the training losses of the steps between two evaluations."""
    first, last = bisect_left(series.steps, begin), bisect_left(series.steps, end)
    return [v for v in series.values[first:last] if v - v == 0.0]


def _at_chance(site: EvaluationSeen, loss: LossSeen, series: Series) -> Iterable[Say]:
    """Report evaluations that guess while training knows."""
    full = [r for r in site.rounds if r.counts is not None and r.rows >= T.CHANCE_ROWS]
    if len(full) < T.IN_ROW or not any(_guesses(r) for r in full[-1:]):
        return
    if not all(_guesses(r) for r in full):
        return
    looks = loss.facts.get("right", ())
    seen_ = sum(n for _, n in looks)
    share = sum(r for r, _ in looks) / max(seen_, 1)
    recent = [v for v in series.values[-50:] if v - v == 0.0]
    # a wrong answer to one of several classes costs ln 2 at the least
    sure = 1.0 - fmean(recent) / math.log(2) if recent and not loss.facts.get("options") else 0.0
    if max(share if seen_ >= 64 else 0.0, sure) < T.CHANCE_TRAIN:
        return
    right = (
        f"{share:.0%} of {seen_} samples of the last looks"
        if seen_ >= 64 and share >= sure
        else f"at least {sure:.0%} of samples (the loss is {fmean(recent):.2g})"
    )
    one = full[-1]
    labels = one.counts[1]
    yield Say(
        f"In training {right} are answered right; in all {len(full)} evaluations no more than by "
        f"chance: {one.right / one.rows:.1%} of {one.rows} in the last one, where the most "
        f"frequent label has {float(labels.max()) / one.rows:.1%}.",
        site.function, site.place,
        why="Training learns by heart what does not hold for other samples: labels are shuffled, "
        "or inputs and labels do not belong together, in training or in evaluation.",
        try_="Look at some pairs of input and label from both loaders; was one of them permuted, "
        "sorted, filtered or encoded on its own?",
    )  # fmt: skip


def _guesses(one: Round) -> bool:
    labels = one.counts[1]
    chance = float(labels.max()) / max(int(labels.sum()), 1)
    error = math.sqrt(chance * (1.0 - chance) / one.rows)
    return chance < T.CHANCE_LABEL and one.right / one.rows < chance + T.CHANCE_ERRORS * error


def _stale(seen: Seen, site: EvaluationSeen, series: Series) -> Iterable[Say]:
    """Report evaluation losses whose minimum is long past, while training goes on."""
    rounds = [r for r in site.rounds if r.loss - r.loss == 0.0]
    if len(rounds) <= T.STALE_ROUNDS:
        return
    best = min(range(len(rounds)), key=lambda i: rounds[i].loss)
    low, last = rounds[best], rounds[-1]
    since = len(rounds) - 1 - best
    if since < T.STALE_ROUNDS or (seen.epoch and last.epoch - low.epoch < T.STALE_ROUNDS):
        return
    before = _between(series, rounds[best - 1].step if best else 0, low.step)
    now = _between(series, rounds[-2].step, last.step)
    if not before or not now or fmean(before) <= 0.0:
        return
    fall = 1.0 - fmean(now) / fmean(before)
    if fall > T.STALE_FALL and last.loss > low.loss:
        yield Say(
            f"The evaluation loss was lowest after step {low.step} ({low.loss:.4g}) and is "
            f"{last.loss:.4g} after {since} more evaluations, while the training loss fell from "
            f"{fmean(before):.4g} to {fmean(now):.4g}.",
            site.function, site.place, severity="info",
            why="The model overfits: since then it has learned what holds for the training samples "
            "alone.",
            try_="Keep the weights of the best evaluation, or stop there; then more data, "
            "augmentation, weight decay, dropout, a smaller model.",
        )  # fmt: skip


def _better(seen: Seen, site: EvaluationSeen, loss: LossSeen, series: Series) -> Iterable[Say]:
    """Report evaluations that are easier than the epoch of training that follows them."""
    if loss.facts.get("options") or any(_harder(m.facts) for m in seen.modules.values()):
        return
    train = [x for x in seen.loaders if x.training]
    plain = all(
        x.facts.get("sampler") in ("RandomSampler", "SequentialSampler")
        and x.facts.get("compared") and not x.facts.get("changing")
        for x in train
    )  # fmt: skip
    if not train or not plain or site.loader < 0:
        return
    size, count = train[0].facts.get("batch_size") or 1, 0
    for one, following in zip(site.rounds, site.rounds[1:], strict=False):
        losses = _between(series, one.step, following.step)
        if len(losses) < 8:
            return
        mean = fmean(losses)
        spread = math.sqrt(fmean((x - mean) ** 2 for x in losses))  # pstdev takes 50 times as long
        error = spread * math.sqrt(1 / len(losses) + size / max(one.rows, 1))
        clear = mean - one.loss > T.BETTER_ERRORS * error
        count = count + 1 if clear and one.loss < (1.0 - T.BETTER) * mean else 0
        if count == T.BETTER_ROUNDS:
            yield Say(
                f"The evaluation after step {one.step} has a loss of {one.loss:.4g}, the "
                f"{len(losses)} training steps that follow one of {mean:.4g}, although nothing "
                f"makes training harder (no dropout, batch norm or augmentation was seen); so in "
                f"{count} evaluations.",
                site.function, site.place, severity="info",
                why="Evaluation data that are easier than training data are often training data: "
                "copies, near duplicates, or features computed from the labels.",
                try_="Look for samples of one origin (patient, video, document) in both parts.",
            )  # fmt: skip
            return


def _harder(facts: dict[str, object]) -> bool:
    return bool(facts.get("p")) or "tracks" in facts
