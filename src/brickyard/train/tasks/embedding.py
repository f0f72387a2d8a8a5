"""Embeddings: samples of one class come to lie close together, others apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.train.data import Batches, Split
from brickyard.train.data.balanced import ClassBatches
from brickyard.train.tasks.base import Task

__all__ = ["Embedding", "embedding", "nearest"]

#: How losses want their samples, by what they cannot do without.
_FORMS = {"sup_con": "labels", "batch_triplet": "labels", "triplet": "triplets",
          "contrastive": "pairs"}  # fmt: skip


@dataclass
class Embedding(Task):
    """Map samples to points; what is compared is made of the labels in a batch.

    Args:
        outputs: numbers a point.
        form: what the loss takes: ``"labels"``, ``"triplets"`` or ``"pairs"``.
        per_class: samples of a class that batches hold together; 0 leaves batches to chance.
        unit: bring all points to length 1.
    """

    outputs: int
    form: str = "labels"
    per_class: int = 0
    unit: bool = True
    name = "embedding"
    mixable = False
    wants = "it compares points by the labels of their samples"
    meaning = (
        "It returns points (N, size), which the run (unless `unit: false`) compared after bringing "
        "them to length 1: `torch.nn.functional.normalize(points, dim=1)`. Near ones are alike."
    )

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the numbers a point."""
        return self.outputs

    def takes(self, loss: Card) -> bool:
        """Say whether a loss compares points by label, in pairs or in triplets."""
        return loss.key in _FORMS

    def batches(
        self, split: Split, batch_size: int, seed: int, transform: Any, prefetch: int
    ) -> Batches | None:
        """Return batches with several samples of each of their classes, if so asked."""
        if not self.per_class:
            return None
        return ClassBatches(
            split, batch_size, self.per_class, seed=seed, transform=transform, prefetch=prefetch
        )

    def forward(self, model: nn.Module, x: Tensor) -> Tensor:
        """Return points (N, outputs), of length 1 if so asked."""
        points = model(x)
        return F.normalize(points.float(), dim=1) if self.unit else points

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss over what a batch has to compare."""
        if self.form == "labels":
            return criterion(output, y)
        same, other = partners(y)
        keep = (same >= 0) & (other >= 0)
        if not bool(keep.any()):
            return output.sum() * 0.0
        anchor, near, far = output[keep], output[same[keep]], output[other[keep]]
        if self.form == "triplets":
            return criterion(anchor, near, far)
        differ = torch.cat([torch.zeros(len(anchor)), torch.ones(len(anchor))]).to(output)
        return criterion(torch.cat([anchor, anchor]), torch.cat([near, far]), differ)

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the class of the nearest other point of the batch, and how much nearer it is."""
        return nearest(output, y)


def partners(y: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each sample, the next one of its class and the next one of another.

    The batch is a circle; -1 stands where there is none. Batches are shuffled, so that these are
    pairs drawn at random, and the same ones after a resume.

    Args:
        y: class indices, shape (N,).

    Example:
        >>> partners(torch.tensor([3, 5, 3, 3]))
        (tensor([ 2, -1,  3,  0]), tensor([1, 2, 1, 1]))
    """
    n = len(y)
    steps = (torch.arange(n, device=y.device) - torch.arange(n, device=y.device)[:, None]) % n
    alike = y[:, None] == y
    found = []
    for wanted in (alike, ~alike):
        far = torch.where(wanted & (steps > 0), steps, n)
        step, place = far.min(1)
        found.append(torch.where(step < n, place, -1))
    return found[0], found[1]


def nearest(points: Tensor, y: Tensor) -> dict[str, Tensor]:
    """Return target, the nearest other point's class, and how much further the own class is.

    Args:
        points: shape (N, size); compared by cosine.
        y: class indices, shape (N,).
    """
    unit = F.normalize(points.float(), dim=1)
    alike = (unit @ unit.T).fill_diagonal_(-torch.inf)
    own = y[:, None] == y
    best = alike.masked_fill(~own, -2.0).clamp_min(-2.0).amax(1)
    rest = alike.masked_fill(own, -2.0).amax(1)
    return {"target": y, "prediction": y[alike.argmax(1)], "loss": rest - best}


@brick(
    "task", "embedding", aliases=("metric_learning", "similarity"),
    public="brickyard.train.tasks", takes=("classification",),
    summary="Map samples to points so that those of one class lie close together.",
    use_when="Classes will be met that training never saw, or the question is which samples are "
    "alike: search, faces, duplicates.",
    avoid_when="The classes are fixed and known: a classifier is simpler and at least as good.",
    best_for="Retrieval, verification, few samples of many classes.",
    paper="Hadsell, Chopra & LeCun 2006, Dimensionality Reduction by Learning an Invariant "
    "Mapping, CVPR",
    tune_first="per_class (4 to 16) and a large batch_size; then margin or temperature.",
    pairs_with=("sup_con", "batch_triplet", "triplet", "contrastive", "recall_at_1"),
    cost="Losses by label compare all pairs of a batch.",
)  # fmt: skip
def embedding(
    loss: Card | None = None, size: int = 32, per_class: int = 8, unit: bool = True
) -> Embedding:
    """Make the task of mapping samples to points.

    Losses get what their kind takes: points and labels (sup_con, batch_triplet), an anchor with
    the next sample of its class and the next of another (triplet), or such pairs (contrastive).

    Args:
        loss: the loss's card; none for the user's own, which gets points and labels.
        size: numbers a point; the model's number of outputs.
        per_class: samples of each class that a batch holds; with batch_size 64 and 8 there are 8
            classes of 8 in each. 0 leaves batches to chance.
        unit: bring all points to length 1, as cosines and most margins want it.

    Raises:
        ValueError: a size below 1, or per_class of 1.

    Example:
        >>> embedding(size=16).outputs
        16

    Reference:
        Hermans, Beyer & Leibe 2017, In Defense of the Triplet Loss, arXiv:1703.07737, section 2
        (batches of P classes with K samples).
    """
    if size < 1 or per_class < 0 or per_class == 1:
        raise ValueError(
            f"size must be at least 1, and per_class 0 or at least 2: one sample of a class has "
            f"no partner; got {size} and {per_class}"
        )
    form = "labels" if loss is None else _FORMS.get(loss.key, "labels")
    return Embedding(size, form, per_class, unit)
