"""Two views: a sample must be known again after another augmentation; no labels are needed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.errors import RecipeError
from brickyard.train.data import Data
from brickyard.train.tasks.base import Task
from brickyard.train.tasks.embedding import nearest

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["BothViews", "Encoder", "TwoView", "two_view"]

_LOSSES = ("nt_xent", "info_nce")
_SEED = 2**31 - 1


class Seen(NamedTuple):
    """Hold projections of both views, and the features of what was seen."""

    first: Tensor
    second: Tensor
    features: Tensor


class Encoder(nn.Module):
    """Hold the network whose features are wanted, and the head that only training uses.

    Args:
        body: from samples to features.
        size: number of features.
        projection: outputs of the head.
    """

    def __init__(self, body: nn.Module, size: int, projection: int):
        super().__init__()
        self.body = body
        self.projector = nn.Sequential(
            nn.ReLU(), nn.Linear(size, size), nn.ReLU(), nn.Linear(size, projection)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, size)."""
        return self.body(x)


class BothViews:
    """Apply an augmentation twice: samples (N, ...) become two views (N, 2, ...).

    Args:
        once: called as once(x, y, generator).
    """

    def __init__(self, once: Callable[..., tuple[Tensor, Any]]):
        self.once = once
        self.own_numbers = getattr(once, "own_numbers", False)

    def __call__(self, x: Tensor, y: Any, generator: torch.Generator) -> tuple[Tensor, Any]:
        """Return both views, and targets as they came."""
        first, second = (self.once(x, y, generator)[0] for _ in range(2))
        return torch.stack([first, second], 1), y


@dataclass
class TwoView(Task):
    """Bring two views of a sample together and those of different samples apart.

    Args:
        outputs: numbers a point: the features.
        projection: outputs of the head that the loss sees.
        dims: dimensions of one sample.
    """

    outputs: int
    projection: int = 32
    dims: int = 1
    twice: Callable[..., tuple[Tensor, Any]] | None = field(default=None, repr=False)
    name = "two_view"
    mixable = False
    reads_targets = False
    wants = "it tells two views of one sample from those of all others, without labels"
    meaning = (
        "It returns features (N, size), to be compared by cosine or taken as the inputs of "
        "another model; the head that only training uses is left out."
    )

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the number of features."""
        return self.outputs

    def takes(self, loss: Card) -> bool:
        """Say whether a loss compares two views."""
        return loss.key in _LOSSES

    def check(self, recipe: Recipe) -> None:
        """Refuse recipes without anything that makes two views differ."""
        if not recipe.augmentation:
            raise RecipeError(
                "augmentation: two_view sees every sample twice, changed at random, and there is "
                "nothing that changes it; name some, such as random_affine or random_crop_flip"
            )

    def build(self, make: Callable[..., nn.Module], data: Data) -> nn.Module:
        """Return the recipe's network with a head that only training uses."""
        body = make(input_shape=data.input_shape, outputs=self.outputs)
        return Encoder(body, self.outputs, self.projection)

    def views(self, transform: Any) -> Any:
        """Apply the augmentation twice to every batch."""
        self.twice = BothViews(transform)
        return self.twice

    def forward(self, model: nn.Module, x: Tensor) -> Seen:
        """Return projections and features; held-out samples get views of fixed random numbers."""
        whole: Any = model
        if x.ndim == self.dims + 2:
            both = whole(x.transpose(0, 1).flatten(0, 1))
            first, second = whole.projector(both).chunk(2)
            return Seen(first, second, both.chunk(2)[0])
        if self.twice is None:
            raise ValueError("two_view was given no augmentation")
        generator = torch.Generator(x.device).manual_seed(_SEED)
        pair, _ = self.twice(x, None, generator)
        first, second = whole.projector(whole(pair.transpose(0, 1).flatten(0, 1))).chunk(2)
        return Seen(first, second, whole(x))

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss of both views of a batch."""
        return criterion(output.first, output.second)

    def scored(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return features of the unchanged samples, and labels."""
        return output.features, y

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the label of the sample with the nearest features."""
        return nearest(output.features, y) if not y.is_floating_point() else {}


@brick(
    "task", "two_view", aliases=("self_supervised", "simclr"), public="brickyard.train.tasks",
    takes=("classification", "regression", "multi_label"),
    summary="Learn features without labels: two augmented views of a sample belong together.",
    use_when="There are many samples and few labels, and you know what may change in a sample "
    "without changing what it is.",
    avoid_when="Labels are plenty (classification), or no augmentation keeps the meaning.",
    best_for="Images before a small labelled set is used; features for search.",
    paper="Chen et al. 2020, A Simple Framework for Contrastive Learning of Visual "
    "Representations (SimCLR), arXiv:2002.05709",
    tune_first="The augmentation, then temperature and batch_size: every other sample is a "
    "negative.",
    pairs_with=("nt_xent", "info_nce", "knn_accuracy", "random_affine"),
    cost="Two forward passes a sample, and all pairs of a batch.",
)  # fmt: skip
def two_view(data: Data, size: int = 64, projection: int = 32) -> TwoView:
    """Make the task of knowing a sample again; labels are used by metrics alone.

    The recipe's augmentation is applied twice to every batch. The loss sees the outputs of a head
    of two layers, which is thrown away afterwards: the features before it serve other tasks
    better. For held-out samples the views are the same in every evaluation.

    Args:
        data: its labels are never trained on.
        size: number of features; the model's number of outputs.
        projection: outputs of the head.

    Raises:
        ValueError: a size below 1.

    Example:
        >>> TwoView(outputs=64, projection=32, dims=3).metric_outputs
        64

    Reference:
        Chen et al. 2020, arXiv:2002.05709, section 2.1 and 4.2 (the head).
    """
    if min(size, projection) < 1:
        raise ValueError(f"size and projection must be at least 1; got {size} and {projection}")
    return TwoView(size, projection, len(data.input_shape))
