"""Tasks: what stands between data, model, loss and metrics, one class for each kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brickyard import catalog
from brickyard.errors import RecipeError
from brickyard.train.tasks.base import Task
from brickyard.train.tasks.dqn import DQN
from brickyard.train.tasks.embedding import Embedding, embedding
from brickyard.train.tasks.gan import GAN
from brickyard.train.tasks.labels import Classification, Regression, classification, regression
from brickyard.train.tasks.language import LanguageModel, language_model
from brickyard.train.tasks.masks import Segmentation, segmentation
from brickyard.train.tasks.multi_label import MultiLabel, multi_label
from brickyard.train.tasks.policy import Policy
from brickyard.train.tasks.transcription import Transcription, transcription
from brickyard.train.tasks.two_view import TwoView, two_view
from brickyard.train.tasks.vae import Vae, vae

if TYPE_CHECKING:
    from brickyard.catalog import Card
    from brickyard.train.data import Data
    from brickyard.train.recipe import Recipe

__all__ = [
    "DQN", "GAN", "Classification", "Embedding", "LanguageModel", "MultiLabel", "Policy",
    "Regression", "Segmentation", "Task", "Transcription", "TwoView", "Vae", "classification",
    "embedding", "language_model", "multi_label", "regression", "segmentation", "task_for",
    "transcription", "two_view", "vae",
]  # fmt: skip


def task_for(recipe: Recipe, data: Data, loss: Card | None) -> Task:
    """Return the task that a recipe names, or the first one that takes its data.

    Args:
        recipe: a checked recipe.
        data: what is trained on.
        loss: the loss's card; none for the user's own.

    Raises:
        RecipeError: the task does not take such data, or the loss cannot be trained on it.
    """
    from brickyard.train.fit import check_target
    from brickyard.train.make import make, place
    from brickyard.train.recipe import Component

    component = recipe.task
    if component is None:
        component = Component(name=_usual(data))
    elif component.name:
        takes = catalog.get(component.name, "task").facts["takes"]
        if data.task not in takes:
            raise RecipeError(
                f"task: {component.name} takes {', '.join(takes)} data, and {data.name} is "
                f"{data.task}"
            )
    with place("task"):
        task = make(component, "task", data=data, loss=loss)
    if loss is not None:
        check_target(loss, data, task)
    task.check(recipe)
    return task


def _usual(data: Data) -> str:
    """Return the key of the task that goes without saying."""
    fit = [card.key for card in catalog.shelf("task") if data.task in card.facts["takes"]]
    if data.task in fit or len(fit) == 1:
        return data.task if data.task in fit else fit[0]
    raise RecipeError(
        f"task: {data.name} is {data.task}, for which there is {', '.join(fit) or 'none'}; name "
        "one: task: NAME"
    )
