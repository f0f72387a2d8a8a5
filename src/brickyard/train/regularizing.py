"""Build a recipe's regularizers, put each in its place in the loop, and tell what they did."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from brickyard.errors import RecipeError
from brickyard.regularize import SWA, EarlyStopping, Ensemble, SnapshotEnsemble, WeightDecay
from brickyard.regularize.averaging import Average
from brickyard.runs import CHECKPOINTS
from brickyard.schedules import Length
from brickyard.train.data import Data
from brickyard.train.evaluate import Evaluator
from brickyard.train.make import make, place
from brickyard.train.recipe import Recipe
from brickyard.train.tasks import Classification, Task

__all__ = [
    "Regularizers", "build_regularizers", "complete_stopping", "settle", "what_they_did",
]  # fmt: skip


@dataclass
class Regularizers:
    """Hold a recipe's regularizers by their place in the loop, and all of them in order."""

    stopping: EarlyStopping | None = None
    average: Average | None = None
    snapshots: SnapshotEnsemble | None = None
    ensemble: Ensemble | None = None
    adversary: Callable[..., Tensor] | None = None
    penalties: list[Callable[[nn.Module], Tensor]] = field(default_factory=list)
    constraints: list[Callable[[nn.Module], None]] = field(default_factory=list)
    decays: list[WeightDecay] = field(default_factory=list)
    made: list[tuple[int, str, Any]] = field(default_factory=list)

    def take(self, made: Any, label: str) -> None:
        """Put one regularizer in its place.

        Args:
            made: the regularizer.
            label: what the recipe calls it.

        Raises:
            ValueError: there is one already where only one can be.
            TypeError: it does nothing that the loop knows of.
        """
        singles = (("stopping", EarlyStopping), ("average", Average),
                   ("snapshots", SnapshotEnsemble), ("ensemble", Ensemble))  # fmt: skip
        for name, kind in singles:
            if isinstance(made, kind):
                if getattr(self, name) is not None:
                    what = {"stopping": "early stopping", "average": "an average of the weights",
                            "snapshots": "a snapshot ensemble",
                            "ensemble": "an ensemble"}[name]  # fmt: skip
                    raise ValueError(f"{what} is given twice; keep one")
                setattr(self, name, made)
                if self.snapshots is not None and self.ensemble is not None:
                    raise ValueError("a snapshot ensemble answers for this run alone, and an "
                                     "ensemble with other runs; keep one of them")  # fmt: skip
                return
        if hasattr(made, "batch_loss"):
            if self.adversary is not None:
                raise ValueError("adversarial training is given twice; keep one")
            self.adversary = made.batch_loss
        elif isinstance(made, WeightDecay):
            self.decays.append(made)
        elif hasattr(made, "penalty"):
            self.penalties.append(made.penalty)
        elif hasattr(made, "after_step"):
            self.constraints.append(made.after_step)
        else:
            raise TypeError(
                f"{label} made a {type(made).__name__}; a regularizer has penalty(model), "
                "after_step(model), batch_loss(model, loss, x, y, clean), or is an EarlyStopping, "
                "an average, a SnapshotEnsemble or an Ensemble"
            )


def build_regularizers(recipe: Recipe, model: nn.Module, data: Data) -> Regularizers:
    """Build a recipe's regularizers.

    Args:
        recipe: a checked recipe.
        model: the network, on its device.
        data: what is trained on.

    Raises:
        RecipeError: one refuses its options, or two that cannot stand beside each other.
    """
    found = Regularizers()
    for i, one in enumerate(recipe.regularizers):
        with place(f"regularizers.{i}"):
            made = make(one, "regularizer", model=model)
            found.take(made, one.label)
            found.made.append((i, one.label, made))
            if isinstance(made, Ensemble):
                _check_members(made, data)
            elif hasattr(made, "effect"):  # patterns that match nothing are told now
                made.effect(model)
    return found


