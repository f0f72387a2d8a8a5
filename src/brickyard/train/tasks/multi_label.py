"""Multi-label classification: of several labels each holds or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import brick
from brickyard.train.data import Data
from brickyard.train.tasks.base import Task

__all__ = ["MultiLabel", "multi_label"]


@dataclass
class MultiLabel(Task):
    """Tell for each of several labels whether it holds, one logit each.

    Args:
        labels: their names, by index.
    """

    labels: Sequence[str]
    name = "multi_label"
    targets = frozenset({"binary"})
    meaning = (
        "It returns a logit for every label: `logits.sigmoid()` are their probabilities, each by "
        "itself; above 1/2 a label holds."
    )
    wants = "it compares one logit for each label with 0 or 1, since several may hold at once"

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return one output a label."""
        return len(self.labels)

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the number of labels."""
        return len(self.labels)

    def target(self, y: Tensor) -> Tensor:
        """Return 0.0 or 1.0 for every label, (N, labels); mixed samples have values between."""
        return y.float()

    def scored(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits and labels, both (N, labels)."""
        return output.float(), y

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the mean cross-entropy of every sample, in nats a label."""
        each = F.binary_cross_entropy_with_logits(output.float(), y.float(), reduction="none")
        return {"loss": each.mean(1)}

    def text(self, row: Tensor) -> str:
        """Return the labels that hold, as text."""
        held = [name for name, on in zip(self.labels, row.tolist(), strict=True) if on]
        return ", ".join(held) or "none"

    def show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return samples with the labels that hold and those that are said to."""
        said = self.forward(model, x) > 0
        pairs = [(self.text(a), self.text(b)) for a, b in zip(y > 0.5, said, strict=True)]
        shown = {"heading": "Labels", "told": "The validation samples with the highest loss."}
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            return {**shown, "texts": [(f"{a}: ", f"said {b}") for a, b in pairs]}
        low, high = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
        grey = ((x - low) / (high - low).clamp_min(1e-8) * 255).round().byte()
        captions = [f"{a}; said {b}" for a, b in pairs]
        return {**shown, "pictures": grey[:, :1].cpu(), "titles": [""], "captions": captions}


@brick(
    "task", "multi_label", aliases=("multilabel", "tagging"), public="brickyard.train.tasks",
    takes=("multi_label",),
    summary="Tell for each of several labels whether it holds; any number of them may.",
    use_when="Samples carry tags: topics of a text, things in a picture, findings in a scan.",
    avoid_when="Exactly one label holds (classification): then they should compete.",
    best_for="Tagging.",
    paper="Tsoumakas & Katakis 2007, Multi-Label Classification: An Overview, IJDWM 3(3)",
    tune_first="The loss's pos_weight when labels are rare; then a threshold for each.",
    pairs_with=("bce", "binary_focal", "label_f1", "average_precision"),
    cost="Nothing beside the model and the loss.",
)  # fmt: skip
def multi_label(data: Data) -> MultiLabel:
    """Make the task of telling which labels hold.

    Args:
        data: with targets 0.0 and 1.0, one column a label.

    Example:
        >>> MultiLabel(("cat", "dog", "indoors")).outputs
        3

    Reference:
        Tsoumakas & Katakis 2007, International Journal of Data Warehousing and Mining 3(3).
    """
    return MultiLabel(data.classes or tuple(map(str, range(data.outputs))))
