"""The native backend: run a plan's C functions over all tensors of a bucket, one call per stage."""

from __future__ import annotations

import ctypes
import struct
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from brickyard.optim.backends import build, compute_dtype
from brickyard.optim.backends.cgen import Printer
from brickyard.optim.ir import Space
from brickyard.optim.plan import Plan

#: Elements per chunk: small enough to share the work evenly, large enough to hide its cost.
CHUNK = 32_768
#: Below this many elements one thread is faster than waking another.
SERIAL = 65_536
TYPES = {torch.float32: "float32", torch.float64: "float64",
         torch.bfloat16: "bfloat16", torch.float16: "float16"}  # fmt: skip


class Kernel:
    """Hold the library of one plan for one set of storage types.

    Args:
        plan: what to run.
        types: storage type by array name.

    Raises:
        BuildError: no compiler, or it refuses.
    """

    def __init__(self, plan: Plan, types: Mapping[str, str]) -> None:
        printer = Printer(plan, dict(types))
        self.plan, self.text, self.arrays = plan, printer.text, printer.arrays
        self.sums, self.phases = len(printer.sums), len(printer.phases)
        self.places = {node: i for i, node in enumerate(printer.sums)}
        library = build.load(self.text)
        self.stages = [getattr(library, f"stage_{i}") for i in range(plan.graph.stages)]
        for stage in self.stages:
            stage.argtypes, stage.restype = [ctypes.c_void_p], ctypes.c_int


def _address(values: array[Any]) -> int:
    return values.buffer_info()[0]


#: Kernels by plan and storage types.
_KERNELS: dict[Any, Kernel] = {}


def obstacle(plan: Plan, bucket: Any) -> str:
    """Return why the native backend cannot run a plan on a bucket; empty when it can."""
    p = bucket.params[0]
    if p.device.type != "cpu":
        return f"tensors on {p.device.type}"
    if p.dtype not in TYPES:
        return f"dtype {p.dtype}"
    if not bucket.dense:
        return "tensors with gaps in memory"
    if any(Space.TENSOR < n.space < Space.ELEM for n in plan.alive):
        return "row and column sums"
    return ""


def kernel_for(plan: Plan, types: Mapping[str, str]) -> Kernel:
    """Return the kernel of a plan, built once per process."""
    key = (id(plan), tuple(types.items()))
    found = _KERNELS.get(key)
    if found is None:
        found = _KERNELS[key] = Kernel(plan, types)
    return found


