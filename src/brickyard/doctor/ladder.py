"""The ladder before training: from the cheapest question to the dearest, all on copies."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from brickyard.doctor.case import Case, Rung
from brickyard.doctor.finding import Finding
from brickyard.doctor.observe.record import Seen
from brickyard.doctor.rungs import NAMES, ONE_BATCH, RUNGS
from brickyard.doctor.terminal import wrapped

__all__ = ["Ladder", "Rung", "preflight"]


@dataclass(frozen=True)
class Ladder:
    """Hold the rungs of one model, its loss and one batch.

    Args:
        rungs: in the order in which they were tried.
    """

    rungs: tuple[Rung, ...]

    @property
    def holds(self) -> bool:
        """Say whether no rung broke."""
        return all(rung.passed is not False for rung in self.rungs)

    def to_dict(self) -> dict[str, Any]:
        """Return the rungs as plain data."""
        rows = [{"name": r.name, "passed": r.passed, "seen": r.seen,
                 "try": r.try_ if r.passed is False else ""} for r in self.rungs]  # fmt: skip
        return {"holds": self.holds, "rungs": rows}

    def findings(self) -> list[Finding]:
        """Return what the checks of a run say of the rungs: a batch that cannot be learned."""
        from brickyard.doctor.checks import CHECKS

        seen = Seen()
        for rung in self.rungs:
            if rung.name == ONE_BATCH:
                seen.note("overfit-one-batch", "model", passed=rung.passed, evidence=rung.seen)
        return CHECKS["overfit-one-batch"].findings(seen)

    def __str__(self) -> str:
        """Return a ladder with a rung for every question."""
        signs = {True: "ok", False: "BROKEN", None: "--"}
        lines = ["|      |"]
        for rung in self.rungs:
            lines += wrapped(rung.name, f"|{signs[rung.passed]:=^6}|  ", "|      |  ")
            lines += wrapped(rung.seen, "|      |    ", "|      |    ")
            if rung.passed is False:
                lines += wrapped(f"try: {rung.try_}", "|      |    ", "|      |         ")
        broken = [rung for rung in self.rungs if rung.passed is False]
        if broken:
            count = f"{len(broken)} of {len(self.rungs)} rungs broke"
            said = f"{count}; begin with the first: {broken[0].name}."
        else:
            left = sum(rung.passed is None for rung in self.rungs)
            said = "Every rung holds."
            said += f" {left} of {len(self.rungs)} could not be asked." if left > 1 else ""
        return "\n".join([*lines, "", *wrapped(said, "", "")])


def preflight(
    model: nn.Module,
    loss: Callable[..., Tensor],
    batch: tuple[Any, Any],
    steps: int = 200,
    seconds: float = 20.0,
    with_inputs: bool = False,
) -> Ladder:
    """Ask a model, its loss and one batch whether training can work, before it starts.

    Copies are asked; model, loss, batch and all random number generators are afterwards as they
    were, bit by bit.

    Args:
        model: called with the batch's inputs.
        loss: called with the model's output and the targets.
        batch: inputs and targets of some samples: 8 to 64 are enough.
        steps: of the trainings on this batch.
        seconds: that one of these may take at the most.
        with_inputs: call the loss with output, inputs and targets.

    Raises:
        ValueError: the batch is no pair.

    Example:
        >>> x, y = torch.randn(16, 5), torch.arange(16) % 3
        >>> net = nn.Sequential(nn.Linear(5, 32), nn.ReLU(), nn.Linear(32, 3))
        >>> ladder = preflight(net, nn.functional.cross_entropy, (x, y))
        >>> [rung.name for rung in ladder.rungs if rung.passed is False]
        []
    """
    if not isinstance(batch, tuple | list) or len(batch) != 2:
        raise ValueError(f"batch must be a pair of inputs and targets; got {type(batch).__name__}")
    if steps < 1 or seconds <= 0:
        raise ValueError(f"steps and seconds must be positive; got {steps} and {seconds}")
    criterion = copy.deepcopy(loss) if isinstance(loss, nn.Module) else loss
    call = criterion if with_inputs else lambda output, x, y: criterion(output, y)
    case, rungs = Case(model, call, *batch, steps, seconds), list[Rung]()
    with _undisturbed():
        for ask in RUNGS:
            try:
                rungs.append(ask(case))
            except Exception as error:
                text = str(error).splitlines()[0] if str(error) else ""
                rungs.append(Rung(NAMES[ask.__name__], False, f"{type(error).__name__}: {text}",
                                  "this batch cannot be trained on"))  # fmt: skip
    return Ladder(tuple(rungs))


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Put all random number generators and torch's modes back."""
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    drawn = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices), torch.enable_grad():
        torch.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(drawn[0])
            np.random.set_state(drawn[1])