def settle(
    found: Regularizers, optimizer: Optimizer, model: nn.Module, task: Task,
    run: tuple[int, int, Sequence[int]],
) -> None:  # fmt: skip
    """Tell regularizers what only the whole run knows: lengths, cycles, the task, the optimizer.

    Args:
        found: what the recipe names.
        optimizer: steps the model.
        model: the network.
        task: says what outputs are.
        run: steps of the run, steps of an epoch, and the steps at which the rate's cycles end.

    Raises:
        RecipeError: a length that does not fit into the run, or decay twice.
    """
    total, epoch, restarts = run
    if found.adversary is not None and type(task).forward is not Task.forward:
        raise RecipeError(
            "regularizers: adversarial training changes samples to raise the loss of model(x), and "
            f"{task.name} uses the model in another way; leave it out"
        )

    def steps(length: int | str) -> int:
        return Length.parse(length).steps(total, epoch)

    for i, label, made in found.made:
        with place(f"regularizers.{i}"):
            if isinstance(made, SWA):
                made.resolve(steps)
                first = int(made.start) + int(made.every)
                if first > total:
                    raise ValueError(
                        f"{label} would take its first weights after step {first}, and the run has "
                        f"{total}; start earlier, or more often"
                    )
            elif isinstance(made, SnapshotEnsemble):
                made.resolve(steps, restarts)
                if made.of == "auto":
                    made.of = _outputs(task)
            elif isinstance(made, Ensemble):
                if made.of == "auto":
                    made.of = _outputs(task)
            elif isinstance(made, WeightDecay):
                made.attach(optimizer, model)


def _outputs(task: Task) -> Any:
    if not isinstance(task, Classification):
        return "values"
    return "sigmoid" if task.binary else "softmax"


def _check_members(ensemble: Ensemble, data: Data) -> None:
    """Refuse runs as members of an ensemble that have trained on other samples than this one.

    With another `split_seed` or `val`, what this run validates on, they have learnt.

    Raises:
        ValueError: a run folder's data has another fingerprint.
    """
    mine = data.facts.get("fingerprint", "")
    for path in map(Path, ensemble.sources):
        last = path / CHECKPOINTS / "last.pt"
        if not last.exists():
            continue
        other = torch.load(last, weights_only=True, map_location="cpu", mmap=True)
        if other.get("fingerprint", mine) != mine:
            raise ValueError(
                f"the run {path} was trained on other samples than this one, so it may know those "
                "that the ensemble is measured on; give both the same data, split_seed and val "
                "(their seed may differ)"
            )


def complete_stopping(stopping: EarlyStopping, evaluator: Evaluator) -> None:
    """Fill in what early stopping left to the run: the metric, and what is good.

    Args:
        stopping: as the recipe has it.
        evaluator: knows the metrics.

    Raises:
        RecipeError: it watches a metric that is not measured.
    """
    stopping.monitor = stopping.monitor or evaluator.monitor
    known = {*(["loss"] if evaluator.task.held_out_loss else []), *evaluator.metrics}
    if stopping.monitor not in known:
        raise RecipeError(
            f"regularizers: early_stopping watches {stopping.monitor!r}, which is not measured; "
            f"there is {', '.join(sorted(known))}"
        )
    if stopping.mode == "auto":
        metric = evaluator.metrics.get(stopping.monitor)
        good = getattr(metric, "higher_is_better", False)
        stopping.mode = "max" if good else "min"


def what_they_did(
    found: Regularizers, evaluator: Evaluator, model: nn.Module, best: dict[str, Any]
) -> tuple[list[dict[str, Any]], Ensemble | None]:
    """Return a row on each regularizer that left something to see, and the ensemble if any.

    Args:
        found: what the recipe names.
        evaluator: measures the ensemble and its members.
        model: the network with the weights that the run ends with.
        best: the best evaluation: its values, and the raw weights' values.
    """
    rows: list[dict[str, Any]] = []
    joint: Ensemble | None = None
    for _, label, made in found.made:
        row: dict[str, Any] = {"name": label}
        if isinstance(made, Average):
            row |= {"kind": "average", "updates": made.updates,
                    "averaged": best.get("val", {}) if best.get("raw") else {},
                    "raw": best.get("raw", {})}  # fmt: skip
        elif isinstance(made, SnapshotEnsemble):
            row |= {"kind": "ensemble", "taken": made.taken}
            if made.members:
                joint = made.ensemble()
                row["ensemble"] = evaluator.run(joint)
                row["members"] = [evaluator.run(one) for one in joint.members]
        elif isinstance(made, Ensemble):
            joint = made.joined(model)
            row |= {"kind": "ensemble", "others": made.sources, "ensemble": evaluator.run(joint),
                    "members": [evaluator.run(one) for one in joint.members]}  # fmt: skip
        elif hasattr(made, "effect"):
            row |= {"kind": "weights", **made.effect(model)}
        else:
            continue
        rows.append(row)
    return rows, joint
