"""Ask a model questions on a copy: does a sample see others, the future, noise in evaluation?

The copy shares the weights (no gradient is computed, none is changed) and owns its buffers. Random
generators of torch, NumPy and Python are put back bit by bit.
"""

from __future__ import annotations

import copy
import random
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn, overrides

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe import inputs, questions, tokens
from brickyard.doctor.observe.record import NOWHERE, Place
from brickyard.doctor.observe.tensors import first_tensor, tensors, with_tensors

if TYPE_CHECKING:
    from brickyard.doctor.observe.forward import Call
    from brickyard.doctor.observe.watcher import Watcher

#: Larger models are asked without a copy of their modules' attributes only; none is copied here.
_MOST_SECONDS = 0.5
#: Samples that a question is asked with.
_ROWS = 16
_DROPS = ("dropout", "dropout_", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout",
          "feature_alpha_dropout", "feature_dropout")  # fmt: skip


class _Drops(overrides.TorchFunctionMode):
    """Remember functional dropout that acts."""

    def __init__(self) -> None:
        super().__init__()
        self.met: list[tuple[str, float, Place]] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "")
        if name in _DROPS:
            from brickyard.doctor.observe.places import user_place

            p = kwargs.get("p", args[1] if len(args) > 1 else 0.5)
            training = kwargs.get("training", args[2] if len(args) > 2 else True)
            if training and p > 0:
                self.met.append((name, float(p), user_place(2)))
        return func(*args, **kwargs)


