"""Segmentation: a class for every pixel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from brickyard.catalog import Card, brick
from brickyard.errors import RecipeError
from brickyard.train.data import Data
from brickyard.train.tasks.base import Task

if TYPE_CHECKING:
    from brickyard.train.recipe import Recipe

__all__ = ["Segmentation", "segmentation"]

IGNORED = -100


@dataclass
class Segmentation(Task):
    """Tell the class of every pixel; with ``binary``, from a single logit.

    Args:
        classes: their names, by index.
        overlap: the loss compares whole masks (dice and its kin).
        binary: the loss wants one logit and targets 0.0 and 1.0.
        ignored: target of pixels that count for nothing.
    """

    classes: Sequence[str]
    overlap: bool = False
    binary: bool = False
    ignored: int = IGNORED
    name = "segmentation"
    mixable = False
    meaning = (
        "It returns logits (N, classes, H, W): `logits.argmax(1)` are the classes of the pixels; "
        "with a single channel, `logits.sigmoid()` is the probability of class 1."
    )
    wants = "it compares scores of classes, pixel by pixel, with a mask of class indices"

    @property
    def outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return 1 for a single logit, else one output a class."""
        return 1 if self.binary else len(self.classes)

    @property
    def metric_outputs(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return the number of classes."""
        return len(self.classes)

    @property
    def targets(self) -> frozenset[str]:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Return what losses may want: one logit a pixel only where there are two classes."""
        kinds = {"class indices", "class indices or probabilities", "masks"}
        return frozenset(kinds | ({"binary"} if len(self.classes) == 2 else set()))

    def check(self, recipe: Recipe) -> None:
        """Refuse overlap losses in a form that does not fit."""
        if not self.overlap:
            return
        key, options = recipe.loss.name, recipe.loss.options
        if options.get("mode") != "multiclass":
            raise RecipeError(
                f"loss.mode: segmentation gives one score for each of {len(self.classes)} classes "
                f"and a mask of class indices, which {key} takes with mode: multiclass; got "
                f"{options.get('mode')!r}"
            )
        fills = [a.name for a in recipe.augmentation if a.options.get("mask_fill") == IGNORED
                 and "zeros" in (a.options.get("border"), "zeros")]  # fmt: skip
        if fills and options.get("ignore_index") is None:
            raise RecipeError(
                f"loss.ignore_index: {fills[0]} may mark pixels that come from outside of the "
                f"image with {IGNORED}, which {key} would take for a class; give ignore_index: "
                f"{IGNORED}"
            )

    def begin(self, model: nn.Module, loss: Any, total: int, epoch: int) -> None:
        """Learn which targets the loss leaves out."""
        ignored = getattr(loss, "ignore_index", None)
        self.ignored = IGNORED if ignored is None else int(ignored)

    def target(self, y: Tensor) -> Tensor:
        """Return class indices (N, H, W), or floats (N, 1, H, W) for a single logit."""
        return y.to(torch.float32).unsqueeze(1) if self.binary else y

    def loss(self, criterion: Callable[..., Tensor], output: Any, x: Tensor, y: Tensor) -> Tensor:
        """Return the loss over all pixels that count."""
        if output.ndim != 4 or output.shape[1] != self.outputs or output.shape[2:] != y.shape[1:]:
            raise ValueError(
                f"segmentation needs scores (N, {self.outputs}, H, W) for masks {tuple(y.shape)}; "
                f"got {tuple(output.shape)}"
            )
        if self.binary:
            keep = (y != self.ignored).unsqueeze(1)
            return criterion(output[keep], self.target(y)[keep])
        return criterion(output, y)

    def weigh(self, y: Tensor) -> float:
        """Return the number of pixels that count."""
        return float((y != self.ignored).sum())

    def _logits(self, output: Tensor) -> Tensor:
        output = output.float()
        return torch.cat([torch.zeros_like(output), output], 1) if self.binary else output

    def scored(self, output: Any, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return predicted and true classes of the pixels that count, one dimension."""
        keep = y != self.ignored
        return self._logits(output).argmax(1)[keep], y[keep]

    def inspect(self, output: Any, y: Tensor) -> dict[str, Tensor]:
        """Return the mean cross-entropy of every image, in nats a pixel."""
        keep = y != self.ignored
        each = F.cross_entropy(
            self._logits(output), torch.where(keep, y, IGNORED), reduction="none"
        )
        return {"loss": each.sum((1, 2)) / keep.sum((1, 2)).clamp_min(1)}

    def show(self, model: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        """Return images beside their masks, the predicted ones, and the pixels that are wrong."""
        said = self._logits(self.forward(model, x)).argmax(1)
        keep, top = y != self.ignored, max(len(self.classes) - 1, 1)
        low, high = x[:, 0].amin((1, 2), keepdim=True), x[:, 0].amax((1, 2), keepdim=True)
        grey = (x[:, 0] - low) / (high - low).clamp_min(1e-8)
        panels = [grey, y.clamp(0, top) / top, said / top, ((said != y) & keep).float()]
        wrong = [int(n) for n in ((said != y) & keep).sum((1, 2))]
        return {
            "heading": "Masks",
            "told": "The validation images with the highest loss. Classes from black to white: "
            f"{', '.join(self.classes)}.",
            "pictures": torch.stack([(p * 255).round().to(torch.uint8).cpu() for p in panels], 1),
            "titles": ["image", "true", "predicted", "wrong"],
            "captions": [f"{n} of {int(k.sum())} pixels wrong"
                         for n, k in zip(wrong, keep, strict=True)],
        }  # fmt: skip


@brick(
    "task", "segmentation", aliases=("semantic_segmentation",), public="brickyard.train.tasks",
    takes=("segmentation",),
    summary="Tell the class of every pixel of an image.",
    use_when="You want to know where things are, to the pixel, and there are masks to learn from.",
    avoid_when="A box or a label would do: masks are dear; or objects of one class must be counted "
    "one by one.",
    best_for="Medical images, aerial images, microscopy.",
    paper="Long, Shelhamer & Darrell 2015, Fully Convolutional Networks, arXiv:1411.4038",
    tune_first="The loss: cross_entropy first, then dice when the object is small.",
    pairs_with=("unet", "cross_entropy", "dice", "mean_iou", "random_affine"),
    cost="Scores of all classes for all pixels.",
)  # fmt: skip
def segmentation(data: Data, loss: Card | None = None) -> Segmentation:
    """Make the task of telling the class of every pixel.

    Losses of single pixels (cross_entropy, focal ...) may be accumulated over batches, which then
    count by their pixels; losses of overlap need ``mode: multiclass`` and see one batch at a time.

    Args:
        data: images with masks of class indices, -100 where nothing is known.
        loss: the loss's card; none for the user's own, which gets scores (N, classes, H, W) and
            indices (N, H, W).

    Example:
        >>> Segmentation(("rest", "cell")).weigh(torch.tensor([[[0, 1], [1, -100]]]))
        3.0

    Reference:
        Long, Shelhamer & Darrell 2015, arXiv:1411.4038.
    """
    wants = "" if loss is None else str(loss.facts.get("target", ""))
    names = data.classes or tuple(map(str, range(data.outputs)))
    return Segmentation(names, overlap=wants == "masks", binary=wants == "binary")
