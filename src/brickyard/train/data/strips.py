"""Glue handwritten digits into strips: a line of symbols whose places nobody wrote down."""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from brickyard.catalog import brick
from brickyard.errors import DataError
from brickyard.train.data.base import Data, Split, fingerprint
from brickyard.train.data.batching import mix_seed
from brickyard.train.data.builtin import digits, mnist5k

__all__ = ["digit_strips", "glue"]


def glue(
    images: Tensor, labels: Tensor, count: int, least: int, most: int, gap: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Return strips of randomly many images with random gaps, and their labels.

    Args:
        images: shape (n, H, W).
        labels: shape (n,).
        count: how many strips.
        least: fewest images a strip.
        most: most images a strip.
        gap: widest gap between two images, in columns.
        generator: of all choices.

    Returns:
        Strips (count, 1, H, most * (W + gap)), empty behind the last image, and labels
        (count, most), -1 behind the last.
    """
    high, wide = images.shape[1:]
    many = torch.randint(least, most + 1, (count, 1), generator=generator)
    rows = torch.randint(0, len(images), (count, most), generator=generator)
    gaps = torch.randint(0, gap + 1, (count, most), generator=generator)
    there = torch.arange(most) < many
    columns = ((gaps + wide).cumsum(1) - wide)[:, :, None] + torch.arange(wide)  # (N, most, W)
    pixels = images[rows] * there[:, :, None, None]
    strips = torch.zeros(count, most * (wide + gap), high)
    place = columns.flatten(1)[:, :, None].expand(-1, -1, high)
    strips.scatter_(1, place, pixels.transpose(2, 3).flatten(1, 2))
    return strips.transpose(1, 2)[:, None].contiguous(), torch.where(there, labels[rows], -1)


@brick(
    "data", "digit_strips", aliases=("strips",), public="brickyard.train.data",
    task="transcription or multi_label", needs=("sklearn",), extra="data",
    summary="Strips of handwritten digits of varying number, without the place of each digit.",
    use_when="You try out CTC, or labels of which several hold, on real handwriting in minutes.",
    avoid_when="You need real lines of text: these digits stand on one line and hardly touch.",
    best_for="CTC with convolutional and recurrent networks; multi-label classification.",
    paper="Graves et al. 2006, Connectionist Temporal Classification, for the task; digits as in "
    "the data sets digits and mnist5k",
    tune_first="most: longer strips are harder to read without an error.",
    pairs_with=("crnn", "ctc", "character_error_rate", "bce"),
    cost="2.1 kB a strip of 8 pixels height; made in a moment.",
)  # fmt: skip
def digit_strips(
    source: Literal["digits", "mnist5k"] = "digits", train: int = 4000, val: int = 500,
    least: int = 2, most: int = 6, gap: int = 3, noise: float = 0.1,
    labels: Literal["sequence", "set"] = "sequence", seed: int = 0,
) -> Data:  # fmt: skip
    """Glue digits into strips; strips for validation are of digits that training never sees.

    Args:
        source: where the digits are from: 8 x 8 or 28 x 28 pixels.
        train: strips to train on.
        val: strips for validation, made of a fifth of all digits.
        least: fewest digits a strip.
        most: most digits a strip.
        gap: widest gap between two digits, in columns.
        noise: deviation of the noise on every pixel.
        labels: ``"sequence"`` for the digits in their order, -1 behind the last; ``"set"`` for
            which of the ten digits occur, each 0.0 or 1.0.
        seed: of the split of the digits and of all choices.

    Raises:
        DataError: the source is not installed, or an option out of range.

    Example:
        >>> data = digit_strips(train=100, val=20)
        >>> data.input_shape, data.train.y.shape, data.classes[3]
        ((1, 8, 66), torch.Size([100, 6]), '3')

    Reference:
        Graves et al. 2006, Connectionist Temporal Classification, ICML.
    """
    if not 1 <= least <= most or gap < 0 or noise < 0 or min(train, val) < 1:
        raise DataError(
            "there must be strips, least at least 1 and at most most, gap and noise at least 0; "
            f"got train={train}, val={val}, least={least}, most={most}, gap={gap}, noise={noise}"
        )
    found = digits(val=0.2, seed=seed) if source == "digits" else mnist5k(val=0.2, seed=seed)
    side = 8 if source == "digits" else 28
    splits = []
    for number, (split, count) in enumerate(((found.train, train), (found.val, val))):
        generator = torch.Generator().manual_seed(mix_seed(seed, number))
        images = split.x.reshape(-1, side, side)  # pyright: ignore[reportOptionalMemberAccess]
        x, y = glue(images, split.y, count, least, most, gap, generator)  # pyright: ignore
        x += noise * torch.randn(x.shape, generator=generator)
        splits.append(Split(x, _occurring(y) if labels == "set" else y))
    counts = np.bincount(found.train.y.numpy(), minlength=10)  # pyright: ignore
    return Data(
        name="digit_strips", task="transcription" if labels == "sequence" else "multi_label",
        train=splits[0], val=splits[1], input_shape=tuple(splits[0].x.shape[1:]),  # pyright: ignore
        outputs=10, classes=found.classes,
        facts={
            "source": f"{found.facts['source']}, glued into strips",
            "digits": {"train": len(found.train), "val": len(found.val)},
            "digits_of_each_class": counts.tolist(),
            "split": {"given": False, "by": "digits: those of validation strips are in no other"},
            "fingerprint": fingerprint(*splits),
            "warnings": [],
        },
    )  # fmt: skip


def _occurring(y: Tensor) -> Tensor:
    """Return which of ten digits occur in each row, 0.0 or 1.0."""
    return (y[:, :, None] == torch.arange(10)).any(1).float()
