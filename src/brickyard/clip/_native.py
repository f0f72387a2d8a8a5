"""Norms of gradients in main memory, and their scaling, each in one pass built from C.

For small networks torch's calls tensor by tensor cost more than the reading. The sums are taken
over pieces of fixed size in a fixed order, fp32 within 256 values and float64 across them, so that
a norm has the same bits for any number of threads, and is right to the last bit of fp32.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache, lru_cache
from typing import Any

import torch
from torch import Tensor

from brickyard.compiler import BuildError, load

_PIECE = 4096
#: So many values are read by one thread: waking others takes longer.
_ALONE = 32 * _PIECE
_TEXT = r"""
#include <stdint.h>
#include <math.h>

#define LANES 32
#define ROW (8 * LANES)

#define EACH_PIECE _Pragma("omp parallel for num_threads(threads) if (threads > 1)")

static double squares(const float *x, int64_t n)
{
    double sum = 0;
    int64_t i = 0;
    for (; i + ROW <= n; i += ROW) {
        float lanes[LANES] = {0};
        for (int64_t r = 0; r < ROW; r += LANES)
            for (int64_t k = 0; k < LANES; k++)
                lanes[k] += x[i + r + k] * x[i + r + k];
        for (int64_t half = LANES / 2; half; half /= 2)
            for (int64_t k = 0; k < half; k++)
                lanes[k] += lanes[k + half];
        sum += lanes[0];
    }
    for (; i < n; i++)
        sum += (double)(x[i] * x[i]);
    return sum;
}

/* pieces[2p], pieces[2p + 1]: tensor and first value of piece p; starts[i]: first piece of i */
double norms(float **tensors, const int64_t *sizes, const int64_t *pieces, const int64_t *starts,
             int64_t count, double *sums, double *each, int64_t threads)
{
    const int64_t all = starts[count];
    double total = 0;
    EACH_PIECE
    for (int64_t p = 0; p < all; p++) {
        const int64_t i = pieces[2 * p], from = pieces[2 * p + 1], left = sizes[i] - from;
        sums[p] = squares(tensors[i] + from, left < PIECE ? left : PIECE);
    }
    for (int64_t i = 0; i < count; i++) {
        double sum = 0;
        for (int64_t p = starts[i]; p < starts[i + 1]; p++)
            sum += sums[p];
        each[i] = sqrt(sum);
        total += sum;
    }
    return sqrt(total);
}

void scale(float **tensors, const int64_t *sizes, const int64_t *pieces, const int64_t *starts,
           int64_t count, const double *factors, int64_t several, int64_t threads)
{
    const int64_t all = starts[count];
    EACH_PIECE
    for (int64_t p = 0; p < all; p++) {
        const int64_t i = pieces[2 * p], from = pieces[2 * p + 1], left = sizes[i] - from;
        const float factor = (float)factors[several ? i : 0];
        float *x = tensors[i] + from;
        for (int64_t k = 0, n = left < PIECE ? left : PIECE; k < n; k++)
            x[k] *= factor;
    }
}
"""


@cache
def _library() -> ctypes.CDLL | None:
    """Return the kernels; None without a compiler, where torch's calls do the same."""
    try:
        library = load(_TEXT, f"-DPIECE={_PIECE}")
    except BuildError:
        return None
    library.norms.restype = ctypes.c_double
    library.scale.restype = None
    library.norms.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_int64, *[ctypes.c_void_p] * 2,
                              ctypes.c_int64]  # fmt: skip
    library.scale.argtypes = [*[ctypes.c_void_p] * 4, ctypes.c_int64, ctypes.c_void_p,
                              *[ctypes.c_int64] * 2]  # fmt: skip
    return library


@lru_cache(maxsize=64)
def _layout(sizes: tuple[int, ...]) -> tuple[Any, Any, Any, int]:
    """Return sizes, pieces and starts as the kernels take them, and the number of pieces."""
    pieces = [(i, at) for i, size in enumerate(sizes) for at in range(0, size, _PIECE)]
    starts = [0]
    for size in sizes:
        starts.append(starts[-1] + -(-size // _PIECE))
    flat = [number for piece in pieces for number in piece]
    made = ((ctypes.c_int64 * len(many))(*many) for many in (sizes, flat, starts))
    return (*made, len(pieces))  # pyright: ignore[reportReturnType]


def usable(tensors: Sequence[Tensor]) -> bool:
    """Say whether the kernels can read and write all of these: plain, fp32, dense, on the CPU."""
    for t in tensors:
        if not (
            type(t) is Tensor and t.dtype is torch.float32 and t.is_cpu and not t.requires_grad
            and t.layout is torch.strided and not t._is_zerotensor()
            and (t.is_contiguous() or t.is_contiguous(memory_format=_last(t)))
        ):  # fmt: skip
            return False
    return not torch.compiler.is_compiling() and _library() is not None


def _last(t: Tensor) -> torch.memory_format:
    return torch.channels_last if t.dim() == 4 else torch.contiguous_format


def norms(tensors: Sequence[Tensor]) -> tuple[float, list[float]]:
    """Return the 2-norm of all values together and that of each tensor.

    Args:
        tensors: for which :func:`usable` holds.
    """
    given, pieces, threads = _given(tensors)
    sums, each = (ctypes.c_double * pieces)(), (ctypes.c_double * len(tensors))()
    joint = _kernels().norms(*given, sums, each, threads)
    return joint, list(each)


def scale(tensors: Sequence[Tensor], factors: Sequence[float]) -> None:
    """Multiply tensors in place.

    Args:
        tensors: for which :func:`usable` holds, no two of them of the same memory: threads would
            write into it at the same time.
        factors: one each, or one for all.
    """
    given, _, threads = _given(tensors)
    many = (ctypes.c_double * len(factors))(*factors)
    _kernels().scale(*given, many, len(factors) > 1, threads)
    torch.autograd.graph.increment_version(tensors)


def _given(tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], int, int]:
    """Return the kernels' first arguments, the number of pieces and that of threads."""
    values = tuple([t.numel() for t in tensors])
    sizes, pieces, starts, count = _layout(values)
    pointers = (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])
    threads = torch.get_num_threads() if sum(values) > _ALONE else 1
    return (pointers, sizes, pieces, starts, len(tensors)), count, threads


def _kernels() -> ctypes.CDLL:
    library = _library()
    if library is None:
        raise BuildError("usable() was not asked")
    return library
