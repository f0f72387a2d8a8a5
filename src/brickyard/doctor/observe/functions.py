"""Watch functions of torch on the steps that are looked at: losses, activations, old graphs."""

from __future__ import annotations

import weakref
from threading import get_ident
from typing import TYPE_CHECKING, Any

import torch
from torch import overrides

from brickyard.doctor.observe import averages, losses
from brickyard.doctor.observe.fastpaths import FastPaths
from brickyard.doctor.observe.nonfinite import RISKY
from brickyard.doctor.observe.places import user_place
from brickyard.doctor.observe.record import NOWHERE, ModuleSeen, Place
from brickyard.doctor.observe.tensors import transformed

if TYPE_CHECKING:
    from brickyard.doctor.observe.watcher import Watcher

_ADDS = {"add", "__add__", "__radd__", "__iadd__", "add_", "stack", "cat"}
_SUBS = {"sub", "__sub__", "__rsub__", "rsub", "sub_", "__isub__"}
_RELUS = {"relu", "relu_", "relu6", "threshold"}
_SQUASHES = {"tanh": 1.0, "tanh_": 1.0, "sigmoid": 0.0, "sigmoid_": 0.0}
_DISTANCES = {"abs", "pow", "square", "__pow__", "mul", "__mul__"}


def _stack() -> tuple[list[Any], Any, Any]:
    """Return torch's function modes, and what takes one off and puts one on.

    A mode is public and leaves at the end of its ``with`` block; ours must leave while blocks of
    the user's are open, which torch offers under these names only.

    Raises:
        AttributeError: another torch, without them: then no mode is entered at all.
    """
    return overrides._get_current_function_mode_stack(), overrides._pop_mode, overrides._push_mode


def _sequence(node: Any) -> int:
    """Return when a node of a graph was made; 0 where torch does not say."""
    number = getattr(node, "_sequence_nr", None)
    return number() if number is not None else 0


def put_back(mode: _Mode | None) -> None:
    """Push a mode that was lifted.

    Args:
        mode: what :meth:`Functions.lift` returned.
    """
    if mode is not None:
        mode.inside -= 1
        _enter(mode)


def _enter(mode: _Mode) -> None:
    """Put a mode below those of the user's, which leave from the top at the end of their blocks.

    Raises:
        AttributeError: another torch, without what :func:`_stack` returns.
    """
    stack, pop, push = _stack()
    # the default device, which torch wants at the very bottom; not that of a block
    default = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    above = stack[1:] if stack and stack[0] is default else stack
    for _ in above:
        pop()
    for one in (mode, *above):
        push(one)


def _taken(mode: _Mode) -> bool:
    """Take a mode from this thread's stack, wherever it is; say whether it was there."""
    stack, pop, push = _stack()
    if mode not in stack:
        return False
    above = []
    while (top := pop()) is not mode:
        above.append(top)
    for one in reversed(above):
        push(one)
    return True


class _Mode(overrides.TorchFunctionMode):
    """Pass every call on, and show it to the observer."""

    def __init__(self, functions: Functions) -> None:
        super().__init__()
        self.functions = functions
        self.inside = 0  # calls under way: then the mode is off torch's stack, and will be back
        self.thread = get_ident()  # torch keeps a stack for each

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:  # fmt: skip
        kwargs = kwargs or {}
        owner = self.functions
        if owner.w.busy:  # our own calls
            return func(*args, **kwargs)
        self.inside += 1
        try:
            result = func(*args, **kwargs)
        finally:
            self.inside -= 1
        if owner.mode is self and not owner.w.busy:
            name = getattr(func, "__name__", "")
            if owner.averages.where and not transformed():
                with owner.w.own_time("averages"):
                    owner.averages.called(name, args)
            handler = owner.table.get(name)
            if handler is not None and not transformed():
                with owner.w.own_time("functions"):
                    handler(name, args, kwargs, result)
        return result