class Probes:
    """Run the questions of the first steps."""

    def __init__(self, watcher: Watcher) -> None:
        self.w = watcher
        self.asks = True  # copies of models may be called
        self.before: weakref.WeakKeyDictionary[nn.Module, list[torch.Tensor]]
        self.before = weakref.WeakKeyDictionary()

    def called(self, call: Call) -> None:
        """Look at what a model was given and what it answered."""
        inputs.observe(self.w, call)

    def stepped(self, calls: list[Call]) -> None:
        """Ask what can be asked after a step."""
        if not self.asks:
            return
        step = self.w.seen.step
        done: set[int] = set()
        for call in calls:
            if id(call.module) in done or call.output is None:
                continue
            done.add(id(call.module))
            root = call.root
            if call.training:
                inputs.answers(self.w, call)
                if step >= T.SHIFT_STEPS:
                    with self.w.own_time("tokens"):
                        tokens.answers(self.w, call)
            mixes = f"mix{id(call.module)}" not in root.probed and self._new_data(call)
            # together at the second step, so that one copy serves them all
            due = {"mix": mixes, "eval": step >= 2, "time": step >= 2}
            self._ask(call, [name for name, now in due.items() if now])
        if step >= T.FIRST_STEPS:
            questions.labels_matter(self.w)
        if self.w.seen.epoch >= 2:
            self._gap(calls)

    def _new_data(self, call: Call) -> bool:
        """Say whether a model is given other data than the step before: batches, not a whole."""
        given = [t for t in tensors((call.args, call.kwargs)) if t.ndim >= 1]
        before = self.before.get(call.module)
        self.before[call.module] = [t.detach()[:64].clone() for t in given[:1]]
        if before is None or not given or not before:
            return False
        now = given[0].detach()[:64]
        return now.shape != before[0].shape or not bool((now == before[0]).all())

    def _ask(self, call: Call, names: list[str]) -> None:
        """Ask questions that were not asked yet on one copy, in evaluation mode."""
        keys = {name: f"{name}{id(call.module)}" for name in _QUESTIONS}
        names = [name for name in names if keys[name] not in call.root.probed]
        if not names:
            return
        call.root.probed.update(keys[name] for name in names)
        with self.w.own_time("probe copy"), untouched(), torch.no_grad():
            twin = twin_of(call.module)
            if twin is None:
                return
            twin.eval()
            asked = Asked(twin, call)
            for name in names:
                begun = perf_counter()
                with self.w.own_time(f"probe {name}"):
                    _QUESTIONS[name](self.w, call, asked)
                if perf_counter() - begun > _MOST_SECONDS:  # a large model: others cost too much
                    call.root.probed.update(keys.values())
                    return

    def _gap(self, calls: list[Call]) -> None:
        """Compare a batch's loss in training mode with that in evaluation mode."""
        recent = [c for c in self.w.functions.recent if c.value.numel() == 1]
        if len(recent) != 1 or len(calls) != 1 or not calls[0].training:
            return
        call, loss = calls[0], recent[0]
        norms = [m for m in call.module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        if not any(m.training and m.track_running_stats for m in norms):
            return
        if call.output is not loss.given or self.w.seen.step < 20:
            return
        with self.w.own_time("probe train-eval-gap"), untouched(), torch.no_grad():
            twin = twin_of(call.module)
            if twin is None:
                return
            questions.mode_gap(self.w, call, loss, twin)


class Asked:
    """Call a copy of a model with its inputs changed, always with the same random numbers."""

    def __init__(self, twin: nn.Module, call: Call) -> None:
        self.twin = twin
        self.drops: list[tuple[str, float, Place]] = []
        self._base: list[torch.Tensor | None] = []
        self.rows: int | None = None
        self._take(call)
        lengths, out = {t.shape[0] for t in self.given}, first_tensor(call.output)
        # numbers may be places among the rows, and would lead out of fewer
        numbers = len(self.given) > 1 and not all(t.is_floating_point() for t in self.given)
        if numbers or len(lengths) != 1 or max(lengths) <= _ROWS or out is None:
            return
        self.rows = next(n for n in range(_ROWS, 0, -1) if n not in out.shape[1:])
        self._take(call)
        try:
            self.base()
        except Exception:  # a model for one size of batch only
            self.take_all(call)

    def take_all(self, call: Call) -> None:
        """Go over to all rows of the inputs."""
        self.rows = None
        self._base.clear()
        self._take(call)

    def _take(self, call: Call) -> None:
        """Take a call's inputs, or the first rows of all of them: they answer as well."""
        rows = self.rows

        def part(t: torch.Tensor) -> torch.Tensor:
            return t.detach()[:rows] if t.ndim >= 1 else t.detach()

        self.args, self.kwargs = with_tensors(call.args, part), with_tensors(call.kwargs, part)
        self.given = [t for t in tensors((self.args, self.kwargs)) if t.ndim >= 1]

    def base(self) -> torch.Tensor | None:
        """Return the output for the inputs as they are; one pass serves all questions."""
        if not self._base:
            with _Drops() as drops:
                self._base.append(self())
            self.drops = drops.met
        return self._base[0]

    def repeats(self) -> bool:
        """Say whether the same inputs and random numbers give the same output once more."""
        base, again = self.base(), self()
        return base is not None and again is not None and torch.equal(base, again)

    def __call__(self, old: Any = None, new: Any = None, seed: int = 0) -> torch.Tensor | None:
        """Return the first output; with tensor ``old`` replaced by ``new`` among the inputs."""

        def change(t: torch.Tensor) -> torch.Tensor:
            return new if t is old else t.clone()

        _seed(seed)
        out = self.twin(*with_tensors(self.args, change), **with_tensors(self.kwargs, change))
        found = next((t for t in tensors(out) if t.ndim >= 2), first_tensor(out))
        return found.detach().float() if found is not None and found.is_floating_point() else None


def twin_of(model: nn.Module) -> nn.Module | None:
    """Return a copy of a model that shares its parameters and owns its buffers.

    Args:
        model: the model; None is returned when it cannot be copied.
    """
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    for module in model.modules():
        for value in vars(module).values():
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                memo[id(value)] = value.detach()
        for table in (module._forward_hooks, module._forward_pre_hooks):
            for hook in table.values():
                memo[id(hook)] = hook
    try:
        return copy.deepcopy(model, memo)
    except Exception:
        return None


def _seed(seed: int) -> None:
    """Seed what draws here; ``torch.manual_seed`` would also queue seeds for devices not in use."""
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    np.random.seed(seed)
    random.seed(seed)


@contextmanager
def untouched() -> Iterator[None]:
    """Put back all random generators after the block."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
        if cuda is not None:
            torch.cuda.set_rng_state_all(cuda)


def _noise_in_evaluation(w: Watcher, call: Call, asked: Asked) -> None:
    """See whether two passes with other random numbers differ, and by which dropout."""
    one = asked.base()
    if one is None or not asked.drops:
        return
    two = asked(seed=2)
    if two is None or one.shape != two.shape:
        return
    change = questions.relative(one, two)
    meant = all("training" in place.text for _, _, place in asked.drops)
    if change > 1e-5 and not meant:
        name, p, place = next(m for m in asked.drops if "training" not in m[2].text)
        w.seen.note("noise-in-eval", call.root.name, place or NOWHERE, change=change, by=name, p=p)


_QUESTIONS = {
    "mix": questions.samples_mix, "eval": _noise_in_evaluation, "time": questions.future_seen,
}  # fmt: skip
