"""Work out what memory a recipe needs on each device before it is trained there.

The recipe's own model and optimizer take a few steps on small batches here, while every tensor's
memory is counted from the moment it is made until it is let go of. What grows with the batch is
read off two sizes; the rest is bytes of weights, gradients and the optimizer's real state.
"""

from __future__ import annotations

import math
import re
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from brickyard.errors import RecipeError, UserError
from brickyard.train.loop import Loop, State
from brickyard.train.recipe import Resolved
from brickyard.train.setup import Setup, build_setup

__all__ = ["Need", "Plan", "Row", "measure", "parse_bytes", "plan", "table"]

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
#: Samples of the smaller probe; the larger one has twice as many.
_PROBE = 8
#: DistributedDataParallel sends gradients from buckets beside them.
_BUCKETS = 1.0


def parse_bytes(text: str) -> int:
    """Return a size such as ``"80GB"`` in bytes; units are powers of 1024.

    Raises:
        UserError: no size.

    Example:
        >>> parse_bytes("80GB") == 80 * 1024**3
        True
    """
    found = _SIZE.fullmatch(text.strip())
    if not found or not float(found[1]):
        raise UserError(f"memory is a size such as 80GB or 512MB; got {text!r}")
    return int(float(found[1]) * 1024 ** " KMGT".index(found[2].upper() or " "))


@dataclass(frozen=True)
class Need:
    """Hold what one process needs, in bytes.

    Args:
        weights: parameters and buffers.
        gradients: of everything that is trained.
        state: what the optimizer keeps, and averages of the weights.
        fixed: what a step needs besides, whatever the batch.
        sample: what a step needs for each sample of its batch.
        block: the largest part of the model that FSDP gathers at once.
    """

    weights: int
    gradients: int
    state: int
    fixed: int
    sample: float
    block: int

    def step(self, samples: float) -> float:
        """Return what a step makes at its peak, gradients included."""
        return max(self.fixed + self.sample * samples, self.gradients)


@dataclass(frozen=True)
class Row:
    """Hold one way to share the work, in bytes for each device.

    Args:
        how: ``"one device"``, ``"ddp"`` or ``"fsdp"``.
        weights: parameters and buffers.
        gradients: and the copies that are sent.
        state: the optimizer's.
        activations: what a step needs besides at its peak.
        samples: of each batch, for each device.
        most: samples that would fit.
    """

    how: str
    weights: float
    gradients: float
    state: float
    activations: float
    samples: int
    most: int

    @property
    def total(self) -> float:
        """Return the sum."""
        return self.weights + self.gradients + self.state + self.activations


@dataclass(frozen=True)
class Plan:
    """Hold what a recipe needs, and the ways to share it.

    Args:
        need: of one process.
        rows: the ways.
        memory: of each device, in bytes.
        devices: how many.
        batch: samples a batch, over all devices.
    """

    need: Need
    rows: tuple[Row, ...]
    memory: int
    devices: int
    batch: int

    def advice(self) -> str:
        """Return what to do, in words."""
        fit = [row for row in self.rows if row.total <= self.memory]
        if fit:
            row = fit[0]
            how = row.how if row.how == "one device" else f"distributed: {row.how}"
            return (
                f"take {how}: {_shown(row.total)} of {_shown(self.memory)} on each device; up to "
                f"{row.most * self.devices if row.how != 'one device' else row.most:,} samples a "
                "batch would fit"
            )
        last = self.rows[-1]
        if last.most >= 1:
            times = math.ceil(last.samples / last.most)
            return (
                f"nothing fits with {last.samples} samples for each device; with {last.how}, "
                f"accumulate: {times} and batch_size: {max(1, self.batch // times)} does the same "
                "step in parts that fit"
            )
        return (
            "nothing fits, not even one sample for each device: take more devices, bf16 weights, "
            "gradient checkpointing, or an optimizer with less state"
        )


def plan(resolved: Resolved, devices: int, memory: int) -> Plan:
    """Work out what each device needs.

    Args:
        resolved: a checked recipe.
        devices: how many there are.
        memory: of each, in bytes.

    Raises:
        RecipeError: the recipe cannot be built or stepped here.
        UserError: no devices.
    """
    if devices < 1:
        raise UserError(f"there must be one device at least; got {devices}")
    need = measure(resolved)
    batch = resolved.recipe.batch_size
    rows = [_row("one device", need, 1, batch, memory)]
    if devices > 1:
        rows = [_row(how, need, devices, batch, memory) for how in ("ddp", "fsdp")]
    return Plan(need, tuple(rows), memory, devices, batch)


