"""Watch backward passes: their losses, the leaves they reach, graphs that stay alive."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import TYPE_CHECKING, Any

import torch

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe.nonfinite import leaves, walk
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import _KNOWN, HIDDEN, _level, place_of, user_frame
from brickyard.doctor.observe.record import NOWHERE, Place, Series
from brickyard.doctor.observe.tensors import sample, tensors, transformed

if TYPE_CHECKING:
    from types import FrameType

    from brickyard.doctor.observe.watcher import Watcher

_MOST_VALUES = 60000
_KEY = "brickyard.doctor"


class _Token:
    """Live as long as the node of an autograd graph that holds it."""

    __slots__ = ("__weakref__",)


class Backwards:
    """Follow ``backward`` and ``torch.autograd.grad``."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.series: dict[tuple[str, int], Series] = {}
        self.last_value: float | None = None
        self.last_place: Place = NOWHERE
        self.last_node: Any = None
        self.manual = False
        self._tokens: list[weakref.ref[_Token]] = []
        self._leak_done = False
        self._leaf: tuple[int, torch.Tensor] | None = None
        self._moved = 0

    def install(self, patches: Patches) -> None:
        """Patch the two functions all backward passes go through."""
        patches.replace(torch.autograd, "backward", self._patched)
        patches.replace(torch.autograd, "grad", self._patched_grad)

    def _patched(self, original: Any) -> Any:
        def backward(*args: Any, **kwargs: Any) -> Any:
            w = self.w
            if not w.active or w.busy or transformed():
                return original(*args, **kwargs)
            if w.thread is None:
                w.follow()
            loss = series = None
            w.guard.name = "backward"
            with w.guard:
                loss, series = self._before(args, kwargs)
            original(*args, **kwargs)
            if w.deep or not self._leak_done or not w.optimizers.tracks or w.data.fresh():
                with w.own_time("backward"):
                    self._after(loss, series)

        return backward

    def _patched_grad(self, original: Any) -> Any:
        def grad(*args: Any, **kwargs: Any) -> Any:
            result = original(*args, **kwargs)
            w = self.w
            alone = not w.optimizers.tracks and not w.optimizers.depth
            if w.active and not w.busy and alone and not transformed():
                with w.own_time("backward"):
                    outputs = args[0] if args else kwargs.get("outputs")
                    loss = next(iter(tensors(outputs)), None)
                    if loss is not None and loss.numel() == 1:
                        self._count(loss, self._site(sys._getframe(1)))
                    self._manual(loss, force=True)
            return result

        return grad

    # -- one pass ------------------------------------------------------------------------------
    def _before(self, args: Any, kwargs: Any) -> tuple[torch.Tensor | None, Series | None]:
        given = args[0] if args else kwargs.get("tensors")
        loss = given if isinstance(given, torch.Tensor) else next(iter(tensors(given)), None)
        if loss is None:
            return None, None
        series = self._count(loss, self._site(sys._getframe(2)))
        node = loss.grad_fn
        if node is None:
            self._leaf_loss(loss, series.place)
        self.last_place, self.last_node = series.place, node
        if self.w.deep:
            self.w.forwards.forget_failed()
            self.w.optimizers.before_backward()
            if node is not None and (self.w.seen.step < T.FIRST_STEPS or self.manual):
                self.w.forwards.reached(leaves(walk(node)))
        return loss, series

    def _site(self, frame: FrameType | None) -> FrameType | None:
        while frame is not None:
            file = frame.f_code.co_filename
            if (_KNOWN[file] if file in _KNOWN else _level(file)) != HIDDEN:
                return frame
            frame = frame.f_back
        return None

    def _count(self, loss: torch.Tensor, frame: FrameType | None) -> Series:
        """Add a loss to the series of its line."""
        if self.w.evaluations.open:
            self.w.evaluations.close()
        # by the name of the file: the hash of code is that of all its names and constants
        key = (frame.f_code.co_filename, frame.f_lineno) if frame is not None else ("", 0)
        series = self.series.get(key)
        if series is None:
            series = self.series[key] = Series(place_of(user_frame(3)))
            self.w.seen.series[key] = series
        self.w.seen.backwards += 1
        if loss.numel() == 1 and not (loss.is_cuda and self.w.seen.backwards % 50):
            value = loss.item()
            if self.w.calls.scaled:
                value /= self.w.calls.scale_of(loss)
            series.values.append(value)
            series.steps.append(self.w.seen.step)
            self.last_value = value
            if value - value != 0.0:
                self._bad_loss(series, value)
            if len(series.values) > _MOST_VALUES:
                series.values[:] = series.values[::2]
                series.steps[:] = series.steps[::2]
        return series

    def _bad_loss(self, series: Series, value: float) -> None:
        good = [v for v in series.values if v - v == 0.0]
        self.w.seen.note("nonfinite-loss", "loss", series.place, value=value,
                         before=good[-1] if good else None, scaled=self.w.calls.scaling,
                         **self.w.forwards.first_bad())  # fmt: skip

    def _leaf_loss(self, loss: torch.Tensor, place: Place) -> None:
        """Note a loss without a history: nothing behind it can learn from it."""
        held = {id(p) for t in self.w.optimizers.at_hand() for p in t.params}
        if loss.requires_grad and id(loss) not in held and not isinstance(
            loss, torch.nn.Parameter
        ):  # fmt: skip
            self.w.seen.note("leaf-loss", "loss", place)

    def _after(self, loss: torch.Tensor | None, series: Series | None) -> None:
        w = self.w
        if loss is None or series is None:
            return
        if w.deep:
            plain, scaled = w.functions.is_mean(loss), w.calls.scale_of(loss) != 1.0
            w.optimizers.after_backward(series.place, plain, scaled)
            w.calls.checked_backward(scaled)
        if not self._leak_done:
            self._follow(loss)
        w.data.trained()
        if not w.optimizers.tracks and not w.optimizers.depth:
            self._manual(loss)

    def _manual(self, loss: torch.Tensor | None, force: bool = False) -> None:
        """See whether weights are updated without an optimizer, and count passes as steps then."""
        seen = self.w.seen
        if not self.manual and loss is not None and loss.grad_fn is not None:
            found = leaves(walk(loss.grad_fn, 2000))
            if found:
                leaf = found[0]
                if self._leaf is not None:
                    before = self._leaf[1]
                    now = sample(leaf, 32)
                    same = before.shape == now.shape and bool((before == now).all())
                    self._moved = 0 if same else self._moved + 1
                self._leaf = (id(leaf), sample(leaf, 32).clone())
                if self._moved >= 2 or (force and self._moved >= 1):
                    self.manual = True
                    seen.step = seen.backwards - 1
        if self.manual:
            self._leaf = None
            seen.step += 1
            self.w.forwards.stepped(None)
            self.w.tick()

    def counted(self) -> None:
        """Hear that an optimizer steps after all: what was counted before it were no steps."""
        self.manual, self.w.seen.step = False, 0
        for series in self.series.values():
            series.steps[:] = [0] * len(series.steps)

    # -- graphs that stay alive ----------------------------------------------------------------
    def _follow(self, loss: torch.Tensor) -> None:
        """Hang a token on the top of the loss's graph, and count the tokens still alive later."""
        if self.w.seen.backwards <= 3:
            return
        node: Any = loss.grad_fn
        token = _Token()
        hung = False
        for _ in range(2):
            if node is None or hasattr(node, "variable"):
                break
            notes: Any = node.metadata
            if _KEY not in notes:
                notes[_KEY] = token
                hung = True
            following = [n for n, _ in node.next_functions if n is not None]
            node = following[0] if following else None
        if hung:
            self._tokens.append(weakref.ref(token))
        if len(self._tokens) >= T.LEAK_STEPS:
            self._leak_done = True
            del token
            self._count_alive()

    def _count_alive(self) -> None:
        alive = sum(ref() is not None for ref in self._tokens)
        if alive > T.LEAK_STEPS // 2:
            gc.collect()
            alive = sum(ref() is not None for ref in self._tokens)
            self.w.seen.note("graphs-alive", "loss", self.last_place, alive=alive,
                             of=len(self._tokens),
                             line=self.w.functions.old_graph())  # fmt: skip

    # -- suspects ------------------------------------------------------------------------------
    def suspect(self, risky: dict[str, str]) -> tuple[str, Place, str]:
        """Return the riskiest operation of the last loss's graph, its line, and its risk.

        Args:
            risky: operations by name, most dangerous first, and what can go wrong.
        """
        if self.last_node is None:
            return "", NOWHERE, ""
        names: dict[str, int] = {}
        for i, node in enumerate(walk(self.last_node)):
            name = node.name().partition("Backward")[0].lower()
            name = {"linalgvectornorm": "norm"}.get(name, name)
            if name == "pow":
                exponent = getattr(node, "_saved_exponent", 0.5)
                if isinstance(exponent, int | float) and exponent >= 1:
                    continue
            if name in risky and name not in names:
                names[name] = i
        for name, reason in risky.items():
            if name in names:
                return name, self.w.functions.line_of(name), reason
        return "", NOWHERE, ""
