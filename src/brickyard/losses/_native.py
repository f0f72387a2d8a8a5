"""Losses of large tensors in main memory, in one pass: ``kernels.c`` and its autograd functions.

The plain forms are the definitions. A kernel stands in for one where it pays and is possible: fp32
or fp64, on the CPU, outside function transforms and torch.compile, with a C compiler at hand (the
first call builds the library, once per machine). A second backward goes through the plain form.
"""

from __future__ import annotations

import ctypes
import warnings
from functools import cache
from importlib import resources
from typing import Any

import torch
from torch import Tensor

from brickyard.compiler import BuildError, load
from brickyard.losses._fused import on_host

#: Below this many elements the plain form is as fast.
LARGE = 1 << 14
#: Storage types that the kernels are built for.
TYPES = (torch.float32, torch.float64)
_POINTERS = ("x", "y", "t", "keep", "weight", "up", "out", "grad", "sums")
_COUNTS = (
    "outer",
    "inner",
    "classes",
    "step_n",
    "step_c",
    "step_s",
    "step_up",
    "halves",
    "threads",
)


class _Args(ctypes.Structure):
    """Mirror the structure that every kernel is called with."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int64) for name in _COUNTS),
        ("alpha", ctypes.c_double),
    ]


@cache
def _library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """Return the kernels for a storage type; None without a compiler, which is said once."""
    text = resources.files("brickyard.losses").joinpath("kernels.c").read_text(encoding="ascii")
    try:
        return load("#define WIDE\n" + text if dtype == torch.float64 else text)
    except BuildError as error:
        warnings.warn(f"losses run without their kernels, several times slower: {error}",
                      stacklevel=2)  # fmt: skip
        return None


def usable(input: Tensor) -> bool:
    """Say whether a kernel pays and is possible for ``input``."""
    return (
        input.numel() >= LARGE
        and input.dtype in TYPES
        and on_host(input)
        and _library(input.dtype) is not None
    )


def call(name: str, input: Tensor, sums: Tensor | None = None, **given: Any) -> None:
    """Run a kernel.

    Args:
        name: of the function in ``kernels.c``.
        input: the logits ``(N, C, *)``, contiguous or with the classes last in memory.
        sums: fp64, what the kernel adds up.
        given: further tensors and numbers by their names in the structure.
    """
    outer, inner, classes, *steps = _layout(input)
    args = _Args(outer=outer, inner=inner, classes=classes, threads=torch.get_num_threads())
    args.step_n, args.step_c, args.step_s = steps
    for key, value in (("x", input), ("sums", sums), *given.items()):
        if isinstance(value, Tensor):
            setattr(args, key, value.data_ptr())
        elif value is not None:
            setattr(args, key, value)
    if getattr(_library(input.dtype), name)(ctypes.byref(args)):
        raise MemoryError(f"the loss kernel {name} found no memory for its blocks")


def _layout(input: Tensor) -> tuple[int, ...]:
    """Return images, pixels, classes, and the steps between them, in elements."""
    count, classes = input.shape[0], input.shape[1]
    pixels = input[0, 0].numel()
    if pixels == 1:
        return 1, count, classes, 0, 1, classes
    if input.is_contiguous():
        return count, pixels, classes, classes * pixels, pixels, 1
    return count, pixels, classes, classes * pixels, 1, classes


def dense(input: Tensor) -> Tensor:
    """Return ``input``, or a copy where its memory has an order that the kernels do not know."""
    if input.is_contiguous() or input.movedim(1, -1).is_contiguous():
        return input
    return input.contiguous()


def spread(grad: Tensor) -> tuple[Tensor, int]:
    """Return a gradient's memory, and its step: 0 where one number stands for all."""
    return (grad, 0) if grad.dim() == 0 else (grad.contiguous(), 1)


def lovasz_slopes(errors: Tensor, truth: Tensor) -> Tensor:
    """Return the slope of the Lovasz extension at each error.

    Args:
        errors: fp32 ``(C, P)``, at least 0, contiguous.
        truth: bool ``(C, P)``.
    """
    truth, slopes = truth.contiguous(), torch.empty_like(errors)
    pointers = (ctypes.c_void_p(x.data_ptr()) for x in (errors, truth, slopes))
    counts = map(ctypes.c_int64, (*errors.shape, torch.get_num_threads()))
    library = _library(errors.dtype)
    if library is None or library.lovasz_slopes(*pointers, *counts):
        raise MemoryError("the loss kernel lovasz_slopes found no memory to sort in")
    return slopes
