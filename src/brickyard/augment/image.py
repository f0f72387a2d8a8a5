"""Random changes to image batches; every sample draws its own, all in a few tensor operations."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from brickyard.augment.base import (
    Transform,
    check_amount,
    check_mode,
    check_probability,
    image_shape,
    integers,
    like_layout,
    mask_of,
    uniform,
)
from brickyard.catalog import brick

__all__ = ["RandomAffine", "RandomCropFlip"]


@brick(
    "augmentation",
    "random_crop_flip",
    aliases=("random_crop", "random_flip", "crop_flip"),
    summary="Shifts every image by up to a few pixels (pad, then crop) and mirrors some of them.",
    use_when="Images show objects whose exact place says nothing about the class.",
    avoid_when="Left and right carry meaning (digits, text, traffic signs, organs): set flip=0. "
    "Position is the target (detection, regression of coordinates): the target would have to move "
    "too.",
    best_for="Small-image classification; padding 4 with flips is the standard recipe of CIFAR.",
    paper="Lee et al. 2015, Deeply-Supervised Nets, arXiv:1409.5185, section 3 (pad 4, crop, "
    "flip); used by He et al. 2016, arXiv:1512.03385, section 4.2",
    tune_first="padding: about an eighth of the side; less when objects touch the border.",
    cost="One padded copy and one gather per batch; no parameters.",
    pairs_with=("random_affine",),
)
class RandomCropFlip(Transform):
    """Pad, crop back to size at a random place, and mirror left-right with some probability.

    Math:
        out[i, j] = pad(x)[i + a, j' + b],   a, b ~ U{0 .. 2 padding},
        j' = W - 1 - j with probability flip, else j

    Args:
        padding: pixels added on each side, and the largest shift in each direction.
        flip: probability of mirroring an image left-right.
        mode: what fills the border: ``"constant"`` the value ``fill``, ``"edge"`` the nearest
            pixel, ``"reflect"`` the mirrored inside.
        fill: border value of mode ``"constant"``, on the scale of the images as they come.
        mask_fill: border label of segmentation masks in mode ``"constant"``; -100 is what
            cross_entropy ignores. Masks of probabilities get zeros there.

    Raises:
        ValueError: an option out of range, images that are not ``(N, C, H, W)``, or masks whose
            type cannot hold ``mask_fill``.

    Example:
        >>> x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
        >>> moved, same = RandomCropFlip(padding=2, flip=0.0)(x, y, torch.Generator())
        >>> moved.shape, same is y
        (torch.Size([8, 1, 28, 28]), True)

    Reference:
        Lee et al. 2015, arXiv:1409.5185, section 3; He et al. 2016, arXiv:1512.03385, section 4.2.
    """

    def __init__(
        self,
        padding: int = 4,
        flip: float = 0.5,
        mode: Literal["constant", "edge", "reflect"] = "constant",
        fill: float = 0.0,
        mask_fill: int = -100,
    ) -> None:
        if padding < 0 or padding != int(padding):
            raise ValueError(f"padding must be a whole number of pixels >= 0, got {padding!r}")
        check_probability("flip", flip)
        check_mode("mode", mode, _PAD_MODES)
        if fill != 0.0 and mode != "constant":
            raise ValueError(f"fill={fill!r} has no effect with mode={mode!r}; use mode='constant'")
        if mask_fill != -100 and mode != "constant":
            raise ValueError(f"mask_fill={mask_fill!r} has no effect with mode={mode!r}")
        self.padding, self.flip, self.mode, self.fill = int(padding), flip, mode, fill
        self.mask_fill = mask_fill

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return the changed images, and masks moved with them; other targets as they came.

        Args:
            x: images, shape ``(N, C, H, W)``.
            y: targets; masks ``(N, H, W)`` or ``(N, K, H, W)`` move with their images.
            generator: source of all randomness; torch's default generator when None.
        """
        n, _, h, w = image_shape(x, type(self).__name__)
        mask = mask_of(x, y, type(self).__name__)
        pad = self.padding
        if self.mode == "reflect" and pad >= min(h, w):
            raise ValueError(
                f"mode='reflect' needs padding below the image's sides, got padding={pad} for "
                f"{h} x {w} images"
            )
        top, left = (integers(2 * pad + 1, n, x, generator) for _ in range(2))
        mirrored = uniform(n, x, generator) < self.flip
        out = self._move(x, top, left, mirrored, self.fill)
        if mask is None:
            return like_layout(out, x), y
        fill = _border(mask, self.mask_fill) if self.mode == "constant" else 0
        planes = mask if mask.ndim == 4 else mask[:, None]
        return like_layout(out, x), self._move(planes, top, left, mirrored, fill).view_as(mask)

    def _move(self, x: Tensor, top: Tensor, left: Tensor, mirrored: Tensor, fill: float) -> Tensor:
        """Return images padded, cut out at their own places, and mirrored where asked."""
        n, _, h, w = x.shape
        pad, padded = self.padding, x
        if pad and self.mode == "constant":
            padded = F.pad(x, (pad,) * 4, value=fill)
        elif pad:
            plain = x if x.is_floating_point() else x.double()  # torch mirrors no whole numbers
            padded = F.pad(plain, (pad,) * 4, mode=_PAD_MODES[self.mode]).to(x.dtype)
        windows = padded.unfold(2, h, 1).unfold(3, w, 1)  # (N, C, shifts, shifts, H, W), no copy
        out = windows[torch.arange(n, device=x.device), :, top, left]
        return torch.where(mirrored[:, None, None, None], out.flip(3), out)


@brick(
    "augmentation",
    "random_affine",
    aliases=("affine", "random_rotation"),
    summary="Turns, scales, shears and shifts every image by its own random amounts in one "
    "resampling.",
    use_when="Small rotations, sizes, slants and shifts do not change the class: handwriting, "
    "objects, microscopy.",
    avoid_when="Orientation is the class (6 against 9 beyond about 45 degrees), or one-pixel "
    "detail decides: resampling blurs.",
    best_for="Handwritten characters and other small sets of centred objects.",
    paper="Simard, Steinkraus & Platt 2003, Best Practices for Convolutional Neural Networks "
    "Applied to Visual Document Analysis, ICDAR",
    tune_first="degrees (10 to 15 for digits), then shift.",
    cost="One bilinear resampling per batch; no parameters.",
    pairs_with=("random_crop_flip",),
)
class RandomAffine(Transform):
    """Apply a random rotation, scaling, shear and shift to every image, bilinearly resampled.

    Math:
        out(p) = x(A p + t) with A = R(angle) Shear(s) / factor, p in [-1, 1]^2 from the centre,
        angle ~ U(-degrees, degrees), s ~ U(-shear, shear), t ~ 2 U(-shift, shift) per axis,
        log factor ~ U(-log(1 + scale), log(1 + scale))

    Args:
        degrees: largest rotation, either way.
        scale: largest relative change of size: 0.1 gives factors from 1/1.1 to 1.1.
        shear: largest horizontal slant, as sideways shift per unit of height.
        shift: largest shift in each direction, as a fraction of the side.
        border: what lies outside: ``"edge"`` the nearest pixel, ``"zeros"``, or ``"reflect"``.
        mask_fill: label outside of segmentation masks with border ``"zeros"``; -100 is what
            cross_entropy ignores. Masks take the nearest pixel, so labels never blend.

    Raises:
        ValueError: a negative amount, images that are not ``(N, C, H, W)`` of floats, or masks
            whose type cannot hold ``mask_fill``.

    Example:
        >>> x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
        >>> moved, same = RandomAffine(degrees=10, shift=0.05)(x, y, torch.Generator())
        >>> moved.shape, same is y
        (torch.Size([8, 1, 28, 28]), True)

    Reference:
        Simard, Steinkraus & Platt 2003, ICDAR, section 2 (affine distortions).
    """

    def __init__(
        self,
        degrees: float = 10.0,
        scale: float = 0.1,
        shear: float = 0.0,
        shift: float = 0.1,
        border: Literal["edge", "zeros", "reflect"] = "edge",
        mask_fill: int = -100,
    ) -> None:
        for name, value in (
            ("degrees", degrees),
            ("scale", scale),
            ("shear", shear),
            ("shift", shift),
        ):
            check_amount(name, value)
        check_mode("border", border, _GRID_MODES)
        if mask_fill != -100 and border != "zeros":
            raise ValueError(f"mask_fill={mask_fill!r} has no effect with border={border!r}")
        self.degrees, self.scale, self.shear = degrees, scale, shear
        self.shift, self.border, self.mask_fill = shift, border, mask_fill

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return the changed images, and masks moved with them; other targets as they came.

        Args:
            x: floating-point images, shape ``(N, C, H, W)``.
            y: targets; masks ``(N, H, W)`` or ``(N, K, H, W)`` move with their images.
            generator: source of all randomness; torch's default generator when None.
        """
        n, _, h, w = image_shape(x, type(self).__name__)
        mask = mask_of(x, y, type(self).__name__)
        if not x.is_floating_point():
            raise ValueError(f"RandomAffine resamples floating-point images, got {x.dtype}")
        if n == 0:
            return x, y
        theta = self._draw(n, h / w, x, generator)
        # Places in half precision would be off by whole pixels.
        wide = x if x.dtype == torch.float64 else x.float()
        grid = F.affine_grid(theta.to(wide.dtype), [n, 1, h, w], align_corners=False)
        how: Any = {"padding_mode": _GRID_MODES[self.border], "align_corners": False}
        moved = F.grid_sample(wide, grid, mode="bilinear", **how).to(x.dtype)
        if mask is None:
            return like_layout(moved, x), y
        fill = _border(mask, self.mask_fill) if self.border == "zeros" else 0
        planes = (mask if mask.ndim == 4 else mask[:, None]).to(wide.dtype) - fill
        labels = F.grid_sample(planes, grid, mode="nearest", **how) + fill
        return like_layout(moved, x), labels.to(mask.dtype).view_as(mask)

    def _draw(self, n: int, ratio: float, x: Tensor, generator: torch.Generator | None) -> Tensor:
        """Return a matrix (2, 3) from output to input places for every image."""
        angle, size, slant, down, right = (2 * uniform(n, x, generator) - 1 for _ in range(5))
        angle = angle * math.radians(self.degrees)
        factor = torch.exp(-size * math.log1p(self.scale))
        slant = slant * self.shear
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        # The grid's unit is half a side, so a turn must know the sides: hence ``ratio``.
        return torch.stack(
            [
                torch.stack([cos, (slant * cos - sin) * ratio, 2 * self.shift * right], dim=1),
                torch.stack([sin / ratio, slant * sin + cos, 2 * self.shift * down], dim=1),
            ],
            dim=1,
        )


_PAD_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}
_GRID_MODES = {"edge": "border", "zeros": "zeros", "reflect": "reflection"}


def _border(mask: Tensor, fill: int) -> int:
    """Return what stands outside of masks; nothing, so 0, in masks of probabilities.

    Raises:
        ValueError: the masks' type cannot hold ``fill``.
    """
    if mask.is_floating_point():
        return 0
    low, high = (0, 1) if mask.dtype == torch.bool else (
        torch.iinfo(mask.dtype).min, torch.iinfo(mask.dtype).max)  # fmt: skip
    if not low <= fill <= high:
        raise ValueError(
            f"masks of {mask.dtype} cannot hold mask_fill={fill}; give y.long(), or a mask_fill "
            f"from {low} to {high}"
        )
    return fill
