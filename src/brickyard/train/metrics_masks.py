"""Metrics of masks: how far predicted and true regions overlap."""

from __future__ import annotations

from typing import TYPE_CHECKING

from brickyard.catalog import brick

if TYPE_CHECKING:
    from torch import Tensor
    from torchmetrics import Metric

__all__ = ["dice_score", "mean_iou", "pixel_accuracy"]


@brick(
    "metric", "mean_iou", aliases=("miou",), task="segmentation", better="higher",
    summary="Overlap over union of predicted and true pixels, averaged over the classes.",
    use_when="Segmentation; the usual figure for scenes, and rare classes count like common ones.",
    avoid_when="Objects of a few pixels: one pixel beside the border already costs much.",
    best_for="Comparing segmentations of the same data.",
    paper="Everingham et al. 2010, The Pascal Visual Object Classes Challenge, IJCV 88, section 4",
    tune_first="background: false where class 0 is what nobody looks for.",
    pairs_with=("dice_score", "segmentation"),
    cost="Three counts a class.",
)  # fmt: skip
def mean_iou(outputs: int, background: bool = True) -> Metric:
    """Make a metric that gives the mean intersection over union, of all pixels together.

    Math:
        mean over classes c present or predicted of  hits_c / (predicted_c + true_c - hits_c)

    Args:
        outputs: number of classes.
        background: let class 0 count as the others do.

    Example:
        >>> import torch
        >>> metric = mean_iou(outputs=2)
        >>> metric.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
        >>> round(float(metric.compute()), 4)  # 2/3 and 1/2
        0.5833

    Reference:
        Everingham et al. 2010, IJCV 88(2), section 4.
    """
    from brickyard.train.scores_masks import RegionCounts

    return RegionCounts(outputs, _iou, background)


@brick(
    "metric", "dice_score", aliases=("dice_coefficient",), task="segmentation", better="higher",
    summary="Twice the overlap over the sizes of predicted and true regions, mean over classes.",
    use_when="Segmentation in medicine, where it is what papers report.",
    avoid_when="You compare with figures of IoU: it is always the higher of the two.",
    best_for="Organs, tissues, lesions.",
    paper="Dice 1945, Measures of the Amount of Ecologic Association Between Species, Ecology 26",
    tune_first="background: false, as is usual in medicine.",
    pairs_with=("mean_iou", "dice"),
    cost="Three counts a class.",
)  # fmt: skip
def dice_score(outputs: int, background: bool = True) -> Metric:
    """Make a metric that gives the mean Dice coefficient, of all pixels together.

    Math:
        mean over classes c present or predicted of  2 hits_c / (predicted_c + true_c)

    Args:
        outputs: number of classes.
        background: let class 0 count as the others do.

    Example:
        >>> import torch
        >>> metric = dice_score(outputs=2, background=False)
        >>> metric.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
        >>> round(float(metric.compute()), 4)
        0.6667

    Reference:
        Dice 1945, Ecology 26(3).
    """
    from brickyard.train.scores_masks import RegionCounts

    return RegionCounts(outputs, _dice, background)


@brick(
    "metric", "pixel_accuracy", task="segmentation", better="higher",
    summary="Share of the pixels whose class is predicted right.",
    use_when="Classes cover similar areas.",
    avoid_when="One class covers most of the image: naming it everywhere scores high. Take "
    "mean_iou.",
    best_for="A first look; beside mean_iou.",
    paper="Long, Shelhamer & Darrell 2015, arXiv:1411.4038, section 5",
    tune_first="Nothing to tune.",
    pairs_with=("mean_iou",),
    cost="Three counts a class.",
)  # fmt: skip
def pixel_accuracy(outputs: int) -> Metric:
    """Make a metric that gives the share of right pixels.

    Math:
        sum_c hits_c / sum_c true_c

    Args:
        outputs: number of classes.

    Example:
        >>> import torch
        >>> metric = pixel_accuracy(outputs=2)
        >>> metric.update(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 0, 0, 1]))
        >>> float(metric.compute())
        0.75

    Reference:
        Long, Shelhamer & Darrell 2015, arXiv:1411.4038, section 5.
    """
    from brickyard.train.scores_masks import RegionCounts

    return RegionCounts(outputs, _share, True)


def _iou(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    union = predicted + actual - hits
    return (hits / union)[union > 0].mean()


def _dice(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    sizes = predicted + actual
    return (2 * hits / sizes)[sizes > 0].mean()


def _share(hits: Tensor, predicted: Tensor, actual: Tensor) -> Tensor:
    return hits.sum() / actual.sum()
