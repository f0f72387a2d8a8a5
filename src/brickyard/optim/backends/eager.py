"""The reference backend: the rules themselves, tensor by tensor, without the traced graph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from brickyard.optim import maths
from brickyard.optim.backends import compute_dtype
from brickyard.optim.chain import walk
from brickyard.optim.plan import Plan


class EagerRun:
    """Run a chain tensor by tensor.

    Args:
        plan: gives pieces, slots and host programs; its graph is not used for tensors.
        bucket: the parameters.
    """

    name, why = "eager", "asked for"

    def __init__(self, plan: Plan, bucket: Any) -> None:
        self.plan, self.bucket = plan, bucket
        self.programs = [plan.host_program(k) for k in range(plan.graph.stages)]
        self._outputs: dict[str, list[float]] = {}

    def stage(self, stage: int, scalars: Sequence[float], totals: Mapping[Any, float]) -> Mapping[
            Any, float]:  # fmt: skip
        """Run the rules as far as the sums over all tensors are known; store at the end."""
        last = stage == len(self.programs) - 1
        book, self._outputs = maths.Totals(), {}
        book.known.update(totals)
        results = []
        maths.CURRENT.append(book)
        try:
            with torch.no_grad():
                for k in range(len(self.bucket.params)):
                    try:
                        results.append((k, *self._one(k, book)))
                    except maths.IncompleteError:
                        continue
                for result in results if last else ():
                    self._store(*result)
        finally:
            maths.CURRENT.pop()
        return book.open

    def _one(self, k: int, book: maths.Totals) -> tuple[Any, Any]:
        bucket, plan, h = self.bucket, self.plan, self.bucket.hyper
        p, g = bucket.params[k], bucket.grads[k]
        kind = compute_dtype(p.dtype)
        held = {s.name: x[k].to(kind) for s, x in zip(bucket.slots, bucket.held, strict=True)}
        host = {slot.name: h[f"slot.{slot.name}"] for slot in plan.host_slots}

        def slots(i: int) -> Mapping[str, Any]:
            return {name: {**held, **host}[slot.name]
                    for (j, name), slot in plan.slots.items() if j == i}  # fmt: skip

        def hyper(i: int) -> Mapping[str, Any]:
            own = {name: h[plan.keys[i, name]] for name in plan.chain.pieces[i].hyper}
            return {**own, "lr": h["lr"], "t": h["t"]}

        u = g.to(kind) * h["coef"] if plan.flags.scaled else g.to(kind)
        weights = held["master"] if plan.flags.master else p.detach().to(kind)
        new_p, taken, new = walk(plan.pieces, u, weights, slots, hyper, h["lr"], book.begin)
        named = {plan.slots[key].name: value for key, value in new.items()
                 if plan.slots[key].init != "host"}  # fmt: skip
        if plan.flags.telemetry:
            self._note(u, taken, new_p)
        return new_p, named

    def _note(self, u: Any, taken: Any, p: Any) -> None:
        for name, x in (("grad_norm", u), ("update_norm", taken), ("param_norm", p)):
            self._outputs.setdefault(name, []).append(float((x * x).sum()))

    def _store(self, k: int, new_p: Any, new: Mapping[str, Any]) -> None:
        bucket = self.bucket
        names = [slot.name for slot in bucket.slots]
        for name, value in new.items():
            bucket.held[names.index(name)][k].copy_(torch.as_tensor(value))
        if self.plan.flags.master:
            bucket.held[names.index("master")][k].copy_(new_p)
        bucket.params[k].copy_(new_p)

    def outputs(self) -> Mapping[str, list[float]]:
        """Return squared norms per tensor."""
        return self._outputs
