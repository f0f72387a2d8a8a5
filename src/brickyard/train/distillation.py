"""Learn from a trained network beside the labels: the teacher of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brickyard.errors import RecipeError, RunError
from brickyard.losses import DistillationLoss
from brickyard.train.data import Data
from brickyard.train.make import place
from brickyard.train.probe import probe
from brickyard.train.recipe import Component
from brickyard.train.tasks import Classification, Task

if TYPE_CHECKING:
    from brickyard.train.parts import Parts
    from brickyard.train.recipe import Recipe

__all__ = ["Teacher", "teacher_for"]


class Teacher:
    """Mix a teacher's softened distribution into the loss.

    Math:
        p = softmax(teacher / T), q = softmax(student / T)
        (1 - weight) * L(student, y) + weight * T^2 * KL(p || q)

    Args:
        model: the teacher; it is put into eval mode and gets no gradients.
        forward: called with a model and inputs; returns logits.
        temperature: softens both distributions.
        weight: share of the teacher, from 0 to 1.

    Raises:
        ValueError: a number out of range.
    """

    def __init__(
        self, model: nn.Module, forward: Callable[[nn.Module, Tensor], Tensor],
        temperature: float = 4.0, weight: float = 0.5,
    ):  # fmt: skip
        self.soft = DistillationLoss(temperature=temperature, alpha=1.0)
        DistillationLoss(alpha=weight)  # says what is wrong with it
        self.model, self.forward, self.weight = model.eval().requires_grad_(False), forward, weight

    def __call__(self, x: Tensor, output: Tensor, loss: Tensor) -> Tensor:
        """Return the loss with the teacher's share.

        Args:
            x: inputs, as the student saw them.
            output: the student's logits (N, C).
            loss: of the student and the labels.
        """
        with torch.no_grad():
            taught = self.forward(self.model, x)
        labels = taught.argmax(1)  # alpha is 1: they count for nothing
        return (1 - self.weight) * loss + self.weight * self.soft(output, taught, labels)


def teacher_for(recipe: Recipe, root: Path, data: Data, parts: Parts) -> Teacher | None:
    """Return the teacher that a recipe names; None where it names none.

    Args:
        recipe: a checked recipe.
        root: folder that relative paths start from.
        data: what is trained on.
        parts: the student.

    Raises:
        RecipeError: no teacher there, or one that answers another question.
    """
    if recipe.distillation is None:
        return None
    options = dict(recipe.distillation)
    with place("distillation"):
        if not isinstance(parts.task, Classification) or parts.task.outputs < 2:
            raise ValueError(
                f"a teacher's distribution over classes needs one logit a class, and "
                f"{parts.task.name} with {parts.task.outputs} output(s) has none; leave it out"
            )
        model = _load(options.pop("teacher"), root, data, parts.task)
        device = next(parts.model.parameters()).device
        teacher = Teacher(model.to(device), parts.task.forward, **options)
        _check(teacher, parts.model, data, parts.task, parts.autocast)
    return teacher


def _load(given: Any, root: Path, data: Data, task: Task) -> nn.Module:
    """Return the network of a run folder, an exported folder or the user's own function."""
    from brickyard.train.export import load_exported
    from brickyard.train.make import make

    if isinstance(given, Mapping):
        return make(
            Component.parse(given), "model", input_shape=data.input_shape, outputs=task.outputs
        )
    path = Path(given).expanduser()
    path = path if path.is_absolute() or path.exists() else root / path
    if not path.is_dir():
        raise RecipeError(
            f"distillation.teacher: no folder at {path}; give a run folder or an exported one"
        )
    try:
        if (path / "checkpoints").is_dir():
            return _of_run(path)
        return load_exported(path)
    except (RunError, OSError) as error:
        raise RecipeError(f"distillation.teacher: {given}: {error}") from error


def _of_run(path: Path) -> nn.Module:
    """Return the model of a run with its best weights."""
    from brickyard.runs import RunFolder
    from brickyard.train.export import best_model
    from brickyard.train.recipe import resolve

    run = RunFolder.open(path)
    root = Path(run.environment().get("recipe_folder", "."))
    resolved = resolve(run.recipe(), source=str(run.path / "recipe.yaml"), root=root)
    return best_model(run, resolved)[1]


def _check(
    teacher: Teacher, student: nn.Module, data: Data, task: Task,
    autocast: AbstractContextManager[Any],
) -> None:  # fmt: skip
    """Refuse a teacher whose output is not the student's kind of output."""
    device = next(student.parameters()).device
    shapes = [
        tuple(probe(task.forward, one, data, lambda t: t.to(device), autocast).output.shape)
        for one in (student, teacher.model)
    ]
    if shapes[0] != shapes[1]:
        raise ValueError(
            f"the teacher answers with shape {shapes[1]} and the student with {shapes[0]} to the "
            "same samples; both must tell the same classes apart"
        )
