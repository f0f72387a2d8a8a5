"""Watch for weights that change without an optimizer's step, and averages nobody evaluates."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from brickyard.doctor.observe.tensors import fingerprint

if TYPE_CHECKING:
    from brickyard.doctor.observe.optimizers import Track
    from brickyard.doctor.observe.watcher import Watcher


class Swaps:
    """Compare weights after the last step before an evaluation with those before the next step."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.after: dict[int, tuple[float, ...]] = {}
        self.evaluated: dict[int, tuple[float, ...]] = {}

    def epoch_ended(self) -> None:
        """Remember the weights at the end of a pass over the training data."""
        if self.w.seen.epoch > 20 and self.w.share > 0.02:
            return
        self.evaluated.clear()
        for track in self.w.optimizers.at_hand():
            self.after[track.seen.index] = fingerprint(list(track.params))

    def stepped(self, track: Track) -> None:
        """Hear of the end of a step; nothing to do in most."""

    def before_step(self, track: Track) -> None:
        """Compare, before the first step after an evaluation."""

    def at_end(self) -> None:
        """Look for averages that were kept up to date and never used."""
        for ref in self.w.calls.averages:
            average = ref()
            if average is not None and id(average) not in self.w.forwards.used:
                self.w.seen.note("average-unused", type(average).__name__)


def shadow_models(roots: list[weakref.ref[nn.Module]]) -> list[Any]:
    """Return living modules built like a trained model that were never called."""
    found = []
    wanted = []
    for ref in roots:
        model = ref()
        if model is not None:
            wanted.append((type(model), [p.shape for p in model.parameters()], model))
    for one in gc.get_objects():
        if isinstance(one, nn.Module):
            for kind, shapes, model in wanted:
                alike = type(one) is kind and one is not model
                if alike and [p.shape for p in one.parameters()] == shapes:
                    found.append(one)
    return found


def same_values(one: torch.Tensor, two: torch.Tensor) -> bool:
    """Say whether two tensors are equal bit by bit."""
    return one.shape == two.shape and bool((one == two).all())
