"""Mix pairs of samples and their targets: mixup and CutMix."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from brickyard.augment.base import (
    Transform,
    check_mode,
    check_probability,
    image_shape,
    seeded,
)
from brickyard.augment.blend import cutmix, mixup
from brickyard.catalog import brick

__all__ = ["CutMix", "Mixing", "Mixup"]


class Mixing(Transform):
    """Share the options of what mixes pairs."""

    mixes = True

    def __init__(
        self,
        alpha: float = 1.0,
        p: float = 1.0,
        per: Literal["sample", "batch"] = "sample",
        targets: Literal["soft", "pairs"] = "soft",
        classes: int | None = None,
    ) -> None:
        if isinstance(alpha, bool) or not (math.isfinite(alpha) and alpha >= 0):
            raise ValueError(f"alpha must be a number >= 0 (0 mixes nothing), got {alpha!r}")
        if classes is not None and classes < 1:
            raise ValueError(f"classes must be 1 or more, got {classes!r}")
        self.alpha, self.p = alpha, check_probability("p", p)
        self.per = check_mode("per", per, ("sample", "batch"))
        self.targets: Any = check_mode("targets", targets, ("soft", "pairs"))
        self.classes = classes

    def _draw(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, int]:
        """Return each sample's own share, or that of all, and the distance to the partners."""
        count = n if self.per == "sample" else 1
        own = rng.beta(self.alpha, self.alpha, count) if self.alpha > 0 else np.ones(count)
        if self.p < 1:
            own = np.where(rng.random(count) < self.p, own, 1.0)
        shift = int(rng.integers(1, n)) if n > 1 else 0
        return own, shift


