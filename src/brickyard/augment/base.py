"""What all augmentations share: their form, their draws, and how targets move with samples."""

from __future__ import annotations

import inspect
import math
from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = [
    "Transform", "check_amount", "check_floats", "check_mode", "check_probability",
    "chosen", "image_shape", "integers", "like_layout", "mask_of", "seeded", "uniform", "whole",
]  # fmt: skip


class Transform(ABC):
    """Be the form of an augmentation: ``transform(x, y, generator) -> (x, y)`` on a whole batch.

    All randomness comes from ``generator``; samples are never changed in place, and ``y`` comes
    back as it was unless it has to change with the samples.
    """

    #: True where targets become mixtures of two samples' targets.
    mixes = False

    @abstractmethod
    def __call__(
        self, x: Tensor, y: Any = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Any]:
        """Return changed samples and their targets.

        Args:
            x: samples, one a row.
            y: their targets.
            generator: source of all randomness; torch's default generator when None.
        """

    def __repr__(self) -> str:
        names = inspect.signature(type(self)).parameters
        return f"{type(self).__name__}({', '.join(f'{n}={getattr(self, n)!r}' for n in names)})"


# --- Checks ---------------------------------------------------------------------------------------


def check_probability(name: str, value: float) -> float:
    """Return ``value`` if it lies in [0, 1]."""
    if isinstance(value, bool) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} is a probability and must lie in [0, 1], got {value!r}")
    return value


def check_amount(name: str, value: float, most: float = math.inf) -> float:
    """Return ``value`` if it is a finite number from 0 to ``most``."""
    if isinstance(value, bool) or not (math.isfinite(value) and 0 <= value <= most):
        upper = "" if most == math.inf else f" and at most {most:g}"
        raise ValueError(f"{name} is a largest amount and must be >= 0{upper}, got {value!r}")
    return value


def whole(name: str, value: float, least: int = 0) -> int:
    """Return ``value`` as an int if it is a whole number from ``least`` on."""
    if isinstance(value, bool) or not math.isfinite(value) or value != int(value) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)


def check_mode(name: str, value: str, allowed: Any) -> str:
    """Return ``value`` if it is one of ``allowed``."""
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
    return value


def check_floats(x: Tensor, name: str, what: str = "samples") -> None:
    """Raise ValueError for samples that are no floating-point batch."""
    if not x.is_floating_point() or x.ndim < 1:
        raise ValueError(
            f"{name} takes a batch of floating-point {what}, got {x.dtype} of shape "
            f"{tuple(x.shape)}"
        )


def image_shape(x: Tensor, name: str) -> tuple[int, int, int, int]:
    """Return the sides of a batch of images."""
    if x.ndim != 4:
        raise ValueError(f"{name} takes images of shape (N, C, H, W), got {tuple(x.shape)}")
    n, c, h, w = x.shape
    return n, c, h, w


def mask_of(x: Tensor, y: Any, name: str) -> Tensor | None:
    """Return ``y`` if it is a batch of masks of the images ``x``, None if it is one label a sample.

    Masks are ``(N, H, W)`` or ``(N, K, H, W)``.

    Raises:
        ValueError: it has that many dimensions, and not the images' sides.
    """
    if not isinstance(y, Tensor) or y.ndim < 3:
        return None
    if y.ndim > 4 or len(y) != len(x) or y.shape[-2:] != x.shape[-2:]:
        raise ValueError(
            f"{name} changes masks with their images: they must be (N, H, W) or (N, K, H, W) with "
            f"the sides of images {tuple(x.shape)}, got {tuple(y.shape)}; resize them first"
        )
    return y


# --- Draws ----------------------------------------------------------------------------------------


def uniform(
    shape: int | tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return float32 draws from [0, 1) on the device of ``like``."""
    device = generator.device if generator is not None else like.device
    return torch.rand(shape, generator=generator, device=device).to(like.device)


def integers(
    high: int, shape: int | tuple[int, ...], like: Tensor, generator: torch.Generator | None
) -> Tensor:
    """Return whole numbers from 0 to ``high - 1`` on the device of ``like``."""
    device = generator.device if generator is not None else like.device
    size = (shape,) if isinstance(shape, int) else shape
    return torch.randint(high, size, generator=generator, device=device).to(like.device)


def chosen(p: float, n: int, like: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return which of ``n`` samples are changed, each with probability ``p``."""
    return uniform(n, like, generator) < p


def seeded(generator: torch.Generator | None) -> np.random.Generator:
    """Return a generator of NumPy's, seeded by one draw from torch's.

    torch's own Beta draws from the default generator alone, so that it could not be resumed; and
    a few numbers a batch are drawn faster here.
    """
    device = generator.device if generator is not None else "cpu"
    seed = int(torch.randint(2**62, (), generator=generator, device=device))
    return np.random.Generator(np.random.PCG64(seed))


def like_layout(out: Tensor, x: Tensor) -> Tensor:
    """Return images with their channels last in memory if those of ``x`` are."""
    last = torch.channels_last
    if x.ndim == 4 and x.is_contiguous(memory_format=last) and not x.is_contiguous():
        return out.contiguous(memory_format=last)
    return out