def _row(how: str, need: Need, devices: int, batch: int, memory: int) -> Row:
    samples = math.ceil(batch / devices)
    gathered = 2 * need.block if how == "fsdp" else 0  # one in use, the next on its way
    parts = devices if how == "fsdp" else 1
    sent = _BUCKETS * need.gradients if how == "ddp" else 0
    # In a step, gradients grow while activations go: its peak holds what was not sent away.
    held = need.gradients / parts
    kept = need.weights / parts + need.state / parts + gathered + sent
    step = max(need.fixed + need.sample * samples - (need.gradients - held), held)
    room = memory - kept - max(0.0, need.fixed - (need.gradients - held))
    most = 0 if room < 0 or kept + held > memory else int(room // max(need.sample, 1))
    return Row(how, need.weights / parts + gathered, held + sent, need.state / parts,
               step - held, samples, most)  # fmt: skip


def measure(resolved: Resolved) -> Need:
    """Take a few steps here and return what a process needs.

    Args:
        resolved: a checked recipe.
    """
    recipe = resolved.recipe
    size = max(1, min(_PROBE, recipe.batch_size // 2))
    peaks = {}
    for samples in (size, 2 * size):
        small = recipe.model_copy(update={"batch_size": samples, "accumulate": 1, "loggers": []})
        setup = build_setup(replace(resolved, recipe=small))
        peaks[samples] = _peak(setup, samples)
    sample = max(0.0, (peaks[2 * size] - peaks[size]) / size)
    model, parts = setup.parts.model, setup.parts
    state = _bytes(_tensors(parts.optimizer.state.values()))
    averaged = getattr(parts.average, "averaged", {})
    return Need(
        weights=_bytes([*model.parameters(), *model.buffers()]),
        gradients=_bytes(p for p in model.parameters() if p.requires_grad),
        state=state + _bytes(_tensors(averaged)),
        fixed=round(peaks[size] - sample * size),
        sample=sample,
        block=_block(model),
    )


def _peak(setup: Setup, samples: int) -> float:
    """Return the most that a step holds beyond weights and state."""
    parts = setup.parts
    parts.evaluator, parts.log_every, parts.total = None, 10**9, 2
    if len(setup.data.train) < samples:
        raise RecipeError(f"data: {samples} samples are needed to plan")
    ahead, parts.train.ahead = getattr(parts.train, "ahead", 0), 0  # pyright: ignore
    Loop(parts, state=State()).run()  # the first steps make the optimizer's state
    for p in parts.model.parameters():
        p.grad = None
    ledger, loop = _Ledger(), Loop(parts, state=State())
    parts.total = 1
    with ledger:
        loop.run()
    x, y = next(parts.train.epoch(0))
    return ledger.peak + (1 + ahead) * _bytes([x, y])


class _Ledger(TorchDispatchMode):
    """Count the bytes of tensors that are made under it, until they are let go of."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = weakref.WeakSet[Any]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {id(t.untyped_storage()) for t in _tensors([args, kwargs or {}])}
        found = func(*args, **(kwargs or {}))
        for t in _tensors([found]):
            storage = t.untyped_storage()
            if storage not in self._known and id(storage) not in given:
                self._known.add(storage)
                size = storage.nbytes()
                self.live += size
                weakref.finalize(storage, self._gone, size)
        self.peak = max(self.peak, self.live)
        return found

    def _gone(self, size: int) -> None:
        self.live -= size


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, dict):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, Iterable) and not isinstance(values, str | bytes):
        for value in values:
            yield from _tensors(value)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum({t.data_ptr(): t.numel() * t.element_size() for t in tensors}.values())


def _block(model: nn.Module) -> int:
    """Return the bytes of the largest part that FSDP gathers at once: a block, or what is left."""
    blocks = [block for module in model.modules()
              if isinstance(module, nn.ModuleList | nn.Sequential) and module is not model
              for block in module if list(block.children())]  # fmt: skip
    inside = {id(p) for block in blocks for p in block.parameters()}
    rest = _bytes(p for p in model.parameters() if id(p) not in inside)
    return max([rest, *(_bytes(block.parameters()) for block in blocks)])


def _shown(count: float) -> str:
    """Return bytes for people."""
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:.3g} TB"


def table(found: Plan) -> str:
    """Return the plan as text: a row for each way, what fits, and what to do."""
    head = ["", "weights", "gradients", "optimizer", "activations", "total", "fits", "batch"]
    lines = [head]
    for row in found.rows:
        fits = "yes" if row.total <= found.memory else "no"
        sizes = (row.weights, row.gradients, row.state, row.activations, row.total)
        lines.append([row.how, *map(_shown, sizes), fits, f"{row.samples} of {row.most:,}"])
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    rows = ["  ".join(cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True)))
            for line in lines]  # fmt: skip
    what = f"{found.devices} device{'s' if found.devices > 1 else ''} with {_shown(found.memory)}"
    return "\n".join([f"{what}, {found.batch} samples a batch; for each device:", "", *rows, "",
                      found.advice()])  # fmt: skip
