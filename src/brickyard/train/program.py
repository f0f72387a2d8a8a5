"""Write a model as a program of torch.export, which needs torch alone, and compare the two."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brickyard.doctor.observe.tensors import tensors

__all__ = ["PROGRAM", "NoProgram", "write_program"]

PROGRAM = "model.pt2"
_TOLERANCE = 1e-4


class NoProgram(Exception):  # noqa: N818  an outcome
    """The model cannot be exported as a program; the message says why."""


@torch.no_grad()
def write_program(path: Path, model: nn.Module, x: Any) -> str:
    """Write the model as a program of any batch size, and compare what it gives."""
    if not isinstance(x, Tensor):
        raise NoProgram("the model takes more than one tensor")
    if len(x) < 2:
        raise NoProgram("it takes two validation samples to tell the batch dimension")
    batch = torch.export.Dim("batch", min=1)
    try:
        with _quietly():
            program = torch.export.export(model, (x[:4],), dynamic_shapes=({0: batch},))
            torch.export.save(program, path)
            again = torch.export.load(path).module()
    except OSError:
        raise
    except Exception as error:  # torch.export raises many kinds
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise NoProgram(
            f"torch.export cannot trace this model for every batch size "
            f"({type(error).__name__}: {reason.strip()[:200]}); load the weights instead"
        ) from error
    sizes, worst = sorted({1, min(3, len(x)), len(x)}), 0.0
    for size in sizes:
        try:
            pairs = zip(tensors(model(x[:size])), tensors(again(x[:size])), strict=True)
            for wanted, found in pairs:
                worst = max(worst, _distance(wanted, found))
        except Exception as error:
            raise NoProgram(f"the program fails with {size} samples ({error})") from error
    if not worst <= _TOLERANCE:
        raise NoProgram(
            f"the program gives other outputs than the model, by {worst:.1e} of the largest; it "
            "may draw random numbers or keep a state; load the weights instead"
        )
    shown = ", ".join(map(str, sizes))
    found = "are equal" if worst == 0 else f"differ by at most {worst:.1e} of the largest one"
    return f"`{PROGRAM}`: read back, outputs for batches of {shown} samples {found}"


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep torch's warnings and logged tracebacks back: what fails is told in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the largest difference over the largest entry."""
    if a.shape != b.shape:
        return float("inf")
    scale = max(float(a.abs().max()), 1e-12) if a.numel() else 1.0
    return float((a.double() - b.double()).abs().max()) / scale if a.numel() else 0.0
