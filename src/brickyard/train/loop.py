"""The training loop: one order of things, in one place, and nobody else calls it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from time import perf_counter as now

import torch
from torch import Tensor, nn

from brickyard.clip import joint_norm
from brickyard.train.closure import NonFinite, Repeatable, needs_closure
from brickyard.train.diagnosis import diagnose
from brickyard.train.evaluate import Evaluator
from brickyard.train.parts import PHASES, Batch, Diverged, Listener, Parts, State

#: Steps in a row that an optimizer or a loss scale may leave out before it is an error.
MOST_SKIPS = 200

__all__ = ["PHASES", "Batch", "Diverged", "Listener", "Loop", "Parts", "State"]


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
        self.stop_requested = self.asked = False
        self.training: dict[str, float] = {}
        self.raw: dict[str, float] = {}
        self.norm: Tensor | None = None
        self._by_closure = needs_closure(parts.optimizer)
        self._trained = parts.task.trained(parts.model)
        self._taken = False
        self._window: Sequence[Batch] = ()
        self._loss: Tensor | float = math.nan
        # On other devices it would wait for every step; there, rows and clipping look.
        # Of several processes, all must come to the same decision: the norm is the same for all.
        alone, cheap = parts.ranks is None, _device(parts.model).type == "cpu"
        self._looks = alone and (cheap or parts.allowed_skips > 0)
        self._sums = getattr(parts.loss, "reduction", "") == "sum"
        held = {id(p) for group in parts.optimizer.param_groups for p in group["params"]}
        self.params: list[Tensor] = [
            p for p in parts.model.parameters() if p.requires_grad and id(p) in held
        ]

    def run(self) -> str:
        """Train; return why it ended: ``"budget"``, ``"early_stop"`` or ``"interrupted"``.

        Raises:
            Diverged: the loss is not finite.
        """
        state, total = self.state, self.parts.total
        self.parts.model.train()
        while state.step < total and not self.stop_requested:
            if self.parts.stopping is not None and self.parts.stopping.stopped:
                return "early_stop"  # resumed after it was decided, and before it was written down
            reason = self._epoch()
            if reason:
                return reason
            if state.batch >= len(self.parts.train):
                state.epoch, state.batch = state.epoch + 1, 0
        return "budget" if state.step >= total else "interrupted"

    def ask_to_stop(self) -> None:
        """Let the run end after the present step; several processes end after the same one."""
        self.asked = True
        self.stop_requested = self.stop_requested or self.parts.ranks is None

    def _epoch(self) -> str:
        """Train to the end of the epoch; return a reason to end the run, if there is one."""
        parts, state, seconds = self.parts, self.state, self.state.seconds
        step = self._step_by_closure if self._by_closure else self._step
        due = self._next_event()
        mark = now()
        for window in self._windows():
            t0 = now()
            known = seconds["forward"] + seconds["backward"]
            loss = step(window)
            state.batch += len(window)
            if self._taken:
                self._after_step()
                if parts.scheduler is not None:
                    parts.scheduler.step()
                state.window.append(loss)
                state.step, state.in_row = state.step + 1, 0
            seconds["data"] += t0 - mark
            seconds["step"] += now() - t0 - (seconds["forward"] + seconds["backward"] - known)
            if (self._taken and state.step >= due) or self.stop_requested:
                reason = self._events() if self._taken else ""
                if reason or self.stop_requested or state.step >= parts.total:
                    return reason
                due = self._next_event()
            mark = now()
        return ""

    def _after_step(self) -> None:
        """Constrain the new weights, and let the task, averages and snapshots see them."""
        parts = self.parts
        for constrain in parts.constraints:
            constrain(self._trained)
        parts.task.stepped(parts.model)
        if parts.average is not None:
            parts.average.update()
        if parts.snapshots is not None:
            parts.snapshots.update()

    def _windows(self) -> Iterator[list[Batch]]:
        """Yield the batches of each step, to the end of the epoch."""
        window: list[Batch] = []
        for batch in self.parts.train.epoch(self.state.epoch, start=self.state.batch):
            window.append(batch)
            if len(window) == self.parts.accumulate:
                yield window
                window = []
        if window:
            yield window

    def _step(self, window: Sequence[Batch]) -> Tensor:
        """Take one step and return its loss: the order of things in training."""
        parts = self.parts
        self._window = window = parts.task.prepare(parts.model, window)
        parts.optimizer.zero_grad()
        if parts.telemetry is not None:
            parts.telemetry.before(self.state.step + 1)
        self._loss = loss = self._gradients(window)
        fine = not self._looks or math.isfinite(loss)
        if fine and parts.scaler is not None:  # unscales, clips, steps
            self._taken, self.norm = parts.scaler.step(parts.optimizer, self.params, parts.clip)
        elif fine and self._clip():
            if parts.curvature is not None:
                parts.curvature(*window[0])
            parts.optimizer.step()
            self._taken = not getattr(parts.optimizer, "last_skipped", False)
        else:
            self._refuse()
        if not self._taken:
            self._skip()
        return loss

    def _step_by_closure(self, window: Sequence[Batch]) -> Tensor:
        """Take one step of an optimizer that asks for gradients itself, maybe several times.

        Every time it gets the same function of the weights: same batches, same random numbers.
        The first answer is what is logged.
        """
        self._window = window = self.parts.task.prepare(self.parts.model, window)
        again, losses = Repeatable(window[0][0].device), list[Tensor]()

        def closure() -> Tensor:
            again.start()
            self.parts.optimizer.zero_grad()
            losses.append(self._gradients(window, count=not losses))
            self._loss = losses[-1]
            fine = len(losses) > 1 or math.isfinite(losses[0])  # a line search may look too far
            if not (fine and self._clip()):
                raise NonFinite
            return losses[-1]

        try:
            self.parts.optimizer.step(closure)  # pyright: ignore
            self._taken = True
        except NonFinite:
            self._refuse()
            self._skip()
        return losses[0]

    def _gradients(self, window: Sequence[Batch], count: bool = True) -> Tensor:
        """Add the gradients of the mean loss over a window of batches; return that loss."""
        parts, seconds = self.parts, self.state.seconds
        model, task = parts.model, parts.task
        several = len(window) > 1 and not self._sums
        whole = sum(task.weigh(y) for _, y in window) if several else 0
        ranks = parts.ranks
        if ranks is not None:
            whole, stop = ranks.agree(window, task.weigh, self._sums, self.asked)
            self.stop_requested = self.stop_requested or stop
        total: Tensor | None = None
        for i, (x, y) in enumerate(window):
            t0 = now()
            if ranks is not None:
                ranks.quiet(i + 1 < len(window))
            with parts.autocast:
                output = task.forward(model, x) if ranks is None else ranks.forward(x)
                loss = task.loss(parts.loss, output, x, y)
                if parts.teacher is not None:
                    loss = parts.teacher(x, output, loss)
                if parts.adversary is not None:
                    loss = self._attacked(x, task.target(y), loss)
                if whole:
                    loss = loss * (1 / whole if self._sums else task.weigh(y) / whole)
                if total is None:
                    for penalty in parts.penalties:
                        loss = loss + penalty(self._trained)
            t1 = now()
            (loss if parts.scaler is None else parts.scaler.scale(loss)).backward()
            seconds["forward"] += t1 - t0
            seconds["backward"] += now() - t1
            if count and parts.tally is not None:
                parts.tally.add(output, y)
            total = loss.detach() if total is None else total + loss.detach()
        return total  # pyright: ignore[reportReturnType]  # a window has a batch

    def _attacked(self, x: Tensor, target: Tensor, loss: Tensor) -> Tensor:
        """Return the adversarial loss; the attack's gradients are scaled as all others are."""
        parts = self.parts
        if parts.adversary is None or parts.scaler is None:
            return loss if parts.adversary is None else parts.adversary(
                parts.model, parts.loss, x, target, loss)  # fmt: skip
        criterion, scale = parts.loss, parts.scaler.value
        scaled = parts.adversary(
            parts.model, lambda *given: criterion(*given) * scale, x, target, loss * scale
        )
        return scaled / scale

    def _clip(self) -> bool:
        """Clip the gradients; say whether a step may be taken with them."""
        if self.parts.clip is None:
            return True
        self.norm = self.parts.clip(self.params)
        return math.isfinite(self.norm)

    def _refuse(self) -> None:
        """Leave a step out whose loss or gradients are not finite, or end the run over it."""
        self._taken = False
        if self.state.in_row >= self.parts.allowed_skips:
            raise Diverged(diagnose(self.parts, self.state, self._window, self._loss))

    def _skip(self) -> None:
        """Count a step that was not taken: nothing advances but the data."""
        self.state.skipped += 1
        self.state.in_row += 1
        if self.state.in_row > max(MOST_SKIPS, self.parts.allowed_skips):
            raise Diverged(diagnose(self.parts, self.state, self._window, self._loss))

    def _next_event(self) -> int:
        """Return the next step at which something other than training is due."""
        parts, step = self.parts, self.state.step
        every = [
            parts.log_every, parts.evaluate_every, parts.checkpoint_every, parts.keep_every,
        ]  # fmt: skip
        return min([parts.total, *(step - step % n + n for n in every if n)])

    def _events(self) -> str:
        parts, state = self.parts, self.state
        at_end = state.step >= parts.total
        norm = self._joint_norm()
        if state.step % parts.log_every == 0 or at_end:
            self._log(norm)
        if not math.isfinite(norm):  # the step is taken, and must not get into a checkpoint
            raise Diverged(diagnose(parts, state, self._window, self._loss, taken=True))
        stop = False
        due = parts.evaluate_every and state.step % parts.evaluate_every == 0
        if parts.evaluator is not None and (due or at_end):
            stop = self._evaluate(parts.evaluator)
        for listener in self.listeners:
            listener.boundary(self)
        return "early_stop" if stop and not at_end else ""

    def _log(self, norm: float) -> None:
        state, parts = self.state, self.parts
        if not state.window:
            return
        losses = [float(value) for value in state.window]
        if self.parts.ranks is not None:
            losses = self.parts.ranks.mean(losses)
        loss = math.fsum(losses) / len(losses)
        values = {"loss": loss, "lr": self.rate(), "grad_norm": norm}
        values |= getattr(parts.scheduler, "others", dict)() | parts.task.measured()
        if parts.telemetry is not None and self._taken:
            values |= parts.telemetry.values()
        if parts.scaler is not None:
            values |= parts.scaler.measured()
        if state.skipped:
            values["skipped_steps"] = state.skipped
        state.window.clear()
        for listener in self.listeners:
            listener.logged(self, values)
        if not math.isfinite(loss):
            raise Diverged(diagnose(parts, state, self._window, loss, taken=True))

    def _joint_norm(self) -> float:
        """Return the norm of the latest gradients, without a loss scale, before clipping."""
        if self.norm is not None:
            return float(self.norm)
        grads = [p.grad for p in self.params if p.grad is not None]
        left = 1.0 if self.parts.scaler is None else self.parts.scaler.left
        norm = float(joint_norm(grads)) / left
        if left != 1.0 and not math.isfinite(norm):  # the sum of scaled squares may overflow alone
            norm = float(joint_norm([g.double() for g in grads])) / left
        return norm

    def _evaluate(self, evaluator: Evaluator) -> bool:
        """Evaluate in eval mode, keep the best, and say whether to stop early."""
        self.training = self.parts.tally.compute() if self.parts.tally is not None else {}
        average, self.raw = self.parts.average, {}
        if average is None or not average.ready:
            return self._judge(evaluator)
        start = now()
        self.raw = evaluator.run(self.parts.model)
        if average.recalibrates:
            parts, epoch = self.parts, self.state.epoch
            ranks, train = parts.ranks, parts.train
            pairs = train.epoch(epoch) if ranks is None else ranks.full(train, epoch)
            with parts.autocast:
                average.recalibrate(parts.task.inputs(x) for x, _ in pairs)
        self.state.seconds["evaluate"] += now() - start
        with average.applied():  # what listeners keep as the best are the weights that were judged
            return self._judge(evaluator)

    def _judge(self, evaluator: Evaluator) -> bool:
        """Evaluate the weights in place, tell everybody, and say whether to stop early."""
        state, start = self.state, now()
        values = evaluator.run(self.parts.model)
        state.seconds["evaluate"] += now() - start
        value = values[evaluator.monitor]
        best = not state.best or evaluator.better(value, state.best["val"][evaluator.monitor])
        if best:
            evaluator.keep(state.step)
            state.best = {"step": state.step, "epoch": self.epochs(), "val": values}
            if self.raw:
                state.best["raw"] = self.raw
        for listener in self.listeners:
            listener.evaluated(self, values, best)
        if getattr(self.parts.scheduler, "waits", False):
            self.parts.scheduler.report(value)
        stopping = self.parts.stopping
        return stopping is not None and stopping.update(values[stopping.monitor])

    def rate(self) -> float:
        """Return the learning rate of the first group."""
        return float(self.parts.optimizer.param_groups[0]["lr"])

    def epochs(self) -> float:
        """Return how many epochs have been trained, with the fraction."""
        return self.state.step / self.parts.epoch_steps


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
