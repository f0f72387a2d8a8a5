"""Watch optimizers: which parameters they hold, in what order they are used, what a step does."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import torch
from torch.optim.optimizer import (
    Optimizer,
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe import order
from brickyard.doctor.observe.nonfinite import explain
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import steps_under_way, user_place
from brickyard.doctor.observe.record import NOWHERE, OptimizerSeen, ParamSeen, Place
from brickyard.doctor.observe.swaps import REPLICA_STEPS
from brickyard.doctor.observe.tensors import any_nonzero, dense, length, same_rows, sample
from brickyard.doctor.observe.track import Track

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher


#: Steps of which single numbers are kept.
_MOST_STEPS = 65536


class Optimizers:
    """Follow every optimizer of the process."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.tracks: dict[int, Track] = {}
        self.made: weakref.WeakKeyDictionary[Optimizer, tuple[Place, int, set[int]]]
        self.made = weakref.WeakKeyDictionary()
        self.params: dict[int, tuple[weakref.ref[torch.Tensor], ParamSeen]] = {}
        self.cycle: set[int] = set()
        self._under: list[int] = []
        self.stepped_since_backward: list[Track] = []
        self._lifted: Any = None

    def install(self, patches: Patches) -> None:
        """Hook steps and patch construction and ``zero_grad``."""
        patches.keep(register_optimizer_step_pre_hook(self._before))
        patches.keep(register_optimizer_step_post_hook(self._after))
        patches.replace(Optimizer, "__init__", self._patched_init)
        patches.replace(Optimizer, "zero_grad", self._patched_zero)
        patches.replace(torch.nn.Module, "zero_grad", self._patched_module_zero)

    def _patched_init(self, original: Any) -> Any:
        def initialize(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            if self.w.active and not self.w.busy:
                with self.w.own_time("optimizers"):
                    ids = {id(p) for g in optimizer.param_groups for p in g["params"]}
                    self.made[optimizer] = (user_place(2), self.w.forwards.clock, ids)

        return initialize

    def _patched_zero(self, original: Any) -> Any:
        def zero_grad(optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
            if self.w.deep and not self.w.busy:
                with self.w.own_time("optimizers"):
                    track = self.find(optimizer)
                    if track is not None:
                        self._zeroed([track])
            return original(optimizer, *args, **kwargs)

        return zero_grad

    def _patched_module_zero(self, original: Any) -> Any:
        def zero_grad(module: torch.nn.Module, *args: Any, **kwargs: Any) -> Any:
            if self.w.deep and not self.w.busy:
                with self.w.own_time("optimizers"):
                    ids = {id(p) for p in module.parameters()}
                    self._zeroed([t for t in self.at_hand() if any(id(p) in ids for p in t.params)])
            return original(module, *args, **kwargs)

        return zero_grad

    def _zeroed(self, tracks: list[Track]) -> None:
        place = user_place(3)
        for track in tracks:
            held = any(p.grad is not None and any_nonzero(p.grad) for p in track.params)
            track.events.append(order.Event("zero", place, held=held))

    # -- which ---------------------------------------------------------------------------------
    def find(self, optimizer: Any) -> Track | None:
        """Return the track of an optimizer that stepped before."""
        track = self.tracks.get(id(optimizer))
        return track if track is not None and track.ref() is optimizer else None

    def at_hand(self) -> list[Track]:
        """Return the tracks whose optimizers are alive."""
        return [t for t in self.tracks.values() if t.ref() is not None]

    def meet(self, optimizer: Optimizer) -> Track:
        """Begin to follow an optimizer."""
        index = len(self.w.seen.optimizers)
        name = type(optimizer).__name__
        same = sum(o.name.partition("#")[0] == name for o in self.w.seen.optimizers)
        seen = OptimizerSeen(index, f"{name}#{same + 1}" if same else name)
        place, _, _ = self.made.get(optimizer, (NOWHERE, 0, set()))
        seen.step_place = user_place(3)
        seen.place = place if place.file else seen.step_place
        self.w.seen.optimizers.append(seen)
        track = self.tracks[id(optimizer)] = Track(optimizer, seen)
        track.nested = self.depth > 1
        track.describe(optimizer)
        small = sorted((p for p in track.params if p.is_floating_point()), key=lambda p: p.numel())
        ordered = [p for p in track.params if p.numel() <= 65536]
        # of the first layer's weights and bias the bias: both have NaN, and it is read faster
        first = sorted(ordered[:2], key=lambda p: p.ndim)[:1]
        track.witnesses = [*{id(p): p for p in [*first, *ordered[-1:], *small[:1]]}.values()]
        if self.w.seen.step > T.FIRST_STEPS:
            self.w.look_for(T.FIRST_STEPS)
        return track

    # -- steps ---------------------------------------------------------------------------------
    @property
    def depth(self) -> int:
        """Return how many steps are under way, one within the other."""
        return len(self._under)

    def _begun(self) -> None:
        """Forget steps that an exception ended unheard; what came before them is no order."""
        still = steps_under_way()[:-1]
        for one in set(self._under).difference(still):
            track = self.tracks.get(one)
            if track is not None:
                track.events.clear()
                track.whole = False
        self._under = still
        self._put_back()

    def _left(self, optimizer: Optimizer) -> None:
        """Forget a step that ended, with those within it."""
        while self._under and self._under.pop() != id(optimizer):
            pass
        self._put_back()

    def _put_back(self) -> None:
        if not self._under and self._lifted is not None:
            self.w.lifted(self._lifted)
            self._lifted = None

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        w = self.w
        if not w.active or w.busy:
            return
        closure = (len(args) > 1 and args[1] is not None) or kwargs.get("closure") is not None
        w.guard.name = "optimizers"
        with w.guard:
            if w.functions.retired is not None:
                w.functions.sweep()
            if self._under or self._lifted is not None:
                self._begun()
            self._under.append(id(optimizer))
            track = self.tracks.get(id(optimizer))
            if track is None or track.ref() is not optimizer:
                track = self.meet(optimizer)
            if not closure:
                self._finite(track, optimizer)
            if w.swaps.pending or w.swaps.after:
                w.swaps.before_step(track)
            if w.deep and self.depth == 1:
                self._look_before(track, bool(closure))
                if not closure:  # what is called within a step is no call of the user's
                    self._lifted = w.lifted()

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        w = self.w
        if not w.active or w.busy:
            return
        new = False
        w.guard.name = "optimizers"
        with w.guard:
            if len(self._under) > 1 or self._lifted is not None:
                self._left(optimizer)
            else:
                self._under.clear()
            track = self.tracks.get(id(optimizer))
            if track is None or track.ref() is not optimizer or self._under:
                return
            seen = track.seen
            seen.steps += 1
            new = not self.cycle or seen.index in self.cycle
            if new:
                if len(self.cycle) != 1:
                    self.cycle = {seen.index}
                if w.backwards.manual:
                    w.backwards.counted()
                w.seen.step += 1
            else:
                self.cycle.add(seen.index)
            if seen.steps < _MOST_STEPS:
                groups = optimizer.param_groups
                rate = groups[0].get("lr", 0.0)
                if len(groups) > 1:
                    rate = max(g.get("lr", 0.0) for g in groups)
                seen.rates.append(float(rate))
            if w.deep:
                self._double(track)
                self._look_after(track, optimizer)
            track.events.clear()
            track.whole = w.deep
            w.calls.unscaled_any = False
            w.backwards.last_node = None  # let go of the last graph
            if seen.steps <= REPLICA_STEPS:
                w.swaps.stepped(track)
            if w.forwards.calls or w.forwards.pending:
                w.forwards.stepped(track)
        if new:
            w.tick()

    def _double(self, track: Track) -> None:
        """See whether two optimizers applied the same gradient."""
        mine = self.stepped_since_backward
        if not track.nested and track not in mine and mine and self.w.deep:
            ids = {id(p) for p in track.params if p.grad is not None}
            for other in mine:
                both = [p for p in other.params if id(p) in ids]
                if both and not other.nested:
                    names = f"{other.seen.name} and {track.seen.name}"
                    place = track.seen.place
                    self.w.seen.note("two-optimizers", names, place, shared=len(both),
                                     name=self.seen_of(both[0]).name)  # fmt: skip
        mine.append(track)

    def _finite(self, track: Track, optimizer: Optimizer) -> None:
        """Look at a few gradients for NaN and infinity; at all of them when one is bad."""
        step = track.seen.steps
        if getattr(optimizer, "found_inf", None) is not None:
            return  # loss scaling left it to the optimizer to skip the step
        # NaN flows to the first layers, so that one gradient tells; the others now and then
        for i, p in enumerate(track.witnesses if step % 8 == 0 else track.witnesses[:1]):
            grad = p.grad
            if grad is None or (grad.is_cuda and step % 48):
                continue
            if grad.is_sparse:
                grad = dense(grad)
            value = self._norm(track, p, grad) if i == 0 else grad.sum().item()
            if value - value != 0.0:
                explain(self.w, track)
                return

    def _norm(self, track: Track, p: torch.Tensor, grad: torch.Tensor) -> float:
        """Return a gradient's norm, NaN or infinite when it is; of large ones, of a part."""
        part = grad.reshape(-1) if grad.ndim != 1 else grad
        whole = part.numel() <= T.GAUGE
        norm = length(part if whole else part[: T.GAUGE])
        if len(track.seen.norms) < _MOST_STEPS:
            if not track.seen.norms:
                track.seen.gauge = id(p)
            track.seen.norms.append(norm)
        return norm if whole else grad.sum().item()

    def _look_before(self, track: Track, closure: bool) -> None:
        optimizer = track.ref()
        if optimizer is None:
            return
        if track.seen.looked < 3 or not track.whole:
            track.describe(optimizer)
            self.w.forwards.name_parameters()
        self.w.ties.look()
        track.before = []
        track.closure = closure
        track.seen.looked += 1
        if not closure:
            order.analyse(self.w, track)
        for group in optimizer.param_groups:
            rate = float(group.get("lr", 1.0))
            for p in group["params"]:
                seen = self.seen_of(p)
                if track.seen.index not in seen.optimizers:
                    seen.optimizers.append(track.seen.index)
                if id(p) == track.seen.gauge:
                    track.seen.gauged = seen.name
                with torch.no_grad():
                    values = sample(p).clone()
                    grad = None if closure else self._state(seen, p)
                track.before.append((seen, p, values, grad, rate))
        if not closure:
            self.others()

    def _state(self, seen: ParamSeen, p: torch.Tensor) -> bool | None:
        """Count whether a parameter has a gradient; say whether a sample of it is not zero."""
        seen.looked += 1
        seen.trainable = p.requires_grad
        seen.ever_frozen |= not p.requires_grad
        grad = p.grad  # once: another thread may clear it
        if grad is None:
            seen.none += 1
            return None
        part = sample(dense(grad))
        size = length(part) if part.numel() else 0.0
        if size == 0.0 and not any_nonzero(grad):
            seen.zero += 1
        else:
            seen.grad += 1
        if p.ndim >= 2:
            seen.sizes.append(size / max(part.numel(), 1) ** 0.5)
        if (
            p.ndim >= 2
            and p.shape[0] >= 2
            and seen.rows < T.FIRST_STEPS
            and "Embedding" not in seen.owner
        ):
            seen.rows += 1
            seen.same_rows += same_rows(p) and same_rows(dense(grad))
        return None if grad.is_sparse else size != 0.0

    def others(self) -> None:
        """Count gradients of parameters that no optimizer holds."""
        for ref, seen in list(self.params.values()):
            p = ref()
            if p is not None and not seen.optimizers:
                self._state(seen, p)

    def _look_after(self, track: Track, optimizer: Optimizer) -> None:
        changed, could = False, False
        if float(getattr(optimizer, "found_inf", None) or 0.0):
            track.before = []  # it was told to skip this step
        with torch.no_grad():
            for seen, p, values, grad, rate in track.before:
                if track.closure:  # its gradients came during the step
                    self._state(seen, p)
                now = sample(p)
                if now.shape != values.shape:
                    continue
                any_moved = not torch.equal(now, values)
                changed |= any_moved
                if grad and rate > 0.0:
                    could = True
                    seen.stuck += not any_moved
                if any_moved and p.ndim >= 2 and not track.closure:  # one step may be many
                    size = length(values)
                    if size > 0.0:
                        ratio = length(now - values) / size
                        track.seen.update_ratios.setdefault(seen.name, []).append(ratio)
                elif could and p.ndim >= 2 and grad:
                    track.seen.update_ratios.setdefault(seen.name, []).append(0.0)
        track.before = []
        track.seen.changed += changed
        track.seen.unchanged += could and not changed
        if not changed and not could and all(p.grad is None for p in track.params):
            self.w.seen.note("step-without-gradient", track.seen.name, track.seen.step_place)

    def seen_of(self, p: torch.Tensor) -> ParamSeen:
        """Return the facts about a parameter."""
        held = self.params.get(id(p))
        if held is not None and held[0]() is p:
            return held[1]
        seen = ParamSeen(name=f"a tensor {tuple(p.shape)}", shape=tuple(p.shape), tracked=False)
        seen.trainable = p.requires_grad
        self.params[id(p)] = (weakref.ref(p), seen)
        self.w.seen.params.append(seen)
        return seen

    def look(self, on: bool) -> None:
        """Begin or end looking closely."""
        for track in self.tracks.values():
            track.events.clear()
            track.whole = False

    # -- backward passes -----------------------------------------------------------------------
    def before_backward(self) -> None:
        """Note the state of all gradients, before a backward pass adds to them."""
        for track in self.at_hand():
            track.stale = any(p.grad is not None and any_nonzero(p.grad) for p in track.params)
            track.signature = [_signature(p) for p in track.params]

    def after_backward(self, place: Place, plain: bool, scaled: bool) -> None:
        """Note which optimizers' gradients a backward pass reached.

        Args:
            place: the user's line.
            plain: the tensor sent backwards is a criterion's mean itself.
            scaled: a GradScaler multiplied it.
        """
        self.stepped_since_backward.clear()
        for track in self.at_hand():
            before, track.signature = track.signature, None
            if before is not None and [_signature(p) for p in track.params] != before:
                versions = order.versions(track.params)
                track.events.append(
                    order.Event("backward", place, track.stale, plain, scaled, versions,
                                order.grad_sum(track.params))
                )  # fmt: skip


def _signature(p: torch.Tensor) -> tuple[int, int]:
    grad = p.grad
    return (0, 0) if grad is None else (id(grad), grad._version)
