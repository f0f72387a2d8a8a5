"""Scale a loss so that its gradients survive in float16, and count what the scale did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from brickyard.clip import joint_norm
from brickyard.errors import RunError
from brickyard.optim import Optimizer as Ours
from brickyard.train.closure import innermost

__all__ = ["LossScaler", "ScaleLost", "ScaleOptions"]


class ScaleLost(RunError):  # noqa: N818  an outcome
    """Gradients overflow at any scale."""


@dataclass(frozen=True)
class ScaleOptions:
    """Hold how a loss scale begins and moves; see :class:`brickyard.train.precision.FP16`.

    Raises:
        ValueError: a number out of range.
    """

    init_scale: float = 65536.0
    growth_factor: float = 2.0
    backoff_factor: float = 0.5
    growth_interval: int = 2000
    min_scale: float = 1e-4

    def __post_init__(self) -> None:
        if not (0 < self.init_scale < math.inf):
            raise ValueError(f"init_scale must be above 0; got {self.init_scale!r}")
        if not (1 < self.growth_factor < math.inf):
            raise ValueError(f"growth_factor must be above 1; got {self.growth_factor!r}")
        if not 0 < self.backoff_factor < 1:
            raise ValueError(
                f"backoff_factor must lie between 0 and 1; got {self.backoff_factor!r}"
            )
        if self.growth_interval < 1:
            raise ValueError(f"growth_interval must be 1 or more; got {self.growth_interval!r}")
        if not 0 < self.min_scale <= self.init_scale:
            raise ValueError(
                f"min_scale must be above 0 and at most init_scale; got {self.min_scale!r}"
            )


class LossScaler:
    """Do the steps of scaled training in their one right order, around torch's ``GradScaler``.

    Backward of the scaled loss, then ``step``: unscale, clip, step, next scale. Where nothing is
    clipped, optimizers that can unscale in their own pass do.

    Args:
        options: how the scale begins and moves.
        device: where the gradients are.

    Example:
        >>> w = torch.nn.Parameter(torch.ones(1))
        >>> scaler = LossScaler(ScaleOptions(init_scale=8.0), torch.device("cpu"))
        >>> scaler.scale((2 * w).sum()).backward()
        >>> w.grad
        tensor([16.])
        >>> taken, norm = scaler.step(torch.optim.SGD([w], lr=0.1), [w], None)
        >>> taken, w.detach()
        (True, tensor([0.8000]))
    """

    def __init__(self, options: ScaleOptions, device: torch.device):
        self.options = options
        self.inner = torch.amp.GradScaler(  # pyright: ignore[reportPrivateImportUsage]
            device.type,
            init_scale=options.init_scale,
            growth_factor=options.growth_factor,
            backoff_factor=options.backoff_factor,
            growth_interval=options.growth_interval,
        )
        self.growths = self.backoffs = 0
        self.left = 1.0  # what the latest gradients are still multiplied by

    @property
    def value(self) -> float:
        """Return the scale of the next loss."""
        return self.inner.get_scale()

    def scale(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale: what to call ``backward`` of."""
        return self.inner.scale(loss)

    def step(
        self, optimizer: Optimizer, params: Sequence[Tensor],
        clip: Callable[[list[Tensor]], Tensor] | None,
    ) -> tuple[bool, Tensor | None]:  # fmt: skip
        """Unscale, clip, step, and choose the next scale.

        Args:
            optimizer: takes the step, unless gradients overflowed.
            params: whose gradients are clipped.
            clip: takes the parameters, returns the norm before clipping; none to leave them.

        Returns:
            Whether the step was taken, and the norm of the unscaled gradients where it is known.

        Raises:
            ScaleLost: gradients overflowed below the least scale.
        """
        norm, folded = None, clip is None and isinstance(innermost(optimizer), Ours)
        self.left = self.value if folded else 1.0
        if not folded:
            self.inner.unscale_(optimizer)
        if clip is not None:
            norm = joint_norm([p.grad for p in params if p.grad is not None])
            if math.isfinite(norm):
                norm = clip(list(params))
        self.inner.step(optimizer)
        before = self.value
        self.inner.update()
        after = self.value
        if after < before:
            self.backoffs += 1
            if after < self.options.min_scale:
                raise ScaleLost(
                    f"gradients overflow in float16 even with a loss scale of {before:g} "
                    f"(min_scale is {self.options.min_scale:g}): the scale is not at fault; lower "
                    "the rate, add warmup or clipping, or take precision: bf16 or fp32"
                )
            return False, norm
        self.growths += after > before
        return True, norm

    def measured(self) -> dict[str, float]:
        """Return what a training row tells: the scale, and how often it grew and fell."""
        return {
            "loss_scale": self.value,
            "scale_growths": self.growths,
            "scale_backoffs": self.backoffs,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the scale, its counters and its place between two growths."""
        return {"scaler": self.inner.state_dict(), "growths": self.growths,
                "backoffs": self.backoffs}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.inner.load_state_dict(dict(state["scaler"]))
        self.growths, self.backoffs = state["growths"], state["backoffs"]
