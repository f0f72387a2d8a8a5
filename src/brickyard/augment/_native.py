"""Pasting of boxes in one pass over a batch in main memory, built from C at the first call."""

from __future__ import annotations

import ctypes
from functools import cache

import torch
from torch import Tensor

from brickyard.compiler import BuildError, load

_TEXT = r"""
#include <stdint.h>
#include <string.h>

void paste(char *out, const char *x, const int64_t *boxes, int64_t one, int64_t n, int64_t planes,
           int64_t h, int64_t w, int64_t size, int64_t shift, int64_t threads)
{
    const int64_t row = w * size, plane = h * row, image = planes * plane;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t i = 0; i < n; i++) {
        const int64_t *box = boxes + (one ? 0 : 4 * i);
        const int64_t top = box[0], bottom = box[1], left = box[2] * size, right = box[3] * size;
        char *to = out + i * image;
        const char *own = x + i * image, *other = x + ((i - shift + n) % n) * image;
        if (bottom <= top || right <= left) {
            memcpy(to, own, image);
            continue;
        }
        for (int64_t p = 0; p < planes; p++, to += plane, own += plane, other += plane) {
            memcpy(to, own, top * row + left);
            for (int64_t r = top; r < bottom; r++) {
                memcpy(to + r * row + left, other + r * row + left, right - left);
                /* up to the box in the next row, or to the end of the plane */
                const int64_t end = r + 1 < bottom ? (r + 1) * row + left : plane;
                memcpy(to + r * row + right, own + r * row + right, end - r * row - right);
            }
        }
    }
}
"""


@cache
def _library() -> ctypes.CDLL | None:
    """Return the kernel; None without a compiler: the plain form is nearly as fast."""
    try:
        return load(_TEXT)
    except BuildError:
        return None


def usable(x: Tensor) -> bool:
    """Say whether the kernel can paste into ``x``."""
    return x.is_contiguous() and _library() is not None


def paste(x: Tensor, boxes: Tensor, shift: int) -> Tensor:
    """Return a copy with a box of the image ``shift`` places before in each.

    Args:
        x: images ``(N, C, H, W)``, contiguous.
        boxes: top, bottom, left, right within the image, ``(N, 4)`` or ``(1, 4)``.
        shift: from 1 to N - 1.
    """
    library = _library()
    if library is None:
        raise BuildError("usable() was not asked")
    out, boxes = torch.empty_like(x), boxes.to(torch.int64).contiguous()
    pointers = (ctypes.c_void_p(t.data_ptr()) for t in (out, x, boxes))
    counts = (len(boxes) == 1, *x.shape, x.element_size(), shift, torch.get_num_threads())
    library.paste(*pointers, *map(ctypes.c_int64, counts))
    return out
