"""Add up what losses are given while nothing is trained: the evaluations of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.places import place_of, user_frame
from brickyard.doctor.observe.record import EvaluationSeen, Round
from brickyard.doctor.observe.tensors import tensors

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher

_CLASSES = ("cross_entropy", "nll_loss")
_BINARY = ("binary_cross_entropy", "binary_cross_entropy_with_logits")
_DISTANCES = ("mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss")
#: Evaluations closer to each other than this many steps are acting, not evaluating.
_APART = 4
_MOST_ROUNDS = 4096
#: Evaluations whose answers are always counted; later ones only within the doctor's share.
_FULL = 8
_MOST_CLASSES = 4096


class Evaluations:
    """Watch losses without a graph from the end of training steps to the next backward pass."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.open = False
        self._rounds: dict[Any, Round] = {}
        self._last = -_APART
        self._begun: dict[int, int] = {}  # loader: batches it had given when the evaluation began

    def begin(self) -> None:
        """Hear that an evaluation may begin: a mode was set, a loader began or ended."""
        w = self.w
        if self.open or not w.eager or not (w.optimizers.tracks or w.backwards.manual):
            return
        if w.seen.step - self._last < _APART:
            return
        self._last = w.seen.step
        self.open = True
        w.averages.compare()
        self._begun = {i.seen.index: i.seen.batches for i in w.data.known}
        w.functions.look(True, w.deep)

    def close(self) -> None:
        """End: training goes on."""
        if not self.open:
            return
        self.open = False
        self.w.averages.compare()
        if not self.w.deep:
            self.w.functions.look(False)
        for key, one in self._rounds.items():
            self.w.seen.evaluations[key].rounds.append(one)
        self._rounds = {}

    def lost(self, name: str, x: Any, y: Any, kwargs: dict[str, Any], result: Any) -> None:
        """Add one call of a loss function.

        Args:
            name: the function's name.
            x: its input.
            y: its target.
            kwargs: its named arguments.
            result: what it returned.
        """
        reduction = kwargs.get("reduction", "mean")
        if result.numel() != 1 or reduction not in ("mean", "sum") or y.ndim < 1:
            return
        loader = self._loader(y)
        if loader is None:
            return
        frame = user_frame(4)
        line = (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
        key = (name, line, loader)
        site = self.w.seen.evaluations.get(key)
        if site is None:
            site = self.w.seen.evaluations[key] = EvaluationSeen(name, place_of(frame), loader)
        one = self._rounds.get(key)
        if one is None:
            full = len(site.rounds) < _FULL or self.w.share < T.SHARE
            one = self._rounds[key] = Round(self.w.seen.step, self.w.seen.epoch, full)
            if len(site.rounds) > _MOST_ROUNDS:
                del site.rounds[1:-1:2]
        rows = y.shape[0]
        one.rows += rows
        value = result.detach()
        value = value if value.is_cuda else value.item()
        one.total += value * rows if reduction == "mean" else value
        if one.full:
            _answers(one, name, x.detach(), y.detach())

    def _loader(self, y: torch.Tensor) -> int | None:
        """Return which loader gave a target; -1 when none did, None for training data."""
        if self.w.data.last is None:
            return -1
        info, batch = self.w.data.last
        index = info.seen.index
        fresh = info.seen.batches > self._begun.get(index, 0)
        ours = any(t.data_ptr() == y.data_ptr() for t in tensors(batch) if t.numel())
        if not fresh and not ours:
            return -1
        return None if info.seen.training else index


def _answers(one: Round, name: str, x: torch.Tensor, y: torch.Tensor) -> None:
    """Count what was answered and what was asked."""
    if name in _CLASSES and x.ndim == 2 and y.ndim == 1 and not y.is_floating_point():
        classes = x.shape[1]
        if not 1 < classes <= _MOST_CLASSES:
            return
        used = (y >= 0) & (y < classes)
        _count(one, x.argmax(1)[used], y[used], classes)
    elif name in _BINARY and x.shape == y.shape and x.numel() == x.shape[0]:
        edge = 0.0 if name.endswith("logits") else 0.5
        _count(one, (x > edge).flatten().long(), (y > 0.5).flatten().long(), 2)
    elif name in _DISTANCES and x.shape == y.shape and x.numel() // x.shape[0] <= _MOST_CLASSES:
        both = torch.stack([x.double().flatten(1), y.double().flatten(1)]) if x.ndim > 1 else None
        both = torch.stack([x.double(), y.double()])[..., None] if both is None else both
        sums = torch.stack([both.sum(1), both.square().sum(1)])
        if one.sums is None:
            one.sums = sums
        elif one.sums.shape == sums.shape:
            one.sums = one.sums + sums


def _count(one: Round, answers: torch.Tensor, labels: torch.Tensor, classes: int) -> None:
    one.right += int((answers == labels).sum())
    counts = torch.stack([torch.bincount(v.cpu(), minlength=classes) for v in (answers, labels)])
    if one.counts is None:
        one.counts = counts
    elif one.counts.shape == counts.shape:
        one.counts = one.counts + counts
