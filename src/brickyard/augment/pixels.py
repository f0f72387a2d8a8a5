"""Change the values of samples: squares cut out, colours, noise."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from brickyard.augment.base import (
    Transform,
    check_amount,
    check_floats,
    check_probability,
    chosen,
    image_shape,
    integers,
    like_layout,
    uniform,
    whole,
)
from brickyard.catalog import brick

__all__ = ["ColorJitter", "Cutout", "GaussianNoise", "erase", "recolor"]


def erase(x: Tensor, centres: Tensor, size: int, fill: float = 0.0) -> Tensor:
    """Return images with a square around each of their centres filled.

    Args:
        x: images, shape (N, C, H, W).
        centres: row and column of the squares' middles, whole numbers of shape (N, holes, 2); a
            negative row means none.
        size: side in pixels; the part beyond the border is cut off.
        fill: value inside.

    Example:
        >>> erase(torch.ones(1, 1, 3, 3), torch.tensor([[[0, 0]]]), 3)[0, 0].tolist()
        [[0.0, 0.0, 1.0], [0.0, 0.0, 1.0], [1.0, 1.0, 1.0]]
    """
    _, _, h, w = image_shape(x, "erase")

    def inside(middle: Tensor, length: int) -> Tensor:
        at = torch.arange(length, device=x.device)
        low = middle[..., None] - size // 2
        return (at >= low) & (at < low + size)

    row, column = centres.to(x.device).unbind(-1)
    rows = inside(row, h) & (row >= 0)[..., None]
    hidden = (rows[..., :, None] & inside(column, w)[..., None, :]).any(1)
    return like_layout(x.masked_fill(hidden[:, None], fill), x)


@brick(
    "augmentation",
    "cutout",
    aliases=("random_erasing",),
    summary="Blanks squares at random places, so that no single part of an image decides.",
    use_when="Image classifiers that look at one detail, or that meet objects half hidden.",
    avoid_when="Objects are small: a square may hide all of one while its label stays.",
    best_for="Small photographs, with crops and flips.",
    paper="DeVries & Taylor 2017, Improved Regularization of Convolutional Neural Networks with "
    "Cutout, arXiv:1708.04552",
    tune_first="size: half the side on CIFAR-10, a quarter on CIFAR-100 in the paper.",
    cost="One masked copy of the batch.",
    pairs_with=("random_crop_flip",),
)
class Cutout(Transform):
    """Blank squares at random places of every image.

    Centres lie anywhere in the image, so squares may reach beyond the border: some images lose
    less than a whole square, as in the paper. Targets stay, masks too: what is hidden is still
    there.

    Math:
        x[:, r - size/2 : r + size/2, c - size/2 : c + size/2] = fill,  r ~ U{0..H-1}, c ~ U{0..W-1}

    Args:
        size: side of the squares in pixels.
        holes: squares an image.
        p: probability that an image gets them.
        fill: value inside: the mean of the images, which is 0 for standardized ones.

    Raises:
        ValueError: an option out of range, or samples that are not ``(N, C, H, W)``.

    Example:
        >>> x = torch.ones(4, 3, 8, 8)
        >>> cut, _ = Cutout(size=4)(x, None, torch.Generator().manual_seed(0))
        >>> bool((cut == 0).any()), bool((x == 0).any())
        (True, False)

    Reference:
        DeVries & Taylor 2017, arXiv:1708.04552, section 3.
    """

    def __init__(self, size: int = 8, holes: int = 1, p: float = 1.0, fill: float = 0.0) -> None:
        self.size, self.holes = whole("size", size, 1), whole("holes", holes, 1)
        self.p, self.fill = check_probability("p", p), fill

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return images with blank squares, and ``y`` as it came.

        Args:
            x: images, shape (N, C, H, W).
            y: targets; never touched.
            generator: source of all randomness; torch's default generator when None.
        """
        n, _, h, w = image_shape(x, type(self).__name__)
        rows, columns = (integers(side, (n, self.holes), x, generator) for side in (h, w))
        rows = torch.where(chosen(self.p, n, x, generator)[:, None], rows, -1)
        return erase(x, torch.stack([rows, columns], -1), self.size, self.fill), y


