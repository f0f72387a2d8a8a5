"""Show a recipe's model, loss and first batch to those who look at them before training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from brickyard.errors import RecipeError
from brickyard.train.recipe import Resolved
from brickyard.train.setup import build_setup
from brickyard.train.tasks import Task

__all__ = ["first_batch"]


class _Used(nn.Module):
    """Use a model as its task does."""

    def __init__(self, model: nn.Module, task: Task):
        super().__init__()
        self.model = model
        self.task = task

    def forward(self, x: Tensor) -> Any:
        return self.task.forward(self.model, x)


def first_batch(
    resolved: Resolved, samples: int
) -> tuple[nn.Module, Callable[[Any, Tensor, Tensor], Tensor], tuple[Tensor, Tensor]]:
    """Return a recipe's model, its loss of output, inputs and targets, and one training batch.

    The batch is not augmented.

    Args:
        resolved: a checked recipe.
        samples: of the batch.

    Raises:
        RecipeError: the task's steps are more than a model and a loss.
    """
    changes = {"batch_size": samples, "augmentation": [], "loggers": [], "accumulate": 1}
    recipe = resolved.recipe.model_copy(update=changes)
    setup = build_setup(replace(resolved, recipe=recipe))
    parts, task = setup.parts, setup.task
    if type(task).prepare is not Task.prepare or task.state_dict():
        raise RecipeError(
            f"task: {task.name} takes steps of its own; the ladder looks at one model, one loss "
            "and one batch"
        )
    x, y = next(iter(parts.train.epoch(0)))

    def loss(output: Any, x: Tensor, y: Tensor) -> Tensor:
        return task.loss(parts.loss, output, x, y)

    return _Used(parts.model, task), loss, (x, y)
