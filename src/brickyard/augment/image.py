"""Random changes to image batches; every sample draws its own, all in a few tensor operations."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

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
class RandomCropFlip:
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

    Raises:
        ValueError: an option out of range, or images that are not ``(N, C, H, W)``.

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
    ) -> None:
        if padding < 0 or padding != int(padding):
            raise ValueError(f"padding must be a whole number of pixels >= 0, got {padding!r}")
        if not 0.0 <= flip <= 1.0:
            raise ValueError(f"flip is a probability and must lie in [0, 1], got {flip!r}")
        if mode not in _PAD_MODES:
            raise ValueError(f"mode must be one of {', '.join(_PAD_MODES)}, got {mode!r}")
        if fill != 0.0 and mode != "constant":
            raise ValueError(f"fill={fill!r} has no effect with mode={mode!r}; use mode='constant'")
        self.padding, self.flip, self.mode, self.fill = int(padding), flip, mode, fill

    def __repr__(self) -> str:
        return (
            f"RandomCropFlip(padding={self.padding}, flip={self.flip}, mode={self.mode!r}, "
            f"fill={self.fill})"
        )

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return the changed images and ``y`` as it came.

        Args:
            x: images, shape ``(N, C, H, W)``.
            y: targets; never touched.
            generator: source of all randomness; torch's default generator when None.
        """
        n, _, h, w = _image_shape(x, type(self).__name__)
        pad = self.padding
        if self.mode == "reflect" and pad >= min(h, w):
            raise ValueError(
                f"mode='reflect' needs padding below the image's sides, got padding={pad} for "
                f"{h} x {w} images"
            )
        top, left = (_integers(2 * pad + 1, n, x, generator) for _ in range(2))
        mirrored = _uniform(n, x, generator) < self.flip
        padded = x
        if pad and self.mode == "constant":
            padded = F.pad(x, (pad,) * 4, value=self.fill)
        elif pad:
            padded = F.pad(x, (pad,) * 4, mode=_PAD_MODES[self.mode])
        windows = padded.unfold(2, h, 1).unfold(3, w, 1)  # (N, C, shifts, shifts, H, W), no copy
        out = windows[torch.arange(n, device=x.device), :, top, left]
        return torch.where(mirrored[:, None, None, None], out.flip(3), out), y


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
class RandomAffine:
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

    Raises:
        ValueError: a negative amount, or images that are not ``(N, C, H, W)`` of floats.

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
    ) -> None:
        for name, value in (
            ("degrees", degrees),
            ("scale", scale),
            ("shear", shear),
            ("shift", shift),
        ):
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"{name} is a largest amount and must be >= 0, got {value!r}")
        if border not in _GRID_MODES:
            raise ValueError(f"border must be one of {', '.join(_GRID_MODES)}, got {border!r}")
        self.degrees, self.scale, self.shear = degrees, scale, shear
        self.shift, self.border = shift, border

    def __repr__(self) -> str:
        return (
            f"RandomAffine(degrees={self.degrees}, scale={self.scale}, shear={self.shear}, "
            f"shift={self.shift}, border={self.border!r})"
        )

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return the changed images and ``y`` as it came.

        Args:
            x: floating-point images, shape ``(N, C, H, W)``.
            y: targets; never touched.
            generator: source of all randomness; torch's default generator when None.
        """
        n, _, h, w = _image_shape(x, type(self).__name__)
        if not x.is_floating_point():
            raise ValueError(f"RandomAffine resamples floating-point images, got {x.dtype}")
        angle, size, slant, down, right = (2 * _uniform(n, x, generator) - 1 for _ in range(5))
        angle = angle * math.radians(self.degrees)
        factor = torch.exp(-size * math.log1p(self.scale))
        slant = slant * self.shear
        cos, sin = torch.cos(angle) * factor, torch.sin(angle) * factor
        ratio = h / w  # the grid's unit is half a side, so a turn must know the sides
        theta = torch.stack(
            [
                torch.stack([cos, (slant * cos - sin) * ratio, 2 * self.shift * right], dim=1),
                torch.stack([sin / ratio, slant * sin + cos, 2 * self.shift * down], dim=1),
            ],
            dim=1,
        )
        grid = F.affine_grid(theta.to(x.dtype), list(x.shape), align_corners=False)
        moved = F.grid_sample(
            x, grid, mode="bilinear", padding_mode=_GRID_MODES[self.border], align_corners=False
        )
        return moved, y


_PAD_MODES = {"constant": "constant", "edge": "replicate", "reflect": "reflect"}
_GRID_MODES = {"edge": "border", "zeros": "zeros", "reflect": "reflection"}


def _image_shape(x: Tensor, name: str) -> tuple[int, int, int, int]:
    if x.ndim != 4:
        raise ValueError(f"{name} takes images of shape (N, C, H, W), got {tuple(x.shape)}")
    n, c, h, w = x.shape
    return n, c, h, w


def _uniform(n: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return ``n`` float32 draws from [0, 1) on the device of ``like``."""
    device = generator.device if generator is not None else like.device
    return torch.rand(n, generator=generator, device=device).to(like.device)


def _integers(high: int, n: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return ``n`` whole numbers from 0 to ``high - 1`` on the device of ``like``."""
    device = generator.device if generator is not None else like.device
    return torch.randint(high, (n,), generator=generator, device=device).to(like.device)
