"""The contract of a task: what stands between data, model, loss and metrics."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from brickyard.catalog import Card
from brickyard.train.data import Batches, Data, Split

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["Task", "inputs_of"]

Batch = tuple[Tensor, Tensor]


class Task:
    """Say how one kind of task is trained, evaluated and scored; the loop asks nobody else.

    The defaults are those of supervised learning with one output and one target a sample. A task
    of your own overrides what differs, and a recipe names it by ``task: {target: "module:Class"}``;
    it is built with its options and, where the signature has them, ``data`` and ``loss``, the
    loss's card.

    ``check``, ``build``, ``views`` (what becomes of the augmentation), ``batches`` and ``begin``
    come before training. In a training step the loop calls, in
    this order: ``prepare``; for every batch ``forward`` and ``loss``; after the optimizer's step
    ``stepped``. Evaluation calls ``evaluating``, then for every batch ``forward``, ``loss`` and
    ``scored``; the report ``inspect`` and ``show``.

    Example:
        >>> class Doubled(Task):
        ...     def target(self, y):
        ...         return 2 * y
        >>> Doubled().loss(lambda output, target: abs(output - target), 5, None, 2)
        1
    """

    #: What summaries call it; metrics whose cards name it can score it.
    name: str = "own"
    #: Outputs of the model.
    outputs: int = 1
    #: What metrics are built with.
    metric_outputs: int = 1
    #: Kinds of target, as losses' cards name them, that it can give; empty: any.
    targets: frozenset[str] = frozenset()
    #: Tensors that the loss cannot do without.
    loss_inputs: int = 2
    #: What its loss must be, in words, where that is no loss of one output and one target.
    wants: str = ""
    #: Whether the loss means anything on held-out data; if not, only metrics are measured there.
    held_out_loss: bool = True
    #: Whether its loss reads the data's targets, or compares outputs with inputs alone.
    reads_targets: bool = True
    #: Axis of the model's output along which the scores of one prediction stand.
    axis: int = 1
    #: Whether targets can be mixtures of two samples' targets, as mixup makes them.
    mixable: bool = True
    #: Batches that ``prepare`` takes for every step.
    window: int = 1
    #: What an export's card says of what the exported network takes and returns.
    given: str = "samples that are prepared as the training data was"
    meaning: str = "What it returns is what the loss of the recipe takes."

    def takes(self, loss: Card) -> bool:
        """Say whether a loss can be trained on this task."""
        fits = not self.targets or str(loss.facts.get("target", "")) in self.targets
        return fits and len(inputs_of(loss)) == self.loss_inputs

    def check(self, recipe: Recipe) -> None:
        """Refuse what a recipe cannot have beside this task, with a ``RecipeError``."""

    def build(self, make: Callable[..., nn.Module], data: Data) -> nn.Module:
        """Return the network: ``make`` builds the recipe's, given what the task decides."""
        return make(input_shape=data.input_shape, outputs=self.outputs)

    def trained(self, model: nn.Module) -> nn.Module:
        """Return the part of the network that the recipe's optimizer steps."""
        return model

    def views(self, transform: Any) -> Any:
        """Return what changes training batches, made of the recipe's augmentation (or None)."""
        return transform

    def batches(
        self, split: Split, batch_size: int, seed: int, transform: Any, prefetch: int
    ) -> Batches | None:
        """Return training batches of its own, or None for those that are drawn at random."""
        return None

    def begin(self, model: nn.Module, loss: Any, total: int, epoch: int) -> None:
        """Hear what is trained, before the first step and before anything is put back.

        Args:
            model: the network, on its device.
            loss: the recipe's loss.
            total: steps of the run.
            epoch: steps of an epoch.
        """

    def prepare(self, model: nn.Module, window: Sequence[Batch]) -> Sequence[Batch]:
        """Do what comes before a step's gradients; return the batches to take them from."""
        return window

    def forward(self, model: nn.Module, x: Tensor) -> Any:
        """Return the model's output for samples (N, ...)."""
        return model(x)

    def target(self, y: Tensor) -> Tensor:
        """Return the data's targets (N, ...) in the form that the loss takes."""
        return y

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar."""
        return criterion(output, self.target(y))

    def weigh(self, y: Tensor) -> float:
        """Return what a batch counts when losses of several are averaged: samples, or tokens."""
        return len(y)

    def stepped(self, model: nn.Module) -> None:
        """Hear that the weights have changed."""

    def measured(self) -> dict[str, float]:
        """Return what a training row tells besides loss and rate, since the last one."""
        return {}

    def evaluating(self) -> None:
        """Hear that an evaluation begins: one draws the same random numbers as any other."""

    def inputs(self, x: Tensor) -> Tensor:
        """Return what the trained part of the network is called with for samples (N, ...)."""
        return x

    def scored(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return predictions and targets in the form that metrics take."""
        return output, y

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return what the report shows of each sample: target, prediction, confidence, loss."""
        return {}

    def show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return what the report shows of a few samples, those with the greatest loss if known.

        Any of ``heading``, ``told``, ``pictures`` (uint8, samples x panels x H x W), ``titles`` (of
        the panels), ``captions`` (of the samples), and ``texts``, pairs of which the first is bold.
        """
        return {}

    def exported(self, model: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor]:
        """Return the network as others use it, in eval mode, and what it is called with.

        Args:
            model: the network.
            x: samples (N, ...), to make that of.
        """
        return model, x

    def state_dict(self) -> dict[str, Any]:
        """Return what decides the next step besides the model and the recipe's optimizer."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Put back what ``state_dict`` returned."""


def inputs_of(loss: Card) -> list[str]:
    """Return the names of the tensors that a loss cannot do without."""
    call = inspect.signature(getattr(loss.load(), "forward", loss.load())).parameters.values()
    return [p.name for p in call if p.default is p.empty and p.name != "self"]
