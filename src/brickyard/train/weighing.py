"""Weigh batches as a loss's mean does, so that several add up to the mean over all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from brickyard.losses import FocalLoss
from brickyard.train.batch_norms import joined
from brickyard.train.tasks.base import Task

if TYPE_CHECKING:
    from brickyard.train.data import Data
    from brickyard.train.recipe import Recipe

__all__ = ["apart", "together", "weigh_as", "whole"]

_BATCH_NORMS = nn.modules.batchnorm._BatchNorm
#: Losses by key whose value for a batch is more than a mean over its samples.
_JOINT = frozenset({
    "info_nce", "nt_xent", "sup_con", "batch_triplet", "dice", "iou", "tversky", "focal_tversky",
    "lovasz",
})  # fmt: skip


def weigh_as(loss: Any, task: Task) -> None:
    """Let a task weigh its batches by what the loss divides by: class weights, targets that count.

    The mean of a weighted cross-entropy is divided by the sum of its samples' class weights. A
    task with a count of its own keeps it, and so do losses without such options.

    Args:
        loss: the recipe's.
        task: gets another ``weigh`` where it needs one.

    Example:
        >>> import torch
        >>> task = Task()
        >>> weigh_as(nn.CrossEntropyLoss(weight=torch.tensor([1.0, 3.0])), task)
        >>> task.weigh(torch.tensor([0, 1, 1, -100]))
        7.0
    """
    if not isinstance(loss, nn.CrossEntropyLoss | nn.NLLLoss | FocalLoss):
        return
    weights = getattr(loss, "weight", None)
    if weights is None and type(task).weigh is not Task.weigh:
        return
    ignored, plain = loss.ignore_index, task.weigh

    def weigh(y: Tensor) -> float:
        target = task.target(y)
        if target.is_floating_point():  # probabilities: torch divides by the samples
            return plain(y)
        kept = target[target != ignored]
        return float(len(kept) if weights is None else weights.to(kept.device)[kept].sum())

    task.weigh = weigh  # pyright: ignore[reportAttributeAccessIssue]


def together(recipe: Recipe) -> list[dict[str, str]]:
    """Return a finding where accumulated batches cannot stand for one large batch.

    Args:
        recipe: names the loss.
    """
    key = recipe.loss.name
    if recipe.accumulate == 1 or key not in _JOINT:
        return []
    return [{
        "severity": "warning", "check": "accumulated_joint_loss", "where": "accumulate",
        "evidence": f"{key} looks at the samples of a batch together, and sees "
        f"{recipe.batch_size} of them at a time.",
        "try": f"accumulate: 1 with batch_size: {recipe.batch_size * recipe.accumulate}",
        "why": "The mean over parts is not the value of the whole for such a loss.",
    }]  # fmt: skip


def whole(recipe: Recipe, data: Data) -> list[dict[str, str]]:
    """Return a finding where a batch is larger than all that is trained on.

    Args:
        recipe: names the batch size.
        data: what is trained on.
    """
    count = len(data.train)
    if not data.train.in_memory or recipe.batch_size <= count:
        return []
    return [{
        "severity": "warning", "check": "batch_of_everything", "where": "batch_size",
        "evidence": f"A batch of {recipe.batch_size} is more than the {count} training samples.",
        "try": f"a batch_size of {max(1, count // 16)} or so, or {count} if all at once is meant",
        "why": "Every epoch is one step on all samples.",
    }]  # fmt: skip


def apart(recipe: Recipe, model: nn.Module, count: int) -> list[dict[str, str]]:
    """Return findings where parts of a batch on several processes cannot stand for the whole.

    Args:
        recipe: names the loss.
        model: the network.
        count: processes.
    """
    key, size = recipe.loss.name, -(-recipe.batch_size // count)
    common = {"severity": "warning", "check": "batch_in_parts"}
    found: list[dict[str, str]] = []
    if key in _JOINT and not recipe.loss.options.get("gather", False):
        found.append({
            **common, "where": "loss",
            "evidence": f"{key} looks at the samples of a batch together, and each of {count} "
            f"processes sees {size} of {recipe.batch_size}.",
            "try": f"a batch_size {count} times as large, or one process",
            "why": "The mean over parts is not the value of the whole for such a loss.",
        })  # fmt: skip
    norms = [
        name
        for name, m in model.named_modules()
        if isinstance(m, _BATCH_NORMS) and not (joined(m) and m.track_running_stats)
    ]
    if norms:
        found.append({
            **common, "where": norms[0],
            "evidence": f"Each of {count} processes normalizes its own {size} samples of "
            f"{recipe.batch_size}; evaluation takes the first one's running statistics.",
            "try": "sync_batch_norm: true, for torch's own batch norms; or group_norm or "
            "layer_norm, which look at one sample",
            "why": "The steps are not those of one process with the whole batch.",
        })  # fmt: skip
    return found
