"""The training loop: one order of things, in one place, and nobody else calls it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from time import perf_counter as now
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from brickyard.clip import joint_norm
from brickyard.errors import RunError
from brickyard.regularize import EarlyStopping
from brickyard.train.data import Batches
from brickyard.train.evaluate import Evaluator

PHASES = ("data", "forward", "backward", "step", "evaluate", "checkpoint")


class Diverged(RunError):  # noqa: N818  an outcome, and the word that users search for
    """The loss is not finite any more."""


@dataclass
class Parts:
    """Hold what a loop needs, already built; any of it may be the user's own.

    Args:
        model: the network, on its device.
        loss: called with the model's output and the targets.
        optimizer: any torch optimizer.
        train: training batches.
        total: steps to train.
        evaluator: validation; none to train blindly.
        evaluate_every: steps between evaluations.
        scheduler: anything with torch's scheduler interface; stepped after every step.
        clip: takes the parameters, returns the norm before clipping.
        target: turns the batch's targets into the loss's.
        penalties: each takes the model and returns a tensor that is added to the loss.
        constraints: each is called with the model after every step.
        stopping: says when to stop early.
        autocast: context of the forward pass.
        log_every: steps between training rows.
        checkpoint_every: steps between checkpoints; 0 when listeners go by the clock.
    """

    model: nn.Module
    loss: Callable[[Tensor, Tensor], Tensor]
    optimizer: Optimizer
    train: Batches
    total: int
    evaluator: Evaluator | None = None
    evaluate_every: int = 0
    scheduler: Any = None
    clip: Callable[[list[Tensor]], Tensor] | None = None
    target: Callable[[Tensor], Tensor] | None = None
    penalties: Sequence[Callable[[nn.Module], Tensor]] = ()
    constraints: Sequence[Callable[[nn.Module], None]] = ()
    stopping: EarlyStopping | None = None
    autocast: AbstractContextManager[Any] = field(default_factory=nullcontext)
    log_every: int = 10
    checkpoint_every: int = 0


@dataclass
class State:
    """Hold where a run stands; everything here goes into checkpoints."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    window: list[Tensor | float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


class Listener(Protocol):
    """Hear what happens in a loop; the loop ignores what listeners return."""

    def logged(self, loop: Loop, values: dict[str, float]) -> None:
        """Hear of a training row."""

    def evaluated(self, loop: Loop, values: dict[str, float], best: bool) -> None:
        """Hear of an evaluation, and whether it is the best so far."""

    def boundary(self, loop: Loop) -> None:
        """Hear that a step is complete and everything is consistent: the time to checkpoint."""


class Loop:
    """Train ``parts`` from ``state`` until the budget, early stopping or a request ends it.

    Args:
        parts: what is trained, and how.
        listeners: who hears of rows, evaluations and steps.
        state: where to go on from.
    """

    def __init__(
        self, parts: Parts, listeners: Sequence[Listener] = (), state: State | None = None
    ):
        self.parts = parts
        self.listeners = list(listeners)
        self.state = state or State()
        self.stop_requested = False
        self.params: list[Tensor] = [p for p in parts.model.parameters() if p.requires_grad]

    def run(self) -> str:
        """Train; return why it ended: ``"budget"``, ``"early_stop"`` or ``"interrupted"``.

        Raises:
            Diverged: the loss is not finite.
        """
        state, total = self.state, self.parts.total
        self.parts.model.train()
        while state.step < total and not self.stop_requested:
            reason = self._epoch()
            if reason:
                return reason
            if state.batch >= len(self.parts.train):
                state.epoch, state.batch = state.epoch + 1, 0
        return "budget" if state.step >= total else "interrupted"

    def _epoch(self) -> str:
        """Train to the end of the epoch; return a reason to end the run, if there is one."""
        parts, state, seconds = self.parts, self.state, self.state.seconds
        model, optimizer, target = parts.model, parts.optimizer, parts.target
        norm: Tensor | None = None
        due = self._next_event()
        mark = now()
        for x, y in parts.train.epoch(state.epoch, start=state.batch):
            t0 = now()
            optimizer.zero_grad()
            with parts.autocast:
                loss = parts.loss(model(x), y if target is None else target(y))
                for penalty in parts.penalties:
                    loss = loss + penalty(model)
            t1 = now()
            loss.backward()
            t2 = now()
            if parts.clip is not None:
                norm = parts.clip(self.params)
            if norm is None or math.isfinite(norm):
                optimizer.step()
            else:
                state.skipped += 1
            for constrain in parts.constraints:
                constrain(model)
            if parts.scheduler is not None:
                parts.scheduler.step()
            state.window.append(loss.detach())
            state.step += 1
            state.batch += 1
            t3 = now()
            seconds["data"] += t0 - mark
            seconds["forward"] += t1 - t0
            seconds["backward"] += t2 - t1
            seconds["step"] += t3 - t2
            if state.step >= due or self.stop_requested:
                reason = self._events(norm)
                if reason or self.stop_requested or state.step >= parts.total:
                    return reason
                due = self._next_event()
            mark = now()
        return ""

    def _next_event(self) -> int:
        """Return the next step at which something other than training is due."""
        parts, step = self.parts, self.state.step
        every = [parts.log_every, parts.evaluate_every, parts.checkpoint_every]
        return min([parts.total, *(step - step % n + n for n in every if n)])

    def _events(self, norm: Tensor | None) -> str:
        parts, state = self.parts, self.state
        at_end = state.step >= parts.total
        if state.step % parts.log_every == 0 or at_end:
            self._log(norm)
        stop = False
        due = parts.evaluate_every and state.step % parts.evaluate_every == 0
        if parts.evaluator is not None and (due or at_end):
            stop = self._evaluate(parts.evaluator)
        for listener in self.listeners:
            listener.boundary(self)
        return "early_stop" if stop and not at_end else ""

    def _log(self, norm: Tensor | None) -> None:
        state = self.state
        if not state.window:
            return
        loss = math.fsum(map(float, state.window)) / len(state.window)
        if norm is None:
            grads = [p.grad for p in self.params if p.grad is not None]
            norm = joint_norm(grads) if grads else torch.zeros(())
        values = {"loss": loss, "lr": self.rate(), "grad_norm": float(norm)}
        state.window.clear()
        for listener in self.listeners:
            listener.logged(self, values)
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at step {state.step} (gradient norm {float(norm):.4g}, "
                f"rate {self.rate():.4g}); lower the rate, add warmup or clipping, and check the "
                "data for non-finite values"
            )

    def _evaluate(self, evaluator: Evaluator) -> bool:
        """Evaluate in eval mode, keep the best, and say whether to stop early."""
        state, start = self.state, now()
        values = evaluator.run(self.parts.model)
        state.seconds["evaluate"] += now() - start
        value = values[evaluator.monitor]
        best = not state.best or evaluator.better(value, state.best["val"][evaluator.monitor])
        if best:
            state.best = {"step": state.step, "epoch": self.epochs(), "val": values}
        for listener in self.listeners:
            listener.evaluated(self, values, best)
        stopping = self.parts.stopping
        return stopping is not None and stopping.update(values[stopping.monitor])

    def rate(self) -> float:
        """Return the learning rate of the first group."""
        return float(self.parts.optimizer.param_groups[0]["lr"])

    def epochs(self) -> float:
        """Return how many epochs have been trained, with the fraction."""
        return self.state.step / len(self.parts.train)
