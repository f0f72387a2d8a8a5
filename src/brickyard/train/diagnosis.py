"""Say why a loss or gradient is not finite: where it began, and what to lower."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from brickyard.doctor.observe.tensors import tensors
from brickyard.train.untouched import Untouched

if TYPE_CHECKING:
    from brickyard.train.parts import Batch, Parts, State

__all__ = ["diagnose"]

_CALMER = "lower the rate, add warmup or clipping"


def diagnose(
    parts: Parts, state: State, window: Sequence[Batch], loss: Tensor | float, taken: bool = False
) -> str:
    """Return step, batch, the first thing that is not finite, and what to do.

    The batch is run once more with an eye on every layer; nothing of the run changes.

    Args:
        parts: what is trained.
        state: where it stands.
        window: the step's batches.
        loss: of the step.
        taken: the step is counted already.
    """
    step, batch = state.step + (not taken), -(-state.batch // max(1, parts.accumulate))
    value, rate = float(loss), float(parts.optimizer.param_groups[0]["lr"])
    broken = not math.isfinite(value)
    what = f"the loss is {value}" if broken else f"the loss is {value:.4g}, its gradient not finite"
    many = f" after {state.in_row} steps left out" if state.in_row else ""
    where, advice = _look(parts, window, broken)
    return (
        f"{what} at step {step}{many} (epoch {state.epoch + 1}, its batch {batch + (not taken)}, "
        f"rate {rate:.4g}): {where}; {advice}. Checkpoints are from before; on_nonfinite: "
        "{skip: 3} leaves out up to three such steps in a row"
    )


def _look(parts: Parts, window: Sequence[Batch], broken: bool) -> tuple[str, str]:
    """Return what is the first non-finite thing in the order of computation, and advice."""
    for i, (x, y) in enumerate(window):
        for name, tensor in (("inputs", x), ("targets", y)):
            bad = _bad_rows(tensor)
            if bad:
                of = f" of batch {i + 1} of the step" if len(window) > 1 else ""
                return (
                    f"the {name}{of} are not finite in samples {bad}",
                    "clean the data, or leave these samples out",
                )
    for name, tensor in (*parts.model.named_parameters(), *parts.model.named_buffers()):
        if not _finite(tensor):
            return (
                f"{name} of the model is not finite, so an earlier step broke it",
                f"{_CALMER}, and go on from the last checkpoint",
            )
    layer = _first_layer(parts, window)
    if layer:
        half = _half(parts)
        return (
            f"the first value that is not finite is in the output of {layer}",
            f"{half}{_CALMER}"
            if half
            else f"{_CALMER}, and look for a division or a logarithm there",
        )
    for name, p in reversed(list(parts.model.named_parameters())):
        if not broken and p.grad is not None and not _finite(p.grad):
            return (
                f"the loss and all layers are finite in the forward pass; going backward, the "
                f"first gradient that is not is that of {name}",
                f"{_half(parts)}{_CALMER}, and look for a square root or a division at 0 behind it",
            )
    return (
        "inputs, weights and all layers are finite, so the loss itself is not: a logarithm or a "
        "division at 0, or an overflow",
        f"look at the targets and at the loss, {_CALMER}",
    )


def _half(parts: Parts) -> str:
    kind = getattr(parts.autocast, "fast_dtype", None)
    return "take precision: bf16 or fp32 (float16 ends at 65504), " if kind == torch.float16 else ""


def _first_layer(parts: Parts, window: Sequence[Batch]) -> str:
    """Return path and type of the first layer with a non-finite output, running the batch again."""
    found: list[str] = []

    def look(path: str, module: nn.Module) -> Any:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if not found and any(not _finite(t) for t in tensors(output)):
                found.append(f"{path or 'the model'} ({type(module).__name__})")

        return hook

    handles = [m.register_forward_hook(look(path, m)) for path, m in parts.model.named_modules()]
    try:
        with Untouched([parts.model, parts.loss]), torch.no_grad(), parts.autocast:
            for x, y in window:
                with suppress(Exception):  # only the layers are of interest here
                    parts.task.loss(parts.loss, parts.task.forward(parts.model, x), x, y)
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else ""


def _finite(t: Tensor) -> bool:
    if not (t.is_floating_point() or t.is_complex()):
        return True
    return bool(t.detach().isfinite().all())


def _bad_rows(t: Any) -> str:
    """Return the first samples of a batch with a non-finite value, as a text."""
    if not isinstance(t, Tensor) or _finite(t):
        return ""
    rows = (~t.detach().isfinite()).reshape(len(t), -1).any(1).nonzero().flatten().tolist()
    return ", ".join(map(str, rows[:5])) + (f" and {len(rows) - 5} more" if len(rows) > 5 else "")
