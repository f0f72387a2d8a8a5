"""The native backend: run a plan's C functions over all tensors of a bucket, one call per stage."""

from __future__ import annotations

import ctypes
import struct
import threading
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from brickyard import compiler
from brickyard.optim.backends import compute_dtype
from brickyard.optim.backends.cgen import Printer
from brickyard.optim.backends.cut import (
    SERIAL,
    Cut,
    flat_cut,
    is_dense,
    shape_obstacle,
    shaped_cut,
)
from brickyard.optim.backends.shaped import ShapedPrinter
from brickyard.optim.plan import Plan

TYPES = {torch.float32: "float32", torch.float64: "float64",
         torch.bfloat16: "bfloat16", torch.float16: "float16"}  # fmt: skip


#: Programs of many short loops: -O3 takes twice as long to build them, for the same speed.
SHAPED = ("-O2",)
#: Passes over many arrays: asks for what is behind a page; with few arrays it only costs time.
FLAT, FEW = ("-fprefetch-loop-arrays",), 3


class Kernel:
    """Hold the library of one plan for one set of storage types.

    Args:
        plan: what to run.
        types: storage type by array name.
        forms: of the tensors, where their shapes matter.

    Raises:
        BuildError: no compiler, or it refuses.
    """

    def __init__(self, plan: Plan, types: Mapping[str, str], forms: Sequence[str]) -> None:
        printer = ShapedPrinter(plan, dict(types), forms) if forms else Printer(plan, dict(types))
        self.plan, self.text, self.arrays = plan, printer.text, printer.arrays
        self.passes = printer.passes
        self.sums = len(printer.sums)
        self.places = {node: i for i, node in enumerate(printer.sums)}
        flags = SHAPED if forms else FLAT if len(types) > FEW else ()
        library = compiler.load(self.text, *flags)
        self.stages = [getattr(library, f"stage_{i}") for i in range(plan.graph.stages)]
        for stage in self.stages:
            stage.argtypes, stage.restype = [ctypes.c_void_p], ctypes.c_int


def _address(values: array[Any]) -> int:
    return values.buffer_info()[0]


#: Kernels by plan, storage types and forms.
_KERNELS: dict[Any, Kernel] = {}
_LOCKS: dict[Any, threading.Lock] = {}
_DOOR = threading.Lock()


def obstacle(plan: Plan, p: torch.Tensor) -> str:
    """Return why the native backend cannot run a plan on a tensor; empty when it can."""
    if p.device.type != "cpu":
        return f"tensors on {p.device.type}"
    if p.dtype not in TYPES:
        return f"dtype {p.dtype}"
    if not is_dense(p):
        return "tensors with gaps in memory"
    return shape_obstacle(plan, p) if plan.shaped else ""


def kernel_for(plan: Plan, types: Mapping[str, str], forms: Sequence[str]) -> Kernel:
    """Return the kernel of a plan, built once per process, whatever threads ask for it."""
    key = (id(plan), tuple(types.items()), *forms)
    with _DOOR:
        lock = _LOCKS.setdefault(key, threading.Lock())
    with lock:
        found = _KERNELS.get(key)
        if found is None:
            found = _KERNELS[key] = Kernel(plan, types, forms)
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
        cut = shaped_cut(plan, bucket.params) if plan.shaped else flat_cut(bucket.params)
        self.kernel = kernel = kernel_for(plan, types, cut.forms)
        self._scratch = [(kernel.arrays.index(f"scratch.{m.number}"), m)
                         for m in plan.alive if m.op == "matrix"]  # fmt: skip
        self._held: dict[int, list[torch.Tensor]] = {}
        self._version = -1
        self._totals = [[(i, m.attr) for i, m in enumerate(plan.totals) if m.stage == k + 1]
                        for k in range(plan.graph.stages)]  # fmt: skip
        self._scalars = [struct.Struct(f"{len(s)}d").pack_into for s in kernel.plan.device_scalars]
        self._call = kernel.stages
        self._allocate(cut, "d" if wide == "float64" else "f")

    def _allocate(self, cut: Cut, real: str) -> None:
        """Make the tables that the kernel reads and the memory for its sums."""
        kernel, n, chunks = self.kernel, len(cut.sizes), len(cut.chunks) // 3
        sums, scalars = max(kernel.sums, 1), max(map(len, self.plan.device_scalars), default=0)
        self._count, self._pack = 8 * n, struct.Struct(f"{n}Q").pack_into
        self.pointers = array("Q", bytes(8 * n * len(kernel.arrays)))
        self.scalars = array("d", bytes(8 * max(scalars, 1)))
        self.sums = array("d", bytes(8 * n * sums))
        self.totals = array("d", bytes(8 * max(len(self.plan.totals), 1)))
        self.cut = cut
        self._tables = [
            self.pointers, array("q", cut.sizes), array("q", cut.chunks), array("q", cut.units),
            self.scalars, array("d", bytes(8 * chunks * sums)), self.sums, self.totals,
            array("q", cut.dims), array("q", cut.places),
            array(real, bytes(array(real).itemsize * cut.pieces)), array("d", bytes(8 * cut.kept)),
        ]  # fmt: skip
        places = [_address(table) for table in self._tables]
        self._threads = torch.get_num_threads()
        self.job = array("q", [*places[:8], n, chunks, n, cut.shared(self._threads), *places[8:],
                               1])  # fmt: skip
        self._large = sum(cut.sizes) > SERIAL and chunks > 1
        self._job = _address(self.job)

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
            if self._large:
                self._share(torch.get_num_threads())
        self._scalars[stage](self.scalars, 0, *scalars)
        self._call[stage](self._job)
        for place, node in self._scratch:
            if node.stage == stage + 1:
                for x in self._held[place]:
                    x.copy_(node.attr(x))
        return {key: self.totals[i] for i, key in self._totals[stage]}

    def _share(self, threads: int) -> None:
        """Follow ``torch.set_num_threads``."""
        self.job[-1] = threads
        if threads != self._threads:
            self.job[11], self._threads = self.cut.shared(threads), threads

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
