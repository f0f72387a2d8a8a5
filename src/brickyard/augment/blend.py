"""Blend and paste pairs of samples and their targets, as drawn: the functions of mixing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from brickyard.augment import _native
from brickyard.augment.base import check_floats, image_shape, mask_of

__all__ = ["Pairs", "blend_targets", "cutmix", "mixed_loss", "mixed_targets", "mixup"]

#: What losses ignore in masks.
_IGNORED = -100
_RAW = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


class Pairs(NamedTuple):
    """Hold the targets of mixed samples unmixed, for losses that take no soft targets.

    Args:
        y: each sample's own targets.
        partner: the targets of what was mixed in.
        weight: share of the own target, shape (N,).
    """

    y: Tensor
    partner: Tensor
    weight: Tensor


def mixed_loss(loss: Callable[[Tensor, Tensor], Tensor], output: Tensor, pairs: Pairs) -> Tensor:
    """Return the mean loss of mixed samples: each target's loss by its weight.

    Math:
        mean_i [ w_i loss(f_i, y_i) + (1 - w_i) loss(f_i, partner_i) ]

    Args:
        loss: of the shelf with ``reduction="none"``; with one weight for the whole batch
            (``per="batch"``), one that returns a mean will do.
        output: of the model.
        pairs: what ``Mixup(targets="pairs")`` or ``CutMix(targets="pairs")`` returned.

    Raises:
        ValueError: the loss returns a single number and the weights differ.

    Example:
        >>> pairs = Pairs(torch.tensor([0, 1]), torch.tensor([1, 0]), torch.tensor([0.7, 1.0]))
        >>> each = torch.nn.CrossEntropyLoss(reduction="none")
        >>> round(float(mixed_loss(each, torch.tensor([[2.0, 0.0], [0.0, 2.0]]), pairs)), 4)
        0.4269
    """
    own, other = loss(output, pairs.y), loss(output, pairs.partner)
    weight = pairs.weight.to(own)
    if own.ndim == 0:
        if len(weight) and not bool((weight == weight[0]).all()):
            raise ValueError(
                "the samples have weights of their own, so the loss must give one value a sample: "
                'take reduction="none", or per="batch" in the augmentation'
            )
        weight = weight[0]
    else:
        weight = weight.view(-1, *(1,) * (own.ndim - 1))
    return (weight * own + (1 - weight) * other).mean()


def mixup(
    x: Tensor, y: Tensor | None, weight: Tensor, shift: int, classes: int | None = None,
    targets: Literal["soft", "pairs"] = "soft",
) -> tuple[Tensor, Any]:  # fmt: skip
    """Blend every sample with the one ``shift`` places before it, and their targets alike.

    Args:
        x: floating-point samples, shape (N, ...).
        y: targets; see :func:`blend_targets`. None stays None.
        weight: each sample's own share, shape (N,), from 0 to 1.
        shift: distance to the partner; 0 blends nothing.
        classes: number of classes, for targets that are indices.
        targets: ``"soft"`` blends them, ``"pairs"`` returns both with the weights.

    Raises:
        ValueError: samples that are no floats, or indices without ``classes``.

    Example:
        >>> x, y = torch.tensor([[0.0], [8.0]]), torch.tensor([0, 1])
        >>> mixed, soft = mixup(x, y, torch.tensor([0.75, 1.0]), 1, classes=2)
        >>> mixed.tolist(), soft.tolist()
        ([[2.0], [8.0]], [[0.75, 0.25], [0.0, 1.0]])
    """
    check_floats(x, "mixup")
    weight = weight.to(x.device, x.dtype)  # targets follow what was done, also where it is rounded
    return _blend(x, weight, shift), mixed_targets(y, weight, shift, classes, targets)


def cutmix(
    x: Tensor, y: Tensor | None, boxes: Tensor, shift: int, classes: int | None = None,
    targets: Literal["soft", "pairs"] = "soft",
) -> tuple[Tensor, Any]:  # fmt: skip
    """Paste a box of the image ``shift`` places before into every image; targets by area.

    Args:
        x: images, shape (N, C, H, W).
        y: targets: labels are blended by the area that is left of each image, and masks
            ``(N, H, W)`` or ``(N, K, H, W)`` are pasted like the images. None stays None.
        boxes: top, bottom, left, right in pixels of each image, whole numbers of shape (N, 4), or
            (1, 4) for one box in all; an empty box pastes nothing.
        shift: distance to the partner; 0 pastes nothing.
        classes: number of classes, for targets that are indices.
        targets: ``"soft"`` blends labels, ``"pairs"`` returns both with the weights.

    Raises:
        ValueError: ``x`` is no batch of images, a box is not within them, or there are indices
            without ``classes``.

    Example:
        >>> x, y = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, 4, 4), torch.tensor([0, 1])
        >>> cut, soft = cutmix(x, y, torch.tensor([[0, 2, 0, 2], [0, 0, 0, 0]]), 1, classes=2)
        >>> cut[0, 0].tolist()[:2], soft.tolist()
        ([[1.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]], [[0.75, 0.25], [0.0, 1.0]])
    """
    n, _, h, w = image_shape(x, "cutmix")
    mask = mask_of(x, y, "cutmix")
    if boxes.ndim != 2 or len(boxes) not in (1, n) or boxes.shape[1] != 4:
        raise ValueError(f"boxes must be ({n}, 4), or (1, 4) for all, got {tuple(boxes.shape)}")
    top, bottom, left, right = edges = boxes.cpu().numpy().T
    if edges.size and (edges.min() < 0 or edges[:2].max() > h or edges[2:].max() > w):
        raise ValueError(f"boxes must lie within the images, {h} by {w} pixels, got {boxes}")
    out = _paste(x, boxes, shift)
    if mask is not None:
        planes = mask if mask.ndim == 4 else mask[:, None]
        return out, _paste(planes, boxes, shift).view_as(mask)
    left_over = 1 - (bottom - top) * (right - left) / (h * w)
    weight = torch.from_numpy(left_over.astype(np.float32)).to(x.device).expand(len(x))
    return out, mixed_targets(y, weight, shift, classes, targets)


def blend_targets(y: Tensor, weight: Tensor, shift: int, classes: int | None = None) -> Tensor:
    """Return the targets of blended samples.

    Class indices (N, *) become probabilities (N, classes, *), as cross_entropy takes them, with
    any label smoothing applied after; indices of -100 give zeros, which cost nothing. With
    ``classes=1``, for a single logit, they stay one number a sample. Floats are blended as they
    are: soft labels, values.

    Args:
        y: targets.
        weight: each sample's own share, shape (N,).
        shift: distance to the partner.
        classes: number of classes, for targets that are indices.

    Raises:
        ValueError: indices without ``classes``, or outside of it.
    """
    if not y.is_floating_point():
        if classes is None:
            raise ValueError(
                f"class indices ({y.dtype}) are blended into probabilities, which needs the number "
                "of classes: give classes= (1 for a single yes/no logit)"
            )
        if classes > 1:
            return _spread(y.long(), weight.float().to(y.device), shift, classes)
        y = y.float()
    return _blend(y, weight.to(y), shift)


def mixed_targets(
    y: Tensor | None, weight: Tensor, shift: int, classes: int | None, form: str
) -> Any:
    if y is None:
        return None
    if form == "pairs":
        return Pairs(y, y.roll(shift, 0), weight.float())
    return blend_targets(y, weight, shift, classes)


def _spread(y: Tensor, weight: Tensor, shift: int, classes: int) -> Tensor:
    """Return float32 (N, classes, *) for indices (N, *); -100 gives zeros."""
    out = torch.zeros((len(y), classes, *y.shape[1:]), device=y.device)
    if not y.numel():
        return out
    own = weight.view(-1, *(1,) * y.ndim).expand(-1, 1, *y.shape[1:])
    partner, rest = y.roll(shift, 0), 1 - own
    low, high = y.aminmax()
    if low < 0 or high >= classes:
        wrong = ((y < 0) | (y >= classes)) & (y != _IGNORED)
        if bool(wrong.any()):
            raise ValueError(
                f"class indices must lie in [0, {classes}), or be {_IGNORED} to be ignored; got "
                f"{int(y[wrong][0])}"
            )
        own, rest = (t * (i >= 0)[:, None] for t, i in ((own, y), (rest, partner)))
        y, partner = y.clamp_min(0), partner.clamp_min(0)
    return out.scatter_(1, y[:, None], own).scatter_add_(1, partner[:, None], rest)


def _blend(x: Tensor, weight: Tensor, shift: int) -> Tensor:
    """Return ``weight`` of each row and the rest of the row ``shift`` places before it."""
    n = len(x)
    if n == 0 or shift % n == 0:
        return x
    s, weight = shift % n, weight.view(-1, *(1,) * (x.ndim - 1))
    if x.requires_grad:
        return torch.lerp(x.roll(s, 0), x, weight)
    # Partners are read where they stand: one pass, without a shifted copy of the batch.
    out = torch.empty_like(x)
    torch.lerp(x[: n - s], x[s:], weight[s:], out=out[s:])
    torch.lerp(x[n - s :], x[:s], weight[:s], out=out[:s])
    return out


def _paste(x: Tensor, boxes: Tensor, shift: int) -> Tensor:
    """Return images with a box of the image ``shift`` places before each pasted in."""
    n, _, h, w = x.shape
    if n == 0 or shift % n == 0:
        return x
    if x.device.type == "cpu" and not x.requires_grad:
        if _native.usable(x):
            return _native.paste(x, boxes, shift % n)
        return _paste_here(x, boxes.tolist(), shift % n)
    top, bottom, left, right = boxes.to(x.device).expand(n, 4)[..., None].unbind(1)
    rows, columns = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
    inside = ((rows >= top) & (rows < bottom))[:, None, :, None] & (
        (columns >= left) & (columns < right)
    )[:, None, None, :]
    return torch.where(inside, x.roll(shift, 0), x)


def _paste_here(x: Tensor, boxes: list[list[int]], s: int) -> Tensor:
    """Return a copy with the boxes written in."""
    out = x.clone()
    if len(boxes) == 1:  # for the whole batch, which is enough work for torch's threads
        top, bottom, left, right = boxes[0]
        if bottom > top and right > left:
            to, of = (t[:, :, top:bottom, left:right] for t in (out, x))
            to[s:].copy_(of[:-s])
            to[:s].copy_(of[-s:])
        return out
    # NumPy writes a box in microseconds, where torch wakes its threads for each.
    raw = _RAW[x.element_size()]
    to, of = out.view(raw).numpy(), x.view(raw).numpy()
    for i, (top, bottom, left, right) in enumerate(boxes):
        to[i, :, top:bottom, left:right] = of[i - s, :, top:bottom, left:right]
    return out
