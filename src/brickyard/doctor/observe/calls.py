"""Watch clipping, loss scaling, schedulers, mode changes and averages."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.optim import lr_scheduler, swa_utils

from brickyard.doctor.observe import order
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import user_place
from brickyard.doctor.observe.record import Place, SchedulerSeen
from brickyard.doctor.observe.tensors import any_nonzero

if TYPE_CHECKING:
    from brickyard.doctor.observe.track import Track
    from brickyard.doctor.observe.watcher import Watcher

_CLIPS = ("clip_grad_norm_", "clip_grad_value_")
#: Modules that are not the user's.
_OTHERS: set[str] = set()
_RESTARTING = ("CosineAnnealingWarmRestarts", "CyclicLR", "LambdaLR", "MultiplicativeLR")


class Calls:
    """Follow calls that must come in a certain order."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.scalers: list[weakref.ref[Any]] = []
        self.scaled: dict[int, tuple[weakref.ref[torch.Tensor], float, int]] = {}
        self.schedulers: weakref.WeakKeyDictionary[Any, SchedulerSeen]
        self.schedulers = weakref.WeakKeyDictionary()
        self.averages: list[weakref.ref[torch.nn.Module]] = []
        self._depth = 0
        self._used: set[int] = set()

    def install(self, patches: Patches) -> None:
        """Patch functions and methods of torch."""
        from torch.nn.utils import clip_grad

        originals = {name: getattr(clip_grad, name) for name in _CLIPS}
        for name in _CLIPS:
            patches.replace(clip_grad, name, self._patched_clip)
            patches.replace(torch.nn.utils, name, self._patched_clip)
        self._rebind(patches, originals)
        scaler = torch.amp.GradScaler
        patches.replace(scaler, "scale", self._patched_scale)
        patches.replace(scaler, "unscale_", self._patched_unscale)
        patches.replace(scaler, "update", self._patched_update)
        for kind in [lr_scheduler.LRScheduler, *_subclasses(lr_scheduler.LRScheduler)]:
            if "step" in vars(kind):
                patches.replace(kind, "step", self._patched_scheduler)
        patches.replace(torch.nn.Module, "train", self._patched_train)
        patches.replace(torch, "compile", self._patched_compile)
        patches.replace(swa_utils.AveragedModel, "update_parameters", self._patched_average)
        for name in ("forward", "state_dict"):
            patches.replace(swa_utils.AveragedModel, name, self._patched_use)

    def _rebind(self, patches: Patches, originals: dict[str, Any]) -> None:
        """Reach modules that imported the functions by name before we came (notebooks)."""
        import sys

        from brickyard.doctor.observe.places import USER, _level

        for name in sys.modules.keys() - _OTHERS:
            module = sys.modules.get(name)
            file = getattr(module, "__file__", None)
            if module is None or (name != "__main__" and (not file or _level(file) != USER)):
                _OTHERS.add(name)  # thousands, and the next watcher need not ask again
                continue
            for function, original in originals.items():
                patches.rebind(vars(module), original, torch.nn.utils, function)

    # -- clipping ------------------------------------------------------------------------------
    def _patched_clip(self, original: Any) -> Any:
        def clip(parameters: Any, *args: Any, **kwargs: Any) -> Any:
            w = self.w
            if w.active and w.deep and not w.busy and not self._depth:
                if not isinstance(parameters, torch.Tensor):
                    parameters = list(parameters)
                with w.own_time("clipping"):
                    self._clipped(parameters)
            self._depth += 1
            try:
                return original(parameters, *args, **kwargs)
            finally:
                self._depth -= 1

        return clip

    def _clipped(self, parameters: Any) -> None:
        given = [parameters] if isinstance(parameters, torch.Tensor) else parameters
        ids = {id(p) for p in given}
        place = user_place(3)
        known = False
        for track in self.w.optimizers.at_hand():
            if not any(id(p) in ids for p in track.params):
                continue
            known = True
            held = any(p.grad is not None and any_nonzero(p.grad) for p in given)
            fresh = track.whole or track.seen.steps == 0
            backs = [e for e in track.events if e.kind == "backward"]
            zero = [e for e in track.events if e.kind == "zero"]
            if fresh and not backs and held and not zero and track.seen.steps > 0:
                self.w.seen.note("clip-after-step", track.seen.name, place)
            elif fresh and not held and track.seen.steps > 0:
                self.w.seen.note("clip-before-backward", track.seen.name, place)
            self._scaled_clip(track, backs, place)
            track.events.append(order.Event("clip", place))
        if not known and not any(p.grad is not None for p in given):
            self.w.seen.note("clip-before-backward", "gradients", place)
        elif not known and self.scaling and not self.unscaled_any:
            self.w.seen.note("clip-scaled", "gradients", place, scale=self.scale)

    def _scaled_clip(self, track: Track, backs: list[order.Event], place: Place) -> None:
        unscaled = any(e.kind == "unscale" for e in track.events)
        if any(e.scaled for e in backs) and not unscaled:
            self.w.seen.note("clip-scaled", track.seen.name, place, scale=self.scale)

    # -- loss scaling --------------------------------------------------------------------------
    scale = 1.0
    scaling = False
    unscaled_any = False

    def scale_of(self, loss: torch.Tensor) -> float:
        """Return by how much a GradScaler multiplied a loss; 1 if none did."""
        if not self.scaled:
            return 1.0
        found = self.scaled.get(id(loss))
        return found[1] if found is not None and found[0]() is loss else 1.0

    def original_of(self, loss: torch.Tensor) -> int:
        """Return the id of the tensor that a GradScaler made this one of."""
        found = self.scaled.get(id(loss))
        return found[2] if found is not None and found[0]() is loss else id(loss)

    def checked_backward(self, scaled: bool) -> None:
        """Hear of a backward pass."""
        if scaled:
            self.unscaled_any = False

    def _patched_scale(self, original: Any) -> Any:
        def scale(scaler: Any, outputs: Any) -> Any:
            result = original(scaler, outputs)
            w = self.w
            if w.active and not w.busy and isinstance(result, torch.Tensor):
                with w.own_time("scaler"):
                    factor = float(scaler.get_scale()) if scaler.is_enabled() else 1.0
                    if factor != 1.0:
                        self.scaling, self.scale = True, factor
                        if len(self.scaled) > 64:
                            self.scaled.clear()
                        entry = (weakref.ref(result), factor, id(outputs))
                        self.scaled[id(result)] = entry
            return result

        return scale

    def _patched_unscale(self, original: Any) -> Any:
        def unscale_(scaler: Any, optimizer: Any) -> Any:
            w = self.w
            if w.active and w.deep and not w.busy:
                with w.own_time("scaler"):
                    self.unscaled_any = True
                    track = w.optimizers.find(optimizer)
                    if track is not None:
                        track.events.append(order.Event("unscale", user_place(2)))
            return original(scaler, optimizer)

        return unscale_

    def _patched_update(self, original: Any) -> Any:
        def update(scaler: Any, *args: Any, **kwargs: Any) -> Any:
            before = scaler.get_scale() if self.w.active and scaler.is_enabled() else 0.0
            result = original(scaler, *args, **kwargs)
            if before:
                facts = self.w.seen.scaler
                now = float(scaler.get_scale())
                facts["updates"] = facts.get("updates", 0) + 1
                skipped = facts.setdefault("skipped_at", [])
                if now < before:
                    skipped.append(facts["updates"])
                facts["scale"] = now
            return result

        return update

    # -- schedulers ----------------------------------------------------------------------------
    def _patched_scheduler(self, original: Any) -> Any:
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            w = self.w
            if w.active and not w.busy and not self._depth:
                with w.own_time("schedulers"):
                    self._scheduled(scheduler)
            self._depth += 1  # schedulers made of others
            try:
                return original(scheduler, *args, **kwargs)
            finally:
                self._depth -= 1

        return step

    def _scheduled(self, scheduler: Any) -> None:
        if getattr(scheduler, "_is_initial", False) or getattr(scheduler, "_step_count", 1) == 0:
            return  # the constructor's own step
        seen = self.schedulers.get(scheduler)
        optimizer = getattr(scheduler, "optimizer", None)
        track = self.w.optimizers.find(optimizer)
        if seen is None:
            seen = SchedulerSeen(type(scheduler).__name__, -1, user_place(3))
            seen.horizon, seen.horizon_name = _horizon(scheduler)
            seen.restarts = type(scheduler).__name__ in _RESTARTING
            self.schedulers[scheduler] = seen
            self.w.seen.schedulers.append(seen)
            seen.early = track is None and not self.scalers and not self.scaling
        if track is not None:
            seen.optimizer = track.seen.index
        seen.calls += 1
        if self.w.seen.epoch <= 1:
            seen.first_epoch += 1
        if seen.horizon and not seen.over_step and seen.calls > 1.5 * seen.horizon:
            seen.over_step = self.w.seen.step

    # -- modes and averages --------------------------------------------------------------------
    def _patched_train(self, original: Any) -> Any:
        def train(module: torch.nn.Module, mode: bool = True) -> Any:
            w = self.w
            if w.active and not w.busy:
                w.forwards.mode_set(module, mode)
            return original(module, mode)

        return train

    def _patched_compile(self, original: Any) -> Any:
        def compiled(*args: Any, **kwargs: Any) -> Any:
            if self.w.active and not self.w.busy:
                self.w.compiled()
            return original(*args, **kwargs)

        return compiled

    def _patched_average(self, original: Any) -> Any:
        def update_parameters(average: Any, *args: Any, **kwargs: Any) -> Any:
            if self.w.active and not any(ref() is average for ref in self.averages):
                self.averages.append(weakref.ref(average))
            if self.w.busy:
                return original(average, *args, **kwargs)
            self.w.inside = True  # not an average by hand
            try:
                return original(average, *args, **kwargs)
            finally:
                self.w.inside = False

        return update_parameters

    def _patched_use(self, original: Any) -> Any:
        def use(average: Any, *args: Any, **kwargs: Any) -> Any:
            self._used.add(id(average))
            return original(average, *args, **kwargs)

        return use

    def used_average(self, average: torch.nn.Module) -> bool:
        """Say whether an averaged model was called, saved or looked into."""
        inner = average.module
        return bool({id(average), id(inner)} & self._used) or id(inner) in self.w.forwards.used


def _subclasses(kind: type) -> list[type]:
    found = [s for one in kind.__subclasses__() for s in (one, *_subclasses(one))]
    return list(dict.fromkeys(found))


def _horizon(scheduler: Any) -> tuple[int | None, str]:
    """Return over how many of its steps a scheduler is planned, and which option says so."""
    parts = getattr(scheduler, "_schedulers", None)
    if parts:
        ends = [e for e in (_horizon(s)[0] for s in parts) if e]
        marks = list(getattr(scheduler, "_milestones", []))
        if marks and ends:
            return int(marks[-1] + ends[-1]), "milestones and the last scheduler's length"
        return (max(ends), "its longest scheduler") if ends else (None, "")
    for name in ("total_steps", "T_max", "total_iters"):
        value = getattr(scheduler, name, None)
        if isinstance(value, int) and value > 0:
            return value, name
    marks = getattr(scheduler, "milestones", None)
    if marks:
        return int(max(marks)), "milestones"
    size = getattr(scheduler, "step_size", None)
    if isinstance(size, int) and size > 0:
        return None, f"step_size={size}"
    return None, ""
