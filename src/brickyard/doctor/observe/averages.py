"""Watch averages of weights that a script keeps by hand: are they ever evaluated, used or saved?

A tensor that is no parameter of an optimizer, and into which one is mixed step after step, is such
an average. Reading it in any other call is a use: a forward pass, a copy back, a comparison.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import user_place
from brickyard.doctor.observe.record import Place
from brickyard.doctor.observe.tensors import tensors

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher

#: Functions that mix their second argument into their first one.
MIXES = ("lerp_", "add_", "_foreach_lerp_", "_foreach_add_")
_SCALES = ("mul_", "_foreach_mul_", "detach", "data", "__get__", "shape", "requires_grad")


def _plain(value: Any) -> bool:
    """Say whether something is a tensor with an address."""
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta


@dataclass
class Average:
    """Tensors that are updated from one line."""

    place: Place
    kept: list[tuple[weakref.ref[torch.Tensor], weakref.ref[torch.Tensor]]]
    steps: set[int] = field(default_factory=set)
    used: bool = False


class Averages:
    """Follow mixes in the steps that are looked at, and reads in these and in evaluations."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.found: dict[Place, Average] = {}
        self.where: dict[int, Average] = {}  # by the address of the tensor's memory

    def install(self, patches: Patches) -> None:
        """Patch ``torch.save``."""
        patches.replace(torch, "save", self._patched_save)

    def _patched_save(self, original: Any) -> Any:
        def save(obj: Any, *args: Any, **kwargs: Any) -> Any:
            if self.w.active and self.where and not self.w.busy:
                with self.w.own_time("averages"):
                    self.read(obj)
            return original(obj, *args, **kwargs)

        return save

    def called(self, name: str, args: Any) -> None:
        """Hear of a function, once there are averages: any but their own update reads them.

        Args:
            name: the function's name.
            args: its positional arguments.
        """
        if name in _SCALES or (name in MIXES and not torch.is_grad_enabled()):
            return
        self.read(args)

    def read(self, value: Any) -> None:
        """Note that tensors in a nest were read.

        Args:
            value: the nest.
        """
        for one in tensors(value):
            if _plain(one):
                average = self.where.get(one.data_ptr())
                if average is not None:
                    average.used = True

    def mixed(self, args: Any) -> None:
        """Hear that one tensor, or a list of them, was mixed into another.

        Args:
            args: the arguments of the function.
        """
        if torch.is_grad_enabled() or len(args) < 2 or self.w.optimizers.depth:
            return  # what an optimizer does within its step is its own
        whole = isinstance(args[0], list | tuple)
        pairs = zip(args[0], args[1], strict=False) if whole and isinstance(
            args[1], list | tuple) else [args[:2]]  # fmt: skip
        pairs = [p for p in pairs if all(_plain(t) for t in p)]
        if not pairs or pairs[0][0].shape != pairs[0][1].shape or not pairs[0][0].numel():
            return
        params = {p.data_ptr(): p for t in self.w.optimizers.at_hand() for p in t.params
                  if p.layout == torch.strided}  # fmt: skip
        place = user_place(4)
        for kept, mixed in pairs:
            source = params.get(mixed.data_ptr())
            if source is None or kept.data_ptr() in params:
                continue
            average = self.found.get(place)
            if average is None:
                average = self.found[place] = Average(place, [])
            average.steps.add(self.w.seen.step)
            if kept.data_ptr() not in self.where:
                self.where[kept.data_ptr()] = average
                average.kept.append((weakref.ref(kept), weakref.ref(source)))

    def compare(self) -> None:
        """See whether a model that is evaluated holds an average's values."""
        for average in self.found.values():
            for kept, source in average.kept[:1]:
                one, two = kept(), source()
                if one is not None and two is not None and not average.used:
                    average.used = torch.equal(one.detach(), two.detach())

    def at_end(self) -> None:
        """Note averages that were kept up to date and never read."""
        if not self.w.eager or not self.w.seen.finished:
            return
        self.compare()
        for average in self.found.values():
            if len(average.steps) >= T.LOOKS and not average.used:
                where = f"An average of {len(average.kept)} parameters"
                updates = f"at {len(average.steps)} steps looked at"
                self.w.seen.note("average-unused", where, average.place, updates=updates)
