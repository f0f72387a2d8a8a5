"""The engine: sorts parameters into buckets that take the same step, and runs the step.

A *bucket* holds parameters of one group, step count, dtype, device and memory layout on which the
same pieces act. Every step reads every pointer anew: gradients, parameters and state may have been
replaced, and then the tables follow. Nothing else is done per tensor in Python.
"""

from __future__ import annotations

import itertools
import operator
from array import array
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import torch

from brickyard.clip.norms import is_sharded
from brickyard.optim import backends
from brickyard.optim.backends.native import obstacle
from brickyard.optim.binding import Binding
from brickyard.optim.chain import Chain, matches
from brickyard.optim.plan import Flags, Plan
from brickyard.optim.rule import Slot

_GRAD, _DTYPE = attrgetter("grad"), attrgetter("dtype")
_PTR, _CONTIGUOUS = torch.Tensor.data_ptr, torch.Tensor.is_contiguous
#: Plans by structure: optimizers of one kind share traces and kernels.
_PLANS: dict[Any, Plan] = {}


class NonFiniteError(FloatingPointError):
    """A guard that was asked to raise does not hold: a norm is infinite or NaN."""


def plan_for(chain: Chain, active: tuple[int, ...], flags: Flags,
             keys: Mapping[tuple[int, str], str]) -> Plan:  # fmt: skip
    """Return the plan of a chain's active pieces, traced once per process."""
    key = (chain.structure, active, flags, tuple(sorted(keys.items())))
    found = _PLANS.get(key)
    if found is None:
        found = _PLANS[key] = Plan(chain, active, flags, keys)
    return found


