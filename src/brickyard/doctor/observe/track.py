"""Hold what is known of one optimizer while it is followed from step to step."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Any

import torch
from torch.optim import Optimizer

from brickyard.doctor.observe import order
from brickyard.doctor.observe.record import OptimizerSeen, ParamSeen


class Track:
    """Follow one optimizer from step to step."""

    def __init__(self, optimizer: Optimizer, seen: OptimizerSeen) -> None:
        self.ref = weakref.ref(optimizer)
        self.seen = seen
        self.events: list[order.Event] = []
        self.whole = False  # the interval was looked at from its beginning
        self.nested = False
        self.witnesses: list[torch.Tensor] = []
        self.before: list[tuple[ParamSeen, Any, Any, bool | None, float]] = []
        self.stale = False
        self.closure = False
        self.signature: list[tuple[int, int]] | None = None

    @property
    def params(self) -> Iterator[torch.Tensor]:
        """Iterate over the optimizer's parameters."""
        optimizer = self.ref()
        for group in optimizer.param_groups if optimizer is not None else ():
            yield from group["params"]

    def describe(self, optimizer: Optimizer) -> None:
        """Note the groups of an optimizer."""
        seen = self.seen
        seen.groups = []
        seen.frozen_groups = []
        for i, group in enumerate(optimizer.param_groups):
            params = group["params"]
            facts = {
                k: float(v) if isinstance(v, torch.Tensor) and v.numel() == 1 else v
                for k, v in group.items()
                if k in ("lr", "weight_decay", "eps", "betas", "momentum", "maximize")
            }
            facts["params"] = len(params)
            # others may compute in float32, whatever the weights are kept in
            by_torch = type(optimizer).__module__.startswith("torch.optim")
            facts["dtypes"] = sorted({str(p.dtype) for p in params}) if by_torch else []
            seen.groups.append(facts)
            if params and not any(p.requires_grad for p in params):
                seen.frozen_groups.append(i)
