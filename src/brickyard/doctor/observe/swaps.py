"""Watch for weights that an evaluation leaves behind, averages nobody uses, replicas apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brickyard.doctor.observe.functions import put_back
from brickyard.doctor.observe.tensors import sample

if TYPE_CHECKING:
    from brickyard.doctor.observe.track import Track
    from brickyard.doctor.observe.watcher import Watcher

#: Evaluations closer to each other than this many steps are acting, not evaluating.
_APART = 4
#: Parameters whose elements are compared at most: a swap changes all of them.
_PARAMETERS = 4
#: First steps after which replicas are compared.
REPLICA_STEPS = 4
#: Share of sampled weights that must have changed: pruning and clamping change few.
_CHANGED = 0.5


class Swaps:
    """Compare weights after the last step before an evaluation with those before the next step."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.after: dict[int, torch.Tensor] = {}
        self.evaluated: list[dict[int, torch.Tensor]] = []
        self.pending = False
        self.replicas: dict[int, dict[str, list[float]]] = {}
        self._last_step = -_APART
        self._rounds = 0  # evaluations so far
        self._moved = False  # in one of them the weights changed: each is looked into from then on

    def evaluating(self) -> None:
        """Hear that an evaluation begins, or goes on: remember the weights."""
        seen = self.w.seen
        if not self.w.optimizers.tracks:
            return
        if not self.pending:
            if seen.step - self._last_step < _APART:
                self._last_step = seen.step
                return
            self._last_step = seen.step
            self.pending = True
            self._rounds += 1
            self.evaluated = []
            self.after = self._weights()
        elif len(self.evaluated) < 4 and (self._rounds <= 2 or self._moved):
            self.evaluated.append(self._weights())

    def _weights(self) -> dict[int, torch.Tensor]:
        mode = self.w.functions.lift()
        try:
            return {t.seen.index: _few(t) for t in self.w.optimizers.at_hand()}
        finally:
            put_back(mode)

    def before_step(self, track: Track) -> None:
        """Compare, before the first step after an evaluation.

        Args:
            track: the optimizer that is about to step.
        """
        index = track.seen.index
        self.pending = False
        before = self.after.pop(index, None)
        if before is None:
            return
        now = _few(track)
        if now.shape != before.shape or torch.equal(now, before):
            return
        if float((now != before).float().mean()) < _CHANGED:
            return
        self._moved = True
        if any(torch.equal(now, one[index]) for one in self.evaluated if index in one):
            place = self.w.backwards.last_place
            self.w.seen.note("not-restored", track.seen.name, place)

    def stepped(self, track: Track) -> None:
        """Remember the weights of replicas after the first steps.

        Args:
            track: the optimizer that stepped.
        """
        if not self.w.forwards.replicas:
            return
        distributed = torch.distributed
        if not (distributed.is_available() and distributed.is_initialized()):
            return
        if any(not ddp.require_backward_grad_sync for ddp in self.w.forwards.replicas):
            return
        names = {id(p): n for ddp in self.w.forwards.replicas for n, p in ddp.named_parameters()}
        self.replicas[track.seen.steps] = {
            names[id(p)]: sample(p, 16).double().cpu().tolist()
            for p in track.params
            if id(p) in names
        }

    def ranks(self) -> dict[str, Any]:
        """Return what another process needs to compare replicas."""
        distributed = torch.distributed
        if not self.replicas or not distributed.is_available():
            return {}
        return {"steps": self.replicas}

    def at_end(self) -> None:
        """Look for averages that were kept up to date and never used."""
        for ref in self.w.calls.averages:
            average = ref()
            if isinstance(average, nn.Module) and not self.w.calls.used_average(average):
                updates = f"{int(getattr(average, 'n_averaged', 0))} times"
                self.w.seen.note("average-unused", type(average).__name__, updates=updates)


def _few(track: Track) -> torch.Tensor:
    """Return a few elements of some parameters, from the first to the last layers."""
    params = list(track.params)
    some = params[:: max(1, -(-len(params) // _PARAMETERS))]
    with torch.no_grad():
        return torch.cat([sample(p, 64).float().cpu() for p in some])
