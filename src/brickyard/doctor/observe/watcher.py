"""Watch one process: count steps, decide which are looked at closely, undo everything.

Most steps are only counted: a handful of Python calls. Every few steps the watcher looks closely:
module hooks and a function mode are in place from the end of one optimizer step to the end of the
next. The first steps of a run and of its first epochs are always looked at, later ones ever more
rarely, and not while the doctor has used more than its share of the time.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from threading import Thread, current_thread, get_ident
from time import perf_counter
from typing import Any

import torch

from brickyard.doctor import thresholds as T
from brickyard.doctor.observe import static
from brickyard.doctor.observe.averages import Averages
from brickyard.doctor.observe.backward import Backwards
from brickyard.doctor.observe.calls import Calls
from brickyard.doctor.observe.data import Data
from brickyard.doctor.observe.evaluations import Evaluations
from brickyard.doctor.observe.forward import Forwards, Root
from brickyard.doctor.observe.functions import Functions, put_back
from brickyard.doctor.observe.optimizers import Optimizers
from brickyard.doctor.observe.patches import Patches
from brickyard.doctor.observe.places import user_place
from brickyard.doctor.observe.probes import Probes
from brickyard.doctor.observe.record import Seen
from brickyard.doctor.observe.swaps import Swaps
from brickyard.doctor.observe.ties import Ties

_ACTIVE: list[Watcher] = []


def _forked() -> None:
    """Leave a forked process alone: workers of data loaders are no business of ours."""
    for watcher in _ACTIVE:
        watcher.active = False
        watcher.pause()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


class _Own:
    """Guard a block of our own code; a class, since generators cost microseconds more."""

    __slots__ = ("begun", "lifted", "name", "watcher")

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.name = ""
        self.lifted: Any = None

    def __enter__(self) -> None:
        watcher = self.watcher
        watcher.inside = True
        self.begun = perf_counter()
        # reading tensors is full of calls, and each takes twice as long under a mode
        if watcher.functions.mode is not None:
            self.lifted = watcher.functions.lift() or self.lifted

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        watcher = self.watcher
        if self.lifted is not None and self.lifted.thread == get_ident():
            put_back(self.lifted)
            self.lifted = None
        watcher.inside = False
        watcher.own += perf_counter() - self.begun
        return kind is None or watcher.kept(self.name, kind, error)


class _Inner:
    """Guard a block within a guarded one: only its errors are its own."""

    __slots__ = ("name", "watcher")

    def __init__(self, watcher: Watcher, name: str) -> None:
        self.watcher = watcher
        self.name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool:
        return kind is None or self.watcher.kept(self.name, kind, error)


class Watcher:
    """Observe torch in this process between :meth:`start` and :meth:`stop`.

    Args:
        limit: stop after so many steps.
        on_limit: called then.
        on_check: called at the steps at which it pays to judge what was seen.
    """

    def __init__(
        self, limit: int | None = None, on_limit: Callable[[], None] | None = None,
        on_check: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self.limit = limit
        self.on_limit = on_limit
        self.on_check = on_check
        self.seen = Seen()
        self.problems: dict[str, str] = {}
        self.active = False
        self.inside = False  # our own torch calls are running
        self.thread: Thread | None = None  # that trains: others beside it are left alone
        self._ident = 0
        self.deep = False
        self.eager = True  # nothing is compiled: modules and functions can be looked at
        self.own = 0.0  # seconds spent here
        self.begun = 0.0
        self.ended = 0.0
        self.pid = os.getpid()
        self.guard = _Own(self)  # what :meth:`own_time` returns, for what is called at each step
        self.patches = Patches()
        self.forwards = Forwards(self)
        self.averages = Averages(self)
        self.functions = Functions(self)
        self.optimizers = Optimizers(self)
        self.backwards = Backwards(self)
        self.calls = Calls(self)
        self.data = Data(self)
        self.evaluations = Evaluations(self)
        self.probes = Probes(self)
        self.swaps = Swaps(self)
        self.ties = Ties(self)
        self._until = T.FIRST_STEPS  # look closely up to this step
        self._next = T.SECOND_LOOK  # and again from this one
        self.judged = -1

    def start(self) -> None:
        """Install hooks and patches."""
        if _ACTIVE:  # an outer block watches already: it sees what happens in this one
            _ACTIVE[-1].pause()
        _ACTIVE.append(self)
        self.begun = perf_counter()
        self.active = True
        parts = (self.forwards, self.optimizers, self.backwards, self.calls, self.data)
        for part in (*parts, self.averages):
            try:
                part.install(self.patches)
            except Exception as error:  # another torch: what this part would see is not seen
                self.problem(type(part).__name__.lower(), error)
        self._look(True)

    def pause(self) -> None:
        """Stop looking closely, without forgetting anything."""
        self.evaluations.close()
        self._look(False)

    def stop(self) -> None:
        """Take everything back; safe to call again."""
        self.thread, self._ident = None, 0
        if not self.active:
            self.functions.sweep()  # another thread may have ended it
            return
        self.active = False
        self.ended = perf_counter()
        self.evaluations.close()
        self._look(False)
        with self.own_time("end"):
            self.functions.sweep()
            self.functions.fast.end()
            self.swaps.at_end()
            self.averages.at_end()
            self.data.at_end()
        self.patches.undo()
        if self in _ACTIVE:
            _ACTIVE.remove(self)

    # -- errors and time -------------------------------------------------------------------------
    def problem(self, name: str, error: BaseException) -> None:
        """Remember an error of our own; the run goes on."""
        trace = error.__traceback__
        while trace is not None and trace.tb_next is not None:
            trace = trace.tb_next
        at = ""
        if trace is not None:
            code = trace.tb_frame.f_code
            at = f" ({os.path.basename(code.co_filename)}:{trace.tb_lineno})"
        self.problems.setdefault(name, f"{type(error).__name__}: {error}{at}")

    def kept(self, name: str, kind: type, error: BaseException) -> bool:
        """Say whether an exception stays inside: errors do, an interrupt goes on."""
        if issubclass(kind, Exception):
            self.problem(name, error)
            return True
        return False

    def own_time(self, name: str) -> _Own | _Inner:
        """Count the time of a block as ours, keep its errors inside, and ignore its torch calls."""
        if self.busy:
            return _Inner(self, name)
        self.guard.name = name
        return self.guard

    def lifted(self, mode: Any = None) -> Any:
        """Exchange the mode that comes back at the end of the block of ours that is under way.

        Args:
            mode: what comes back instead; None: nothing, it stays off.
        """
        before, self.guard.lifted = self.guard.lifted, mode
        return before

    @property
    def busy(self) -> bool:
        """Say whether what happens is not to be looked at: it is ours, or another thread's."""
        return self.inside or (self._ident != get_ident() and self._beside())

    def _beside(self) -> bool:
        """Say whether the thread that trains is another one, and still alive."""
        if self.thread is not None and not self.thread.is_alive():
            self.thread, self._ident = None, 0
        return self.thread is not None

    def follow(self) -> None:
        """Follow this thread, which trains, as long as it lives."""
        self.thread, self._ident = current_thread(), get_ident()

    @property
    def share(self) -> float:
        """Return our share of the time so far."""
        return self.own / max(perf_counter() - self.begun - self.own, 1e-9)

    # -- steps -----------------------------------------------------------------------------------
    def tick(self) -> None:
        """Go on to the next step: called at the end of each."""
        waiting = self.deep or self.functions.retired is not None or self.limit is not None
        if not waiting and self.seen.step < self._next:
            return  # nearly always
        try:
            self._tick()
        except Exception as error:
            self.problem("observation", error)

    def _tick(self) -> None:
        self.functions.sweep()
        seen = self.seen
        step = seen.step
        if self.limit is not None and step >= self.limit:
            self._judge()
            callback, self.on_limit = self.on_limit, None
            self.stop()
            if callback is not None:
                callback()
            return
        if self.deep:
            ends = step >= self._until
            if ends or step <= T.FIRST_STEPS:
                self._judge()
            if ends:
                self._look(False)
        if step >= self._next:
            self._next = step * T.LOOK_FACTOR if step < T.RARE_LOOKS else step + T.RARE_LOOKS
            if step <= T.ALWAYS_LOOKS or self.share < T.SHARE:
                self.look_for(T.WINDOW)

    def look_for(self, steps: int) -> None:
        """Look closely at the next steps.

        Args:
            steps: how many.
        """
        self._until = max(self._until, self.seen.step + steps)
        self._look(True)

    def introduce(self, model: torch.nn.Module) -> None:
        """Get to know a model before it is called.

        Args:
            model: what will be trained.
        """
        with self.own_time("models"):
            root = Root(weakref.ref(model), "model", user_place(3))
            self.forwards.roots[id(model)] = root
            static.describe(self.seen, model, root.name)
            self.forwards._name(root)
            self.ties.meet(root)

    def compiled(self) -> None:
        """Hear of torch.compile: it would trace our hooks, so that only steps are followed on."""
        self.eager = False
        self.evaluations.close()
        self.forwards.look(False)
        self.functions.look(False)

    def new_epoch(self) -> None:
        """Hear that training data begin again."""
        self.seen.epoch += 1
        self.seen.epoch_steps.append(self.seen.step)
        epoch = self.seen.epoch
        if epoch > 1:
            if epoch <= 3 or epoch & (epoch - 1) == 0:
                self._judge()
            if self.seen.epoch <= T.EPOCHS_LOOKED or self.share < T.SHARE:
                self.look_for(T.WINDOW)

    def _judge(self) -> None:
        if self.on_check is not None and self.judged != self.seen.step:
            self.judged = self.seen.step
            with self.own_time("checks"):
                self.data.gather()
                self.on_check()

    def _look(self, on: bool) -> None:
        """Begin or end looking closely."""
        if on == self.deep:
            return
        self.deep = on
        open_ = self.evaluations.open
        for name, look in (
            ("modules", lambda: self.forwards.look(on and self.eager)),
            ("functions",
             lambda: self.functions.look((on or open_) and self.eager, on or not open_)),
            ("optimizers", lambda: self.optimizers.look(on)),
        ):  # fmt: skip
            try:
                look()
            except Exception as error:
                self.problem(name, error)


def active() -> Watcher | None:
    """Return the watcher at work in this process, if any."""
    return _ACTIVE[-1] if _ACTIVE else None
