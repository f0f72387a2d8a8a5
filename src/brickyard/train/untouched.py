"""Run something on a model, its optimizer and its data, and leave all as if it had not been."""

from __future__ import annotations

import functools
import random
import signal
import threading
import types
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler

from brickyard.optim import Optimizer as Ours

__all__ = ["Untouched"]

_WALKED = (
    nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler, DataLoader, Dataset,
    Sampler,
)  # fmt: skip
#: Longer lists and dictionaries of data are kept as they are, and not looked into.
_LONG = 1000


class Untouched:
    """Remember everything that training changes, and put it back at the end of a ``with`` block.

    Put back bit by bit, in place, so that whoever holds a tensor or a parameter group goes on
    holding the right one: parameters, buffers, gradients, training modes and plain attributes of
    modules, hooks; the optimizer's state, groups and counters; the random numbers of torch, NumPy
    and Python; generators and counters inside of losses, loaders, samplers and data sets. Also
    after an error or Ctrl-C, and another Ctrl-C waits until all is back.

    Args:
        live: models, losses, optimizers, functions bound to them: their tensors are copied.
        data: loaders and data sets: their tensors are not.
    """

    def __init__(self, live: Iterable[Any], data: Iterable[Any] = ()):
        self.live, self.data = list(live), list(data)
        self._undo: list[Callable[[], Any]] = []
        self._seen: dict[int, Any] = {}

    def __enter__(self) -> Untouched:
        self._undo, self._seen = [], {}
        self._remember_random()
        for one in self.live:
            self._visit(one, True)
        for one in self.data:
            self._visit(one, False)
        return self

    def __exit__(self, *error: object) -> None:
        asked: list[bool] = []
        main = threading.current_thread() is threading.main_thread()
        before = signal.signal(signal.SIGINT, lambda *_: asked.append(True)) if main else None
        try:
            for put_back in reversed(self._undo):
                put_back()
        finally:
            self._undo, self._seen = [], {}
            if main:
                signal.signal(signal.SIGINT, before)
        if asked:
            raise KeyboardInterrupt

    def _remember_random(self) -> None:
        self._keep(torch.set_rng_state, torch.get_rng_state())
        self._keep(np.random.set_state, np.random.get_state())
        self._keep(random.setstate, random.getstate())
        device = torch.accelerator.current_accelerator(check_available=True)
        module = None if device is None else torch.get_device_module(device)
        if module is not None and hasattr(module, "get_rng_state_all"):
            self._keep(module.set_rng_state_all, module.get_rng_state_all())

    def _keep(self, put: Callable[[Any], Any], value: Any) -> None:
        self._undo.append(lambda: put(value))

    def _visit(self, thing: Any, tensors: bool) -> None:
        """Remember an object and what it is made of, each once."""
        if id(thing) in self._seen or isinstance(thing, str | bytes | int | float | type(None)):
            return
        self._seen[id(thing)] = thing  # kept alive, so that the number stays its own
        if isinstance(thing, Tensor):
            if tensors:
                self._tensor(thing)
        elif isinstance(thing, torch.Generator):
            self._keep(thing.set_state, thing.get_state())
        elif isinstance(thing, np.random.Generator):
            self._keep(functools.partial(setattr, thing.bit_generator, "state"),
                       thing.bit_generator.state)  # fmt: skip
        elif isinstance(thing, np.random.RandomState):
            self._keep(thing.set_state, thing.get_state())
        elif isinstance(thing, random.Random):
            self._keep(thing.setstate, thing.getstate())
        elif isinstance(thing, dict | list | set | deque):
            self._container(thing, tensors)
        elif isinstance(thing, tuple):
            for one in thing:
                self._visit(one, tensors)
        elif isinstance(thing, types.MethodType):
            self._visit(thing.__self__, tensors)
        elif isinstance(thing, functools.partial):
            for one in (thing.func, *thing.args, *thing.keywords.values()):
                self._visit(one, tensors)
        elif isinstance(thing, _WALKED) or type(thing).__module__.startswith("brickyard."):
            if isinstance(thing, Ours):
                self._ours(thing)
            if hasattr(thing, "__dict__") and not isinstance(thing, type):
                self._visit(vars(thing), tensors)

    def _ours(self, optimizer: Ours) -> None:
        """Leave out what an optimizer makes anew from its groups and state, and have it do so."""
        engine = optimizer._engine
        self._seen[id(engine)] = engine
        self._keep(functools.partial(setattr, engine, "dirty"), True)

    def _container(self, thing: Any, tensors: bool) -> None:
        kept = thing.copy()

        def put_back() -> None:
            thing.clear()
            if isinstance(thing, list | deque):
                thing.extend(kept)
            else:
                thing.update(kept)

        self._undo.append(put_back)
        if tensors or len(thing) <= _LONG:
            for one in kept.values() if isinstance(thing, dict) else kept:
                self._visit(one, tensors)

    def _tensor(self, t: Tensor) -> None:
        leaf = t.is_leaf
        grad, needed = (t.grad, t.requires_grad) if leaf else (None, False)
        value = t.detach().clone()

        def put_back() -> None:
            with suppress(RuntimeError):  # one that views another has its value from there
                if t.shape != value.shape or t.dtype != value.dtype:
                    t.data = value
                else:
                    t.detach().copy_(value)
            if leaf:
                t.requires_grad_(needed)
                t.grad = grad

        self._undo.append(put_back)
        if grad is not None:
            self._visit(grad, True)