class Functions:
    """Hold the function mode, and what it showed in this step."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.mode: _Mode | None = None
        self.retired: _Mode | None = None  # off, but still on torch's stack
        self._home = get_ident()
        self.fast = FastPaths(self._swept, put_back)
        self.means: dict[int, weakref.ref[torch.Tensor]] = {}
        self.recent: list[losses.LossCall] = []
        self.lines: dict[str, Place] = {}
        self._last_sequence = -1
        self._old: Place = NOWHERE
        self._nth: dict[Any, int] = {}
        self._squashed: dict[int, tuple[ModuleSeen, float]] = {}
        self.handlers = dict.fromkeys(RISKY, self._risky)
        self.handlers.update(dict.fromkeys(_ADDS, self._added))
        self.averages = watcher.averages
        self.handlers.update(dict.fromkeys(averages.MIXES, self._mixed))
        self.handlers.update(dict.fromkeys(_SUBS, self._subtracted))
        self.handlers.update(dict.fromkeys(_RELUS, self._rectified))
        self.handlers.update(dict.fromkeys(_SQUASHES, self._squashes))
        self.handlers.update(dict.fromkeys(losses.FUNCTIONS, self._lost))
        self.table: dict[str, Any] = self.handlers
        self._evaluation: dict[str, Any] = dict.fromkeys(losses.FUNCTIONS, self._evaluated)

    # -- on and off ----------------------------------------------------------------------------
    def look(self, on: bool, closely: bool = True) -> None:
        """Begin or end the function mode; modes that the user entered since stay.

        Args:
            on: whether to look.
            closely: at everything; False: at the losses of an evaluation.
        """
        self.table = self.handlers if closely else self._evaluation
        if on and self.mode is None:
            self.mode, self.retired = self.retired, None
            if self.mode is None:
                self._begin()
        elif not on and self.mode is not None:
            self.mode, self.retired = None, self.mode
            self.sweep()

    def _begin(self) -> None:
        if get_ident() != self._home:
            return  # a thread that ends with a mode of ours on its stack would end the process
        mode = _Mode(self)
        try:
            _enter(mode)
        except AttributeError as error:
            self.w.problem("functions", error)
            return
        self.mode = mode
        self.fast.begin()

    def lift(self) -> _Mode | None:
        """Take the mode off for a while; reading data is full of functions.

        Returns:
            What :func:`put_back` gets afterwards.
        """
        mode = self.mode
        if mode is None or mode.inside or not _taken(mode):
            return None
        mode.inside += 1
        return mode

    def _swept(self) -> _Mode | None:
        self.sweep()
        return self.lift()

    def sweep(self) -> None:
        """Take a mode that is off from torch's stack, unless torch will put it back there.

        ``loss.backward()`` is a function like others: while it runs, torch holds the modes itself.
        """
        mode = self.retired
        if mode is not None and not mode.inside and mode.thread == get_ident():
            self.retired = None
            _taken(mode)
            self.fast.end()

    def stepped(self) -> None:
        """Forget what belongs to one step."""
        self.means.clear()
        self.recent.clear()
        self._nth.clear()
        for seen, share in self._squashed.values():
            seen.looks += 1
            seen.saturated += (share - seen.saturated) / seen.looks
        self._squashed.clear()
        node = self.w.backwards.last_node
        if node is not None:
            self._last_sequence = max(self._last_sequence, _sequence(node))

    # -- losses --------------------------------------------------------------------------------
    def _lost(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if not isinstance(result, torch.Tensor):
            return
        call = losses.observe(self.w, name, args, kwargs, result)
        if call is None:
            return
        if call.given.grad_fn is not None:
            self._squashed = {
                k: v for k, v in self._squashed.items() if k != id(call.given.grad_fn)
            }
        if result.numel() == 1 and kwargs.get("reduction", "mean") in ("mean", "batchmean"):
            self.means[id(result)] = weakref.ref(result)
        if len(self.recent) < 8:
            self.recent.append(call)

    def _evaluated(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """Pass on a loss without a graph; others belong to training."""
        if isinstance(result, torch.Tensor) and not torch.is_grad_enabled():
            losses.observe(self.w, name, args, kwargs, result)

    def is_mean(self, loss: torch.Tensor) -> bool:
        """Say whether a tensor is what a criterion with the mean of a batch returned."""
        original = self.w.calls.original_of(loss)
        ref = self.means.get(original)
        if ref is None or ref() is None:
            return False
        for call in self.recent:
            if id(call.value) == original:
                call.seen.facts["plain"] = call.seen.facts.get("plain", 0) + 1
        return True

    # -- graphs --------------------------------------------------------------------------------
    def _added(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if not isinstance(result, torch.Tensor) or result.grad_fn is None or result.numel() > 1e6:
            return
        given = args[0] if name in ("stack", "cat") and args else args
        for one in given if isinstance(given, list | tuple) else ():
            if not isinstance(one, torch.Tensor) or one.grad_fn is None:
                continue
            if _sequence(one.grad_fn) <= self._last_sequence and not self._old.file:
                self._old = user_place(3)

    def old_graph(self) -> Place:
        """Return the line at which a tensor of an earlier step was added to."""
        return self._old

    def _mixed(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if name in _ADDS:
            self._added(name, args, kwargs, result)
        self.averages.mixed(args)

    def _subtracted(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        """See an outer difference where one by one was meant: (N, 1) and (N)."""
        if len(args) < 2 or not all(isinstance(a, torch.Tensor) for a in args[:2]):
            return
        one, two = args[0], args[1]
        if one.shape == two.shape or result.grad_fn is None:
            return
        if one.requires_grad == two.requires_grad:
            return
        outer = {tuple(one.shape), tuple(two.shape)}
        count = max(one.shape[0] if one.ndim else 0, two.shape[0] if two.ndim else 0)
        if count < 2 or outer != {(count, 1), (count,)} or result.shape != (count, count):
            return
        column = one if one.ndim == 2 else two
        if column.grad_fn is not None and "Unsqueeze" in column.grad_fn.name():
            return
        place = user_place(3)
        self.w.seen.note("outer-difference", "the loss", place, one=tuple(one.shape),
                         two=tuple(two.shape), result=tuple(result.shape))  # fmt: skip

    def _risky(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if name not in self.lines and isinstance(result, torch.Tensor) and result.requires_grad:
            self.lines[name] = user_place(3)

    def line_of(self, name: str) -> Place:
        """Return the user's line that called a risky function."""
        return self.lines.get(name, NOWHERE)

    # -- activations ---------------------------------------------------------------------------
    def _activation(self, name: str, result: torch.Tensor) -> ModuleSeen:
        """Return the facts about one use of an activation, told apart by its turn in a step."""
        stack = self.w.forwards.stack
        module = stack[-1] if stack else None
        base = (id(module), name, tuple(result.shape[1:]))
        turn = self._nth.get(base, 0)
        self._nth[base] = turn + 1
        key = hash((base, turn))
        seen = self.w.seen.modules.get(key)
        if seen is None:
            where = self.w.forwards.name_of(module) if module is not None else ""
            place = user_place(4)
            seen = ModuleSeen(where or name, name, where.partition(".")[0], {"place": place})
            seen.facts["turn"] = turn
            self.w.seen.modules[key] = seen
        return seen

    def _rectified(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if self.w.forwards._current is None or result.ndim < 2 or not result.requires_grad:
            return
        seen = self._activation(name, result)
        unit = result.ndim - 1 if result.ndim == 3 else 1
        values = result.detach()
        if values.ndim > 3:  # the largest value first: many times as fast as one of truth values
            values = values.flatten(2).amax(2)
        fired = (values.amax([d for d in range(values.ndim) if d != unit]) > 0).cpu()
        same = seen.alive is not None and seen.alive.shape == fired.shape
        seen.alive = (seen.alive | fired) if same else fired
        seen.looks = seen.looks + 1 if same else 1
        seen.samples += result.shape[0]
        seen.dead = 1.0 - float(seen.alive.float().mean())
        if seen.looks % 12 == 0:  # look anew, so that units which die later are seen
            seen.facts["dead"] = seen.dead
            seen.facts["samples"] = seen.samples
            seen.alive = torch.zeros_like(fired)

    def _squashes(self, name: str, args: Any, kwargs: Any, result: Any) -> None:
        if self.w.forwards._current is None or result.ndim < 2 or not result.requires_grad:
            return
        values = result.detach()
        end = values.abs() >= 1.0 if name.startswith("tanh") else (values >= 1.0) | (values < 4e-8)
        share = float(end.float().mean())
        self._squashed[id(result.grad_fn)] = (self._activation(name, result), share)
