"""One label or some numbers a sample: classification and regression."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from brickyard.catalog import Card, brick
from brickyard.train.data import Data
from brickyard.train.tasks.base import Task

__all__ = ["Classification", "Regression", "classification", "regression"]


@dataclass
class Classification(Task):
    """Tell one of several classes; with ``binary``, from a single logit.

    Args:
        classes: how many there are.
        binary: the loss wants one logit and a target of 0.0 or 1.0.
    """

    classes: int
    binary: bool = False
    name = "classification"

    @property
    def targets(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return what losses may want: one logit only where there are two classes."""
        kinds = {"class indices", "class indices or probabilities"}
        return frozenset(kinds | ({"binary"} if self.classes == 2 else set()))

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
    name = "regression"
    targets = frozenset({"values"})

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


@brick(
    "task", "classification", public="brickyard.train.tasks", takes=("classification",),
    summary="Tell which one of several classes a sample belongs to.",
    use_when="Every sample has exactly one label.",
    avoid_when="A sample may have several labels (multi_label), or the classes are ordered numbers "
    "whose distance matters (regression).",
    best_for="Images, tables and texts with one label each.",
    paper="Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3",
    tune_first="The loss: cross_entropy, and focal or class weights when classes are rare.",
    pairs_with=("cross_entropy", "accuracy", "focal"),
    cost="Nothing beside the model and the loss.",
)  # fmt: skip
def classification(data: Data, loss: Card | None = None) -> Classification:
    """Make the task of telling classes apart.

    Losses that want one logit (their cards say target: binary) get a model with one output, and
    targets 0.0 and 1.0.

    Args:
        data: says how many classes there are.
        loss: the loss's card; none for the user's own.

    Example:
        >>> Classification(classes=10).outputs
        10

    Reference:
        Bishop, Pattern Recognition and Machine Learning, 2006, section 4.3.
    """
    binary = loss is not None and loss.facts.get("target") == "binary"
    return Classification(data.outputs, binary=binary)


@brick(
    "task", "regression", public="brickyard.train.tasks", takes=("regression",),
    summary="Predict one or several numbers for every sample.",
    use_when="The target is a quantity, and being nearly right is nearly as good as being right.",
    avoid_when="The numbers are names of classes: class 2 is not between 1 and 3.",
    best_for="Tables, sensors, counts after a logarithm.",
    paper="Bishop, Pattern Recognition and Machine Learning, 2006, section 3.1",
    tune_first="The loss: mse, or huber when there are outliers.",
    pairs_with=("mse", "huber", "r2"),
    cost="Nothing beside the model and the loss.",
)  # fmt: skip
def regression(data: Data) -> Regression:
    """Make the task of predicting numbers; the network sees them standardised.

    Args:
        data: says how many numbers there are, and how they were standardised.

    Example:
        >>> Regression(outputs=1, mean=5.0, std=2.0).scored(torch.zeros(3, 1), torch.ones(3))[1]
        tensor([7., 7., 7.])

    Reference:
        Bishop, Pattern Recognition and Machine Learning, 2006, section 3.1.
    """
    return Regression(data.outputs, data.target_mean, data.target_std)