class NativeRun:
    """Hold the tables of one kernel for the tensors of one bucket.

    Args:
        plan: what to run.
        bucket: on what.
    """

    name, why = "native", ""

    def __init__(self, plan: Plan, bucket: Any) -> None:
        self.plan, self.bucket = plan, bucket
        self.programs = [plan.host_program(k) for k in range(plan.graph.stages)]
        types = {"grad": TYPES[bucket.grads[0].dtype], "param": TYPES[bucket.params[0].dtype]}
        for slot, tensors in zip(bucket.slots, bucket.held, strict=True):
            types[slot.name] = TYPES[tensors[0].dtype]
        wide = "float64" if types["param"] == "float64" else "float32"
        types.update({f"scratch.{n.number}": wide for n in plan.alive if n.op == "matrix"})
        kernel = kernel_for(plan, types)
        sizes = [p.numel() for p in bucket.params]
        self.kernel, n = kernel, len(sizes)
        self._scratch = [(kernel.arrays.index(f"scratch.{m.number}"), m)
                         for m in plan.alive if m.op == "matrix"]  # fmt: skip
        self._held: dict[int, list[torch.Tensor]] = {}
        self._version = -1
        self._totals = [[(i, m.attr) for i, m in enumerate(plan.totals) if m.level[0] == k + 1]
                        for k in range(plan.graph.stages)]  # fmt: skip
        self.pointers = array("Q", bytes(8 * n * len(kernel.arrays)))
        self._pack = struct.Struct(f"{n}Q").pack_into
        self._sizes = array("q", sizes)
        chunks, (units, shared) = _cut(sizes), _units(sizes)
        self._chunks, self._units = array("q", chunks), array("q", units)
        n_chunks, sums = len(chunks) // 3, max(kernel.sums, 1)
        wide = max(map(len, kernel.plan.device_scalars), default=0)
        self.scalars = array("d", bytes(8 * max(wide, 1)))
        self.parts = array("d", bytes(8 * n_chunks * sums))
        self.sums = array("d", bytes(8 * n * sums))
        self.totals = array("d", bytes(8 * max(len(kernel.plan.totals), 1)))
        self._large = sum(sizes) > SERIAL and n_chunks > 1
        self.job = array("q", [
            _address(self.pointers), _address(self._sizes), _address(self._chunks),
            _address(self._units), _address(self.scalars), _address(self.parts),
            _address(self.sums), _address(self.totals), n, n_chunks, n, shared, 1,
        ])  # fmt: skip
        self._job = _address(self.job)
        self._scalars = [struct.Struct(f"{len(s)}d").pack_into for s in kernel.plan.device_scalars]
        self._call = kernel.stages
        self._count = 8 * n

    def _point(self, place: int, addresses: Sequence[int]) -> None:
        self._pack(self.pointers, place * self._count, *addresses)

    def stage(self, stage: int, scalars: Sequence[float], totals: Mapping[Any, float]) -> Mapping[
            Any, float]:  # fmt: skip
        """Run one stage; return this bucket's share of the sums over all tensors."""
        bucket = self.bucket
        if stage == 0 or len(self.programs) == 1:
            self._pack(self.pointers, 0, *bucket.grad_addresses)
            if self._version != bucket.version:
                rest = bucket.addresses
                struct.pack_into(f"{len(rest)}Q", self.pointers, self._count, *rest)
                self._version = bucket.version
            if self._scratch:
                self._make_scratch()
        self._scalars[stage](self.scalars, 0, *scalars)
        if self._large:
            self.job[-1] = torch.get_num_threads()
        self._call[stage](self._job)
        for place, node in self._scratch:
            if node.level[0] == stage + 1:
                for x in self._held[place]:
                    x.copy_(node.attr(x))
        return {key: self.totals[i] for i, key in self._totals[stage]}

    def _make_scratch(self) -> None:
        kind = compute_dtype(self.bucket.params[0].dtype)
        for place, _ in self._scratch:  # in the parameters' memory order, whatever that is
            self._held[place] = [torch.empty_like(p, dtype=kind) for p in self.bucket.params]
            self._point(place, [x.data_ptr() for x in self._held[place]])

    def outputs(self) -> Mapping[str, list[float]]:
        """Return squared norms per tensor."""
        width, found = self.kernel.sums, {}
        for name, node in self.plan.graph.outputs.items():
            place = self.kernel.places[node]
            found[name] = [self.sums[t * width + place] for t in range(len(self.bucket.params))]
        return found


def _cut(sizes: Sequence[int]) -> list[int]:
    """Return chunks: (tensor, start, length)."""
    chunks: list[int] = []
    for t, size in enumerate(sizes):
        for start in range(0, size, CHUNK):
            chunks += [t, start, min(CHUNK, size - start)]
    return chunks


def _units(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Return tensors as (tensor, chunks from, to), and how many of them threads share.

    The largest come first, so that the last thread does not start one when others are done.
    """
    first, found = 0, []
    for t, size in enumerate(sizes):
        chunks = -(-size // CHUNK)
        found.append((size, t, first, first + chunks))
        first += chunks
    found.sort(key=lambda unit: (-unit[0], unit[1]))
    alone = max(sum(sizes) // (3 * torch.get_num_threads()), SERIAL)
    shared = sum(size > alone for size, *_ in found)
    return [x for _, *unit in found for x in unit], shared