#: Luminance of red, green, blue (ITU-R BT.601), and the axes I and Q of the NTSC colour space.
_GRAY = (0.299, 0.587, 0.114)
_YIQ = (_GRAY, (0.5959, -0.2746, -0.3213), (0.2115, -0.5227, 0.3112))


def recolor(
    x: Tensor, brightness: Tensor, contrast: Tensor, saturation: Tensor, hue: Tensor
) -> Tensor:
    """Return images with their colours changed, as one matrix and one offset an image.

    Args:
        x: images, shape (N, C, H, W); saturation and hue act on three channels only.
        brightness: factor of all values, shape (N,).
        contrast: factor of the distance to the image's mean luminance, shape (N,).
        saturation: factor of the distance to grey, shape (N,).
        hue: turn of the colours around grey, in turns, shape (N,).
    """
    n, c = x.shape[:2]
    wide = x if x.dtype == torch.float64 else x.float()
    gain = (brightness * contrast).to(wide)
    if c == 3:
        gray = torch.tensor(_GRAY, device=x.device, dtype=wide.dtype)
        mean = wide.mean((2, 3)) @ gray
        matrix = gain[:, None, None] * _colour_matrix(saturation.to(wide), hue.to(wide), gray)
    else:
        mean = wide.mean((1, 2, 3))
        matrix = gain[:, None, None] * torch.eye(c, device=x.device, dtype=wide.dtype)
    offset = (1 - contrast.to(wide)) * brightness.to(wide) * mean
    out = torch.baddbmm(offset[:, None, None].expand(n, 1, 1), matrix, wide.flatten(2))
    return like_layout(out.view(x.shape).to(x.dtype), x)


def _colour_matrix(saturation: Tensor, hue: Tensor, gray: Tensor) -> Tensor:
    """Return (N, 3, 3): a turn around grey at constant luminance, after a move towards grey."""
    to = torch.tensor(_YIQ, device=hue.device, dtype=torch.float64)
    angle = (2 * torch.pi * hue).double()
    cos, sin, one, zero = angle.cos(), angle.sin(), torch.ones_like(angle), torch.zeros_like(angle)
    turn = torch.stack([one, zero, zero, zero, cos, -sin, zero, sin, cos], 1).view(-1, 3, 3)
    turned = torch.linalg.solve(to, turn @ to).to(gray)
    grey = gray.expand(3, 3)
    s = saturation[:, None, None]
    return turned @ (s * torch.eye(3, device=s.device, dtype=s.dtype) + (1 - s) * grey)