@brick(
    "augmentation",
    "mixup",
    summary="Trains on blends of two samples and the same blend of their labels.",
    use_when="Classification with little data, noisy labels, or probabilities that are too sure.",
    avoid_when="A blend of two inputs means nothing (token indices, categories), or the loss takes "
    "class indices alone. With strong label smoothing on top, predictions get too timid.",
    best_for="Image and tabular classifiers that train for long; sets with wrong labels.",
    paper="Zhang et al. 2018, mixup: Beyond Empirical Risk Minimization, arXiv:1710.09412",
    tune_first="alpha: 0.1 to 0.4 on large sets, 1 and more on small ones and noisy labels.",
    cost="One pass over the batch; training takes longer to converge.",
    pairs_with=("cross_entropy", "cutmix"),
)
class Mixup(Mixing):
    """Blend every sample with another one of the batch, and their targets by the same share.

    Partners are the samples a random distance away in the batch, which for shuffled batches is as
    good as a random permutation, leaves nobody with itself, and costs no gather.

    Math:
        w ~ Beta(alpha, alpha);  x_i <- w_i x_i + (1 - w_i) x_j,  y_i <- w_i y_i + (1 - w_i) y_j

    Args:
        alpha: of the Beta distribution: small values leave most samples nearly whole, 1 draws
            evenly, large ones mix half and half; 0 mixes nothing.
        p: probability that a sample (or batch) is mixed at all.
        per: a weight for every ``"sample"``, or one for the whole ``"batch"`` as in the paper's
            code.
        targets: ``"soft"`` for losses that take probabilities or values, ``"pairs"`` for
            :func:`mixed_loss`.
        classes: number of classes, for targets that are indices; 1 for a single yes/no logit.
            Recipes fill it in.

    Raises:
        ValueError: an option out of range, samples that are no floats, indices without
            ``classes``.

    Example:
        >>> x, y = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
        >>> mixed, soft = Mixup(alpha=0.2, classes=3)(x, y, torch.Generator().manual_seed(0))
        >>> mixed.shape, soft.shape, soft.sum(1).round(decimals=4).unique().tolist()
        (torch.Size([8, 3, 4, 4]), torch.Size([8, 3]), [1.0])

    Reference:
        Zhang, Cisse, Dauphin & Lopez-Paz 2018, arXiv:1710.09412, section 2.
    """

    def __init__(
        self,
        alpha: float = 0.2,
        p: float = 1.0,
        per: Literal["sample", "batch"] = "sample",
        targets: Literal["soft", "pairs"] = "soft",
        classes: int | None = None,
    ) -> None:
        super().__init__(alpha, p, per, targets, classes)

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return blended samples, and their targets blended or as :class:`Pairs`.

        Args:
            x: floating-point samples, shape (N, ...).
            y: targets, as in :func:`blend_targets`.
            generator: source of all randomness; torch's default generator when None.
        """
        weight, shift = self._draw(len(x), seeded(generator))
        share = torch.from_numpy(weight.astype(np.float32)).expand(len(x))
        return mixup(x, y, share, shift, self.classes, self.targets)


@brick(
    "augmentation",
    "cutmix",
    summary="Pastes a box of another image into each one and blends the labels by area.",
    use_when="Image classification with enough epochs to profit from strong augmentation.",
    avoid_when="The object is small, so that a box may hide all of it and the label lies; very "
    "short training.",
    best_for="Image classifiers trained for hundreds of epochs; features for localization.",
    paper="Yun et al. 2019, CutMix: Regularization Strategy to Train Strong Classifiers with "
    "Localizable Features, arXiv:1905.04899",
    tune_first="p: 0.5 is a good start; alpha 1 draws box areas evenly.",
    cost="One copy of the batch and a small write per image.",
    pairs_with=("cross_entropy", "mixup", "random_crop_flip"),
)
class CutMix(Mixing):
    """Paste a random box of another image of the batch into every image.

    The box has the share ``1 - w`` of the area and a centre anywhere, so that its edges may be cut
    off by the border; the label's weight is what is really left. Masks are pasted like images.

    Math:
        w ~ Beta(alpha, alpha);  box of H sqrt(1 - w) x W sqrt(1 - w) around c ~ U(image)
        x_i[box] <- x_j[box];  w_i = 1 - |box in image| / (H W);  y_i <- w_i y_i + (1 - w_i) y_j

    Args:
        alpha: of the Beta distribution: 1 draws areas evenly, small values make most boxes tiny
            or huge; 0 pastes nothing.
        p: probability that an image (or batch) gets a box at all.
        per: a box for every ``"sample"``, or one for the whole ``"batch"`` as in the paper's code.
        targets: ``"soft"`` for losses that take probabilities, ``"pairs"`` for
            :func:`mixed_loss`.
        classes: number of classes, for targets that are indices; 1 for a single yes/no logit.
            Recipes fill it in.

    Raises:
        ValueError: an option out of range, samples that are no images, indices without
            ``classes``.

    Example:
        >>> x, y = torch.rand(8, 3, 16, 16), torch.arange(8) % 3
        >>> cut, soft = CutMix(classes=3)(x, y, torch.Generator().manual_seed(0))
        >>> cut.shape, soft.shape
        (torch.Size([8, 3, 16, 16]), torch.Size([8, 3]))

    Reference:
        Yun et al. 2019, arXiv:1905.04899, section 3.1, equations 1 and 2.
    """

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return images with boxes of others, and their targets blended or as :class:`Pairs`.

        Args:
            x: images, shape (N, C, H, W).
            y: labels, as in :func:`blend_targets`, or masks.
            generator: source of all randomness; torch's default generator when None.
        """
        n, _, h, w = image_shape(x, "CutMix")
        rng = seeded(generator)
        weight, shift = self._draw(n, rng)
        side = np.sqrt(1 - weight)
        places = rng.random((2, len(weight)))
        boxes = np.stack([*_interval(places[0], side, h), *_interval(places[1], side, w)], 1)
        return cutmix(x, y, torch.from_numpy(boxes), shift, self.classes, self.targets)


def _interval(place: np.ndarray, share: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return begin and end, in whole pixels, of intervals around random centres."""
    centre, size = (place * length).astype(np.int64), (share * length).astype(np.int64)
    begin = centre - size // 2
    # not clip(), which takes ten times as long for a few numbers
    return np.maximum(begin, 0), np.minimum(begin + size, length)