class Bucket:
    """Hold parameters that take the same step.

    Args:
        group: the parameter group.
        setup: its chain and where its hyperparameters are.
        active: places of the pieces that act on these parameters.
        params: the parameters; their state is complete.
        rows: their dictionaries in ``optimizer.state``.
        plan: gives the slots.
        place: of the group.
    """

    def __init__(self, group: dict[str, Any], setup: Setup, active: tuple[int, ...],
                 params: list[torch.Tensor], rows: list[dict[str, Any]],
                 plan: Plan, place: int) -> None:  # fmt: skip
        self.group, self.setup, self.active, self.params = group, setup, active, params
        self.whole = params  # of DTensors, ``params`` are this process's shards
        self.place = place
        pieces = setup.chain.pieces
        self.every = [(i, every) for i in active if (every := pieces[i].every) is not None]
        self.strides = [p.stride() for p in params]
        self.plain = all(map(_CONTIGUOUS, params))
        self.grad_dtypes = [p.grad.dtype for p in params if p.grad is not None]
        self.slots = plan.slot_list
        self.held = [_like(slot, params, rows) for slot in self.slots]
        self.tensors = [*params, *itertools.chain.from_iterable(self.held)]
        self.addresses: list[int] = []
        self.version = 0  # counts changes of ``addresses``
        self.grads: list[torch.Tensor] = []
        self.grad_addresses: list[int] = []
        # One number for all parameters of the bucket: each row holds the same tensor.
        self.count = int(rows[0]["step"])
        self.host = {slot.name: float(rows[0][slot.name]) for slot in plan.host_slots}
        self._shared = {name: _share(name, value, rows)
                        for name, value in (("step", self.count), *self.host.items())}  # fmt: skip
        self.runs: dict[Any, backends.Run] = {}
        self.run: backends.Run
        self.hyper: dict[str, Any] = {}
        self.kept: tuple[float, ...] = ()

    def active_now(self) -> tuple[int, ...]:
        """Return the places of the pieces that act on the coming step."""
        if not self.every:
            return self.active
        t = self.count + 1
        off = {i for i, every in self.every if t % every}
        return tuple(i for i in self.active if i not in off)

    def advance(self) -> None:
        """Count a step that was taken, and let go of its gradients."""
        self.grads = []
        self.count += 1
        self._shared["step"][0] = self.count
        for name, value in zip(self.host, self.kept, strict=False):
            self.host[name] = self._shared[name][0] = value

    def refresh(self) -> None:
        """Read gradients and all addresses anew.

        Raises:
            UnsortedError: a gradient vanished or changed its type, or a parameter moved.
        """
        grads = self.gradients()
        try:
            even = map(_CONTIGUOUS, grads) if self.plain else map(
                operator.eq, map(torch.Tensor.stride, grads), self.strides)  # fmt: skip
            if not all(even):
                grads = self._even(grads)
            self.grad_addresses = list(map(_PTR, grads))
        except (TypeError, RuntimeError):
            _explain_gradients(grads)
            raise UnsortedError from None
        if list(map(_DTYPE, grads)) != self.grad_dtypes:
            raise UnsortedError
        self.grads = grads
        addresses = list(map(_PTR, self.tensors))
        if addresses != self.addresses:
            if self.addresses:
                raise UnsortedError
            self.addresses = addresses
            self.version += 1

    def gradients(self) -> list[Any]:
        """Return the gradients as they are now."""
        return list(map(_GRAD, self.params))

    def _even(self, grads: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return gradients in their parameters' memory order; copies, where they are not."""
        return [g if g.stride() == p.stride() else torch.empty_like(p, dtype=g.dtype).copy_(g)
                for g, p in zip(grads, self.params, strict=True)]  # fmt: skip


def _like(slot: Slot, params: Sequence[torch.Tensor], rows: Sequence[dict[str, Any]]) -> list[
        torch.Tensor]:  # fmt: skip
    """Return a slot's tensors, in the memory order of the parameters.

    Raises:
        ValueError: a tensor of another shape (somebody put it there).
    """
    for p, row in zip(params, rows, strict=True):
        x, wanted = row[slot.name], backends.slot_like(slot, p, row[slot.name].dtype, empty=True)
        if x.shape != wanted.shape:
            raise ValueError(f"state {slot.name!r} of a parameter of shape {tuple(p.shape)} must "
                             f"have shape {tuple(wanted.shape)}; got {tuple(x.shape)}")  # fmt: skip
        if x.stride() != wanted.stride() or x.device != p.device:
            row[slot.name] = wanted.copy_(x)
    return [row[slot.name] for row in rows]


def _share(name: str, value: float, rows: Sequence[dict[str, Any]]) -> array[float]:
    """Put one tensor into all rows; return the memory behind it."""
    memory = array("f" if name == "step" else "d", [value])
    kind = torch.float32 if name == "step" else torch.float64
    tensor = torch.frombuffer(memory, dtype=kind)[0]
    for row in rows:
        row[name] = tensor
    return memory


class UnsortedError(Exception):
    """Parameters no longer fit their buckets."""


def _explain_gradients(grads: Sequence[torch.Tensor | None]) -> None:
    for g in grads:
        if g is not None and g.layout != torch.strided:
            raise TypeError(
                f"gradients must be dense; got one of layout {g.layout}: build the embedding with "
                "sparse=False, or give its parameters to torch.optim.SparseAdam"
            )


class Setup:
    """Hold what follows from a group's structure: its chain, and where hyperparameters are.

    Args:
        chain: the group's chain.
        own: keys that the group has by its optimizer's signature.
        read: options that the chain was built from, with the values they had.
    """

    def __init__(self, chain: Chain, own: Sequence[str], read: Mapping[str, Any]) -> None:
        self.chain, self.read = chain, dict(read)
        self.binding = Binding(chain, own)
        self.items = list(self.read.items())

    def adopt(self, other: Setup) -> bool:
        """Take over another setup's numbers; return False where its structure differs.

        Args:
            other: of the same group, made after an option changed.
        """
        places = [[(piece.where, piece.every) for piece in made.pieces]
                  for made in (self.chain, other.chain)]  # fmt: skip
        if (self.chain.structure != other.chain.structure or places[0] != places[1]
                or self.binding.keys != other.binding.keys):  # fmt: skip
            return False
        self.chain, self.read, self.items = other.chain, other.read, other.items
        self.binding = other.binding
        return True


class Engine:
    """Run an optimizer's steps.

    Args:
        owner: the optimizer: its ``param_groups``, ``state`` and settings are read each step.
    """

    def __init__(self, owner: Any) -> None:
        self.owner = owner
        self.buckets: list[Bucket] = []
        self.idle: list[torch.Tensor] = []
        self.setups: list[Setup] = []
        self.dirty = True
        self.totals: dict[Any, float] = {}
        self._seen: list[Any] = []

    def sort(self) -> None:
        """Sort all parameters with gradients into buckets; make state that is missing."""
        owner = self.owner
        made: dict[Any, list[torch.Tensor]] = {}
        self.setups = [owner.make_setup(group) for group in owner.param_groups]
        self.idle, self.buckets = [], []
        for place, (group, setup) in enumerate(zip(owner.param_groups, self.setups, strict=True)):
            names = group.get("param_names") or [None] * len(group["params"])
            for name, p in zip(names, group["params"], strict=True):
                if p.grad is None:
                    self.idle.append(p)
                elif p.numel():
                    active = tuple(i for i, piece in enumerate(setup.chain.pieces)
                                   if matches(piece.where, name, p))  # fmt: skip
                    host = self._complete(setup, active, p)
                    why = obstacle(self._plan(setup, active, p), p)
                    kind = (p.dtype, p.device, p.grad.dtype, why, backends.layout(p))
                    made.setdefault((place, active, host, kind), []).append(p)
        for (place, active, *_), params in made.items():
            setup, rows = self.setups[place], [owner.state[p] for p in params]
            plan = self._plan(setup, active, params[0])
            group = owner.param_groups[place]
            made_of = backends.sharded_bucket() if is_sharded(params[0]) else Bucket
            self.buckets.append(made_of(group, setup, active, params, rows, plan, place))
        self._seen = [*self._live()]
        self.dirty = False

    def _plan(self, setup: Setup, active: tuple[int, ...], p: torch.Tensor) -> Plan:
        return plan_for(setup.chain, active, self.owner.flags(p, False), setup.binding.keys)

    def _complete(self, setup: Setup, active: tuple[int, ...], p: torch.Tensor) -> tuple[
            Any, ...]:  # fmt: skip
        """Make the state that a parameter misses; return its counts and its storage types."""
        plan, row = self._plan(setup, active, p), self.owner.state[p]
        for slot in plan.slot_list:
            if slot.name not in row:
                row[slot.name] = self.owner.new_slot(slot, p)
        for slot in plan.host_slots:
            row.setdefault(slot.name, torch.tensor(1.0, dtype=torch.float64))
        row.setdefault("step", torch.tensor(0.0))
        return (float(row["step"]), *(float(row[slot.name]) for slot in plan.host_slots),
                *(row[slot.name].dtype for slot in plan.slot_list))  # fmt: skip

    def _live(self) -> Iterator[Any]:
        """Yield every object that buckets were made from: groups' parameters and state."""
        owner = self.owner
        for group in owner.param_groups:
            yield from group["params"]
        yield from itertools.chain.from_iterable(map(dict.values, owner.state.values()))
        yield owner

    def step(self, coefs: Sequence[float] | None) -> bool:
        """Take one step; return False when a guard skipped it.

        Args:
            coefs: what gradients are multiplied by first, by group; None for 1 everywhere.

        Raises:
            NonFiniteError: a guard that shall raise does not hold.
        """
        self._prepare()
        buckets, stages = self.buckets, 1
        if not all(bucket.runs for bucket in buckets):
            self._choose(coefs is not None)
        for bucket in buckets:
            self._ready(bucket, None if coefs is None else coefs[bucket.place])
            stages = max(stages, bucket.run.plan.graph.stages)
        totals: dict[Any, float] = {}
        for stage in range(stages - 1):
            if not self._stage(stage, totals):
                return False
        ready = []
        for bucket in buckets:
            scalars, failed, bucket.kept = bucket.run.programs[-1](bucket.hyper, totals)
            if failed is not None:
                return _failed(failed)
            ready.append(scalars)
        for bucket, scalars in zip(buckets, ready, strict=True):
            bucket.run.stage(len(bucket.run.programs) - 1, scalars, totals)
            torch.autograd.graph.increment_version(bucket.whole)
        for bucket in buckets:
            bucket.advance()
        self.totals = totals
        return True

    def _prepare(self) -> None:
        """Sort where something changed since the last step, and read all addresses."""
        for attempt in range(2):
            if self.dirty or self._stale():
                self.sort()
            try:
                for bucket in self.buckets:
                    bucket.refresh()
                return
            except UnsortedError:
                if attempt:
                    raise
                self.dirty = True

    def _stale(self) -> bool:
        """Say whether a group, an option that decides about structure, or state was replaced."""
        groups = self.owner.param_groups
        if len(groups) != len(self.setups):
            return True
        for setup, group in zip(self.setups, groups, strict=True):
            for key, value in setup.items:
                if group[key] is not value and group[key] != value:
                    if not setup.adopt(self.owner.make_setup(group)):
                        return True
                    break
        return not all(map(operator.is_, self._live(), self._seen)) or any(
            g is not None for g in map(_GRAD, self.idle)
        )

    def _plan_of(self, bucket: Bucket, active: tuple[int, ...], scaled: bool) -> Plan:
        setup, flags = bucket.setup, self.owner.flags(bucket.params[0], scaled)
        return plan_for(setup.chain, active, flags, setup.binding.keys)

    def _choose(self, scaled: bool) -> None:
        """Choose the first kernels of all buckets; compilers run side by side."""
        new = [b for b in self.buckets if not b.runs]
        keys = [(b.active_now(), scaled, self.owner.telemetry) for b in new]
        plans = [self._plan_of(b, *key[:2]) for b, key in zip(new, keys, strict=True)]
        runs = backends.choose_all(self.owner.backend, plans, new)
        for bucket, key, run in zip(new, keys, runs, strict=True):
            bucket.runs[key] = run

    def _ready(self, bucket: Bucket, coef: float | None) -> None:
        """Choose the bucket's kernel for this step and read its hyperparameters."""
        owner, setup = self.owner, bucket.setup
        group = bucket.group
        key = (bucket.active_now(), coef is not None, owner.telemetry)
        run = bucket.runs.get(key)
        if run is None:
            plan = self._plan_of(bucket, *key[:2])
            run = bucket.runs[key] = backends.choose(owner.backend, plan, bucket)
        bucket.run = run
        hyper = setup.binding.read(group, owner.steps)
        if hyper["lr"] != hyper["lr"]:
            raise ValueError(f"lr of group {bucket.place} is NaN after {owner.steps} steps: no "
                             "step was taken; look at the schedule")  # fmt: skip
        hyper["t"] = bucket.count + 1
        if coef is not None:
            hyper["coef"] = coef
        for name, value in bucket.host.items():
            hyper[f"slot.{name}"] = value
        bucket.hyper = hyper

    def _stage(self, stage: int, totals: dict[Any, float]) -> bool:
        """Run a stage that ends in sums over all tensors or in matrix operations."""
        sums: dict[Any, float] = {}
        for bucket in self.buckets:
            run = bucket.run
            if stage < len(run.programs) - 1:
                scalars, failed, _ = run.programs[stage](bucket.hyper, totals)
                if failed is not None:
                    return _failed(failed)
                for key, value in run.stage(stage, scalars, totals).items():
                    sums[key] = sums.get(key, 0.0) + value
        totals.update(sums)
        return True


def _failed(error: str) -> bool:
    if error:
        raise NonFiniteError(error)
    return False