@brick(
    "augmentation",
    "color_jitter",
    aliases=("colour_jitter", "brightness", "contrast"),
    summary="Changes brightness, contrast, saturation and hue of every image by its own amounts.",
    use_when="Light, cameras or stains differ between the images that you have and will meet.",
    avoid_when="Colour is the class (ripe fruit, traffic lights), or values are measurements.",
    best_for="Photographs from many sources; contrastive learning, with strong amounts.",
    paper="Howard 2013, Some Improvements on Deep Convolutional Neural Network Based Image "
    "Classification, arXiv:1312.5402, section 2.2",
    tune_first="brightness and contrast (0.2 to 0.4); hue stays below 0.1.",
    cost="One small matrix product per image.",
    pairs_with=("random_crop_flip", "random_affine"),
)
class ColorJitter(Transform):
    """Change the colours of every image by random amounts, in one linear step.

    Brightness, contrast, saturation and hue are applied in this order. All four are linear in the
    pixels, so together they are a matrix and an offset; hue is a turn around the grey axis that
    keeps luminance, where libraries that go through HSV keep its largest channel.

    Math:
        b, c, s ~ U(1 - amount, 1 + amount) >= 0, h ~ U(-hue, hue) turns; m the mean luminance
        x <- b x;  x <- c x + (1 - c) m;  x <- s x + (1 - s) gray(x);  x <- turn(x, h)

    Args:
        brightness: largest relative change of all values.
        contrast: largest relative change of the distance to the image's mean.
        saturation: largest relative change of the distance to grey; three channels only.
        hue: largest turn of the colours, in turns, up to 0.5; three channels only.
        p: probability that an image is changed.
        clip: keep values in [0, 1]; False for standardized images.

    Raises:
        ValueError: an amount out of range, samples that are no images of floats, saturation or
            hue for other than three channels.

    Example:
        >>> x = torch.rand(4, 3, 8, 8)
        >>> out, _ = ColorJitter()(x, None, torch.Generator().manual_seed(0))
        >>> out.shape, bool(((out >= 0) & (out <= 1)).all())
        (torch.Size([4, 3, 8, 8]), True)

    Reference:
        Howard 2013, arXiv:1312.5402, section 2.2; luminance as in ITU-R BT.601.
    """

    def __init__(
        self, brightness: float = 0.2, contrast: float = 0.2, saturation: float = 0.2,
        hue: float = 0.0, p: float = 1.0, clip: bool = True,
    ) -> None:  # fmt: skip
        self.brightness = check_amount("brightness", brightness)
        self.contrast = check_amount("contrast", contrast)
        self.saturation = check_amount("saturation", saturation)
        self.hue = check_amount("hue", hue, 0.5)
        self.p, self.clip = check_probability("p", p), clip

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return images in other colours, and ``y`` as it came.

        Args:
            x: floating-point images, shape (N, C, H, W).
            y: targets; never touched.
            generator: source of all randomness; torch's default generator when None.
        """
        n, c, _, _ = image_shape(x, type(self).__name__)
        check_floats(x, type(self).__name__, "images")
        if c != 3 and (self.saturation or self.hue):
            raise ValueError(
                f"saturation and hue are of colour images with 3 channels, got {c}; give "
                "saturation=0 and hue=0"
            )
        on = chosen(self.p, n, x, generator)
        draws = [2 * uniform(n, x, generator) - 1 for _ in range(4)]
        amounts = (self.brightness, self.contrast, self.saturation)
        bright, contrast, saturation = (
            (1 + a * d).clamp_min(0) for a, d in zip(amounts, draws[:3], strict=True)
        )
        out = recolor(x, bright, contrast, saturation, self.hue * draws[3])
        if self.clip:
            out = out.clamp_(0, 1)
        return torch.where(on[:, None, None, None], out, x), y


@brick(
    "augmentation",
    "gaussian_noise",
    aliases=("noise",),
    summary="Adds normal noise to every value of the samples.",
    use_when="Measurements that are noisy where the model will be used; small tables and signals.",
    avoid_when="Values are categories or counts; features have very different scales (standardize "
    "first).",
    best_for="Signals, spectra and standardized tables.",
    paper="Bishop 1995, Training with Noise is Equivalent to Tikhonov Regularization, Neural "
    "Computation 7",
    tune_first="std: 0.05 to 0.2 of the features' deviation.",
    cost="A draw per value.",
    pairs_with=("mixup",),
)
class GaussianNoise(Transform):
    """Add independent normal noise to every value.

    For small noise and squared error this is the same, on average, as a penalty on the slopes of
    the network.

    Math:
        x <- x + std * e,  e ~ N(0, 1)

    Args:
        std: standard deviation, in the samples' units.
        p: probability that a sample gets noise.
        random: draw each sample's own deviation from U(0, std) instead.

    Raises:
        ValueError: an option out of range, or samples that are no floats.

    Example:
        >>> x = torch.zeros(4, 100)
        >>> noisy, _ = GaussianNoise(std=0.1)(x, None, torch.Generator().manual_seed(0))
        >>> 0.09 < float(noisy.std()) < 0.11
        True

    Reference:
        Bishop 1995, Neural Computation 7(1), section 2.
    """

    def __init__(self, std: float = 0.1, p: float = 1.0, random: bool = False) -> None:
        self.std, self.p, self.random = check_amount("std", std), check_probability("p", p), random

    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return noisy samples, and ``y`` as it came.

        Args:
            x: floating-point samples, shape (N, ...).
            y: targets; never touched.
            generator: source of all randomness; torch's default generator when None.
        """
        check_floats(x, type(self).__name__)
        n = len(x)
        scale = self.std * chosen(self.p, n, x, generator).float()
        if self.random:
            scale = scale * uniform(n, x, generator)
        device = generator.device if generator is not None else x.device
        noise = torch.randn(x.shape, generator=generator, device=device, dtype=x.dtype)
        shaped = scale.to(x.dtype).view(-1, *(1,) * (x.ndim - 1))
        return torch.addcmul(x, noise.to(x.device), shaped), y
