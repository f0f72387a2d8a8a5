"""Say how a kind of task turns data into the loss's targets and outputs into predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import Card
from brickyard.train.data import Data
from brickyard.train.fit import check_target

__all__ = ["Classification", "Regression", "Task", "task_for"]


class Task(ABC):
    """Stand between data, model, loss and metrics."""

    #: Outputs of the model.
    outputs: int
    #: What metrics are built with.
    metric_outputs: int

    @abstractmethod
    def target(self, y: Tensor) -> Tensor:
        """Return the data's targets (N, ...) in the form that the loss takes."""

    @abstractmethod
    def scored(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets in the form that metrics take."""

    @abstractmethod
    def inspect(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return what the report shows of each sample: target, prediction, confidence, loss."""


@dataclass
class Classification(Task):
    """Tell one of several classes; with ``binary``, from a single logit.

    Args:
        classes: how many there are.
        binary: the loss wants one logit and a target of 0.0 or 1.0.
    """

    classes: int
    binary: bool = False

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return 1 for a single logit, else one output a class."""
        return 1 if self.binary else self.classes

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the number of classes."""
        return self.classes

    def target(self, y: Tensor) -> Tensor:
        """Return class indices (N,), or floats (N, 1) for a single logit."""
        return y.to(torch.float32).unsqueeze(-1) if self.binary else y

    def _logits(self, output: Tensor) -> Tensor:
        output = output.float()
        # One logit z has the class probabilities of the pair (0, z).
        return torch.cat([torch.zeros_like(output), output], -1) if self.binary else output

    def scored(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (N, classes) and class indices (N,)."""
        return self._logits(output), y

    def inspect(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return class, predicted class, its probability, and cross-entropy in nats."""
        logits = self._logits(output)
        confidence, prediction = logits.softmax(-1).max(-1)
        loss = F.cross_entropy(logits, y, reduction="none")
        return {"target": y, "prediction": prediction, "confidence": confidence, "loss": loss}


@dataclass
class Regression(Task):
    """Predict numbers; the network sees them standardised, metrics see the original units.

    Args:
        outputs: numbers a sample.
        mean: mean of the training targets.
        std: standard deviation of the training targets.
    """

    outputs: int
    mean: float | Tensor = 0.0
    std: float | Tensor = 1.0

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the numbers a sample."""
        return self.outputs

    def target(self, y: Tensor) -> Tensor:
        """Return standardised targets (N, outputs)."""
        return y if y.ndim > 1 else y.unsqueeze(-1)

    def scored(self, output: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets in the original units, (N,) for a single output."""
        pair = (output.float().cpu(), self.target(y).cpu())
        pred, true = (one * self.std + self.mean for one in pair)
        return (pred.squeeze(-1), true.squeeze(-1)) if self.outputs == 1 else (pred, true)

    def inspect(self, output: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Return value, predicted value and squared error, of the first output."""
        pred, true = self.scored(output, y)
        if pred.ndim > 1:
            pred, true = pred[:, 0], true[:, 0]
        return {"target": true, "prediction": pred, "loss": (pred - true).square()}


def task_for(data: Data, loss: Card | None) -> Task:
    """Return the task of a data set under a loss.

    Args:
        data: what is trained on.
        loss: the loss's card; none for the user's own.

    Raises:
        RecipeError: the loss cannot be trained on such targets.
    """
    if loss is not None:
        check_target(loss, data)
    if data.task == "regression":
        return Regression(data.outputs, data.target_mean, data.target_std)
    binary = loss is not None and loss.facts.get("target") == "binary"
    return Classification(data.outputs, binary=binary)
