"""What a loop is given, where it stands, and who hears of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from torch import Tensor, nn
from torch.optim import Optimizer

from brickyard.errors import RunError
from brickyard.regularize import EarlyStopping, SnapshotEnsemble
from brickyard.regularize.averaging import Average
from brickyard.train.data import Batches
from brickyard.train.evaluate import Evaluator
from brickyard.train.scaling import LossScaler
from brickyard.train.tally import Tally
from brickyard.train.tasks.base import Task
from brickyard.train.telemetry import Telemetry

if TYPE_CHECKING:
    from brickyard.train.loop import Loop
    from brickyard.train.ranks import Ranks

Batch = tuple[Tensor, Tensor]
PHASES = ("data", "forward", "backward", "step", "evaluate", "checkpoint")


class Diverged(RunError):  # noqa: N818  an outcome, and the word that users search for
    """The loss is not finite any more."""


@dataclass
class Parts:
    """Hold what a loop needs, already built; any of it may be the user's own.

    Args:
        model: the network, on its device.
        loss: called by the task; in supervised learning with the model's output and the targets.
        optimizer: any torch optimizer.
        train: training batches.
        total: steps to train.
        evaluator: validation; none to train blindly.
        evaluate_every: steps between evaluations.
        scheduler: anything with torch's scheduler interface; stepped after every step.
        clip: takes the parameters, returns the norm before clipping.
        task: says what is done with a batch; supervised learning by default.
        penalties: each takes the model and returns a tensor that is added to the loss.
        constraints: each is called with the model after every step.
        average: of the weights; once there is one, it is evaluated and kept as the best.
        snapshots: keeps weights along the way.
        adversary: called with model, loss, inputs, targets and the loss so far; returns the loss.
        stopping: says when to stop early.
        autocast: context of the forward pass.
        log_every: steps between training rows.
        checkpoint_every: steps between checkpoints; 0 when listeners go by the clock.
        keep_every: steps between checkpoints that stay for good; 0 for none.
        accumulate: batches a step; the last step of an epoch may have fewer.
        curvature: called with a batch before every step that the optimizer takes.
        tally: measures the training batches.
        telemetry: asks the optimizer how large its steps are.
        ranks: the processes that train together, where there are several.
        scaler: scales the loss, and takes the steps; none where gradients need no scale.
        allowed_skips: steps in a row with a non-finite loss or gradient that are left out; at the
            next one, and with 0 at the first, training ends.
        teacher: called with inputs, output and loss; returns the loss with the teacher's share.
    """

    model: nn.Module
    loss: Callable[..., Tensor]
    optimizer: Optimizer
    train: Batches
    total: int
    evaluator: Evaluator | None = None
    evaluate_every: int = 0
    scheduler: Any = None
    clip: Callable[[list[Tensor]], Tensor] | None = None
    task: Task = field(default_factory=Task)
    penalties: Sequence[Callable[[nn.Module], Tensor]] = ()
    constraints: Sequence[Callable[[nn.Module], None]] = ()
    average: Average | None = None
    snapshots: SnapshotEnsemble | None = None
    adversary: Callable[..., Tensor] | None = None
    stopping: EarlyStopping | None = None
    autocast: AbstractContextManager[Any] = field(default_factory=nullcontext)
    log_every: int = 10
    checkpoint_every: int = 0
    keep_every: int = 0
    accumulate: int = 1
    curvature: Callable[[Tensor, Tensor], None] | None = None
    tally: Tally | None = None
    telemetry: Telemetry | None = None
    ranks: Ranks | None = None
    scaler: LossScaler | None = None
    allowed_skips: int = 0
    teacher: Callable[[Tensor, Any, Tensor], Tensor] | None = None

    @property
    def epoch_steps(self) -> int:
        """Return the number of steps an epoch."""
        return -(-len(self.train) // self.accumulate)


@dataclass
class State:
    """Hold where a run stands; everything here goes into checkpoints.

    ``step`` counts steps that were taken. One that is left out because a loss or gradient is not
    finite advances nothing but the data: not the schedule, not the averages, not the budget.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0
    skipped: int = 0
    in_row: int = 0
    best: dict[str, Any] = field(default_factory=dict)
    window: list[Tensor | float] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PHASES, 0.0))


class Listener(Protocol):
    """Hear what happens in a loop; the loop ignores what listeners return."""

    def logged(self, loop: Loop, values: dict[str, float]) -> None:
        """Hear of a training row."""

    def evaluated(self, loop: Loop, values: dict[str, float], best: bool) -> None:
        """Hear of an evaluation and whether it is the best so far; also of ``loop.training``."""

    def boundary(self, loop: Loop) -> None:
        """Hear that a step is complete and everything is consistent: the time to checkpoint."""
