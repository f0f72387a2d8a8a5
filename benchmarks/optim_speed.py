"""Time our optimizers: interleaved, in one process, medians of ratios; one command per promise.

    python benchmarks/optim_speed.py all --json results.json
    python benchmarks/optim_speed.py fused [A B C]    # beside torch's fused forms
    python benchmarks/optim_speed.py bytes            # beside what moving the bytes would take
    python benchmarks/optim_speed.py peers            # beside four packages
    python benchmarks/optim_speed.py recipe           # clip + Adam + decay + EMA in one chain
    python benchmarks/optim_speed.py first            # first steps, with and without cached kernels
    python benchmarks/optim_speed.py telemetry        # norms per tensor on and off

A: 161 tensors of ResNet-50's shapes (25.6 M parameters). B: 148 tensors of GPT-2 small's (124 M).
C: an MLP of 6 tensors and 10 thousand parameters. Everything but `fused` is on A. The bound of
`bytes` is the bytes that a step reads and writes (optimizer.explain() lists them) at the rate at
which native AdamW moves its own in the same rounds. Peers: pip install pytorch_optimizer
torch-optimi timm. Ratios below 1 mean that ours is faster, but for `peers`, where it is the
fastest peer's time over ours.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from optim_cases import (
    BARRIERS,
    FUSED,
    MORE,
    PEERS,
    WORKLOADS,
    Make,
    TorchRecipe,
    our_recipe,
    peer,
    versions,
)
from timing import interleave, ratio

from brickyard import optim
from brickyard.optim.bench import Runner, keys_of, machine, parameters
from brickyard.optim.explain import traffic

ROUNDS = {"A": 11, "B": 5, "C": 21}
TRIALS = 4


@dataclass
class Figure:
    """Hold one figure; it passes when it is at most the limit (or at least, if so)."""

    part: str
    case: str
    value: float
    limit: float
    note: str
    least: bool = False

    @property
    def passes(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit

    def line(self) -> str:
        sign = ">=" if self.least else "<="
        verdict = "ok  " if self.passes else "MISS"
        return (f"{verdict} {self.part:10s} {self.case:28s} {self.value:8.3f} "
                f"{sign} {self.limit:<5g} {self.note}")  # fmt: skip


def ready(make: Make, workload: str) -> Callable[[], float]:
    """Return a function that gives the seconds of a step; of many where one is very short."""
    optimizer = make(parameters(WORKLOADS[workload]()))
    count = 100 if workload == "C" else 1
    for _ in range(3):
        optimizer.step()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(count):
            optimizer.step()
        return (time.perf_counter() - start) / count

    return run


def race(own: Callable[[], Callable[[], float]], base: Callable[[], Callable[[], float]],
         rounds: int) -> tuple[float, float, float]:  # fmt: skip
    """Return the median ratio of two ways, and the median seconds of each.

    Where tensors happen to lie in memory changes a step's time by some percent: both are made
    anew several times, now the one first, now the other.
    """
    found: dict[str, list[float]] = {"own": [], "base": []}
    makers = [("own", own), ("base", base)]
    for _ in range(TRIALS):
        makers.reverse()
        ways = {name: make() for name, make in makers}
        for name, seconds in interleave(ways, rounds, 2).items():
            found[name] += seconds
        del ways
        gc.collect()
    medians = [statistics.median(x) for x in found.values()]
    return ratio(found, "own", "base"), medians[0], medians[1]


def against(part: str, case: str, limit: float, ours: Make, other: Make, workload: str = "A",
            rounds: int = 0) -> Figure:  # fmt: skip
    """Return the median ratio of ours over another way."""
    value, a, b = race(lambda: ready(ours, workload), lambda: ready(other, workload),
                       rounds or ROUNDS[workload])  # fmt: skip
    note = f"{a * 1e3:.3f} ms against {b * 1e3:.3f} ms"
    return Figure(part, f"{case} {workload}", value, limit, note)


def fused(chosen: argparse.Namespace) -> Iterable[Figure]:
    for workload in chosen.workloads or WORKLOADS:
        for name, (ours, other) in FUSED.items():
            limit = 0.6 if workload == "C" else 1.03
            yield against("fused", name, limit, ours, other, workload, chosen.rounds)


def recipe(chosen: argparse.Namespace) -> Iterable[Figure]:
    name = "clip > adam > decay > ema"
    yield against("recipe", name, 0.75, our_recipe, TorchRecipe, rounds=chosen.rounds)


def telemetry(chosen: argparse.Namespace) -> Iterable[Figure]:
    """Switch it on and off on one optimizer, so that both work on the same memory."""
    made = optim.AdamW(parameters(WORKLOADS["A"]()))

    def switched(on: bool) -> Callable[[], None]:
        def run() -> None:
            made.telemetry = on
            made.step()

        return run

    seconds = interleave({"on": switched(True), "off": switched(False)}, chosen.rounds or 61, 3)
    a, b = (statistics.median(x) * 1e3 for x in seconds.values())
    yield Figure("telemetry", "adamw A", ratio(seconds, "on", "off"), 1.05,
                 f"{a:.3f} ms against {b:.3f} ms")  # fmt: skip


class Case:
    """Take steps of one of ours and count their bytes."""

    def __init__(self, name: str) -> None:
        shapes = WORKLOADS["A"]()
        if name in MORE:
            self.optimizer = MORE[name](parameters(shapes))
            self.run, self.moved = self._step, self._traffic
        else:
            runner = Runner(name, "native", shapes)
            self.run, self.moved = runner.step, lambda: runner.moved() or math.nan
        for _ in range(2):
            self.run()

    def _step(self) -> float:
        start = time.perf_counter()
        self.optimizer.step()
        return time.perf_counter() - start

    def _traffic(self) -> float:
        size = sum(p.numel() for g in self.optimizer.param_groups for p in g["params"])
        return traffic(self.optimizer._engine) / size


def bytes_moved(chosen: argparse.Namespace) -> Iterable[Figure]:
    own = Case("adamw").moved()
    known = {"adamw", "adam", "sophia_h", "muon"}  # fused has Adam; both Sophias step alike
    for name in [k for k in keys_of([]) if k not in known] + list(MORE):
        if chosen.only and name not in chosen.only:
            continue
        bytes_ = Case(name).moved()
        value, a, b = race(lambda name=name: Case(name).run, lambda: Case("adamw").run,
                           chosen.rounds or 9)  # fmt: skip
        yield Figure("bytes", name, value / (bytes_ / own), 2.0 if name in BARRIERS else 1.1,
                     f"{a * 1e3:.2f} ms for {bytes_:.1f} bytes/parameter; AdamW {b * 1e3:.2f} ms "
                     f"for {own:.1f}")  # fmt: skip


def peers(chosen: argparse.Namespace) -> Iterable[Figure]:
    print("peers:", ", ".join(f"{k} {v}" for k, v in versions().items()))
    found = []
    for name, (ours, others) in PEERS.items():
        if chosen.only and name not in chosen.only:
            continue
        ways: dict[str, Callable[[], Any]] = {"ours": _spread(ours)}
        for package, kind in others.items():
            try:
                ways[package] = _spread(peer(package, kind))
            except Exception as error:
                print(f"     {name}: {package} left out: {type(error).__name__}: {error}")
        seconds = interleave(ways, chosen.rounds or 7)
        ratios = {k: ratio(seconds, k, "ours") for k in ways if k != "ours"}
        best = min(ratios, key=lambda k: ratios[k])
        found.append(ratios[best])
        times = ", ".join(f"{k} {statistics.median(v) * 1e3:.1f}" for k, v in seconds.items())
        yield Figure("peers", name, ratios[best], 1.0, f"ms: {times}", least=True)
        del ways
        gc.collect()
    if len(found) == len(PEERS):
        yield Figure("peers", "geometric mean", statistics.geometric_mean(found), 4.0,
                     "over the fastest peer of each", least=True)  # fmt: skip


def _spread(make: Make) -> Callable[[], float]:
    """Return a function that gives the mean of five steps, a period of Lookahead."""
    optimizer = make(parameters(WORKLOADS["A"]()))
    for _ in range(2):
        optimizer.step()

    def run() -> float:
        start = time.perf_counter()
        for _ in range(5):
            optimizer.step()
        return (time.perf_counter() - start) / 5

    return run


def first(chosen: argparse.Namespace) -> Iterable[Figure]:
    for name in [*keys_of([]), *MORE]:
        if chosen.only and name not in chosen.only:
            continue
        cold, warm, steps = [], [], []
        for _ in range(chosen.rounds or 3):
            with tempfile.TemporaryDirectory() as folder:
                for kept in (cold, warm):
                    took, step = _first_in_a_process(name, folder)
                    kept.append(took)
                    steps.append(step)
        # What every step takes is no cost of the first one.
        step = statistics.median(steps)
        note = f"second step {step:.3f} s"
        yield Figure("first", f"{name}, nothing cached", statistics.median(cold), 1.5, note)
        yield Figure("first", f"{name}, cached", statistics.median(warm) - step, 0.1,
                     f"{note}, which is left out")  # fmt: skip


def _first_in_a_process(name: str, folder: str) -> tuple[float, float]:
    command = [sys.executable, __file__, "one", "--only", name]
    done = subprocess.run(command, env={**os.environ, "BRICKYARD_CACHE": folder},
                          capture_output=True, text=True, check=True)  # fmt: skip
    took, step = json.loads(done.stdout.splitlines()[-1])
    return took, step


def one(chosen: argparse.Namespace) -> None:
    """Print the seconds of the first and the second step of one optimizer in this process."""
    name, shapes = chosen.only[0], WORKLOADS["A"]()
    if name in MORE:
        optimizer = MORE[name](parameters(shapes))
        run = optimizer.step
    else:
        runner = Runner(name, "native", shapes)
        run = runner.first
    times = []
    for _ in range(2):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    print(json.dumps(times))


PARTS = {"fused": fused, "bytes": bytes_moved, "peers": peers, "recipe": recipe, "first": first,
         "telemetry": telemetry}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", choices=[*PARTS, "all", "one"], nargs="?", default="all")
    parser.add_argument("workloads", nargs="*", help="of fused: A, B, C")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--only", action="append", default=[], help="a case by its name")
    parser.add_argument("--json", metavar="FILE")
    chosen = parser.parse_args()
    if chosen.part == "one":
        one(chosen)
        return 0
    print(", ".join(f"{k} {v}" for k, v in machine().items()))
    figures = []
    for name in PARTS if chosen.part == "all" else [chosen.part]:
        for figure in PARTS[name](chosen):
            figures.append(figure)
            print(figure.line(), flush=True)
            gc.collect()
    missed = [figure for figure in figures if not figure.passes]
    print(f"{len(figures) - len(missed)} of {len(figures)} within their limits")
    if chosen.json:
        found = {"machine": machine(), "peers": versions(),
                 "figures": [{**asdict(f), "passes": f.passes} for f in figures]}  # fmt: skip
        with open(chosen.json, "w", encoding="utf-8") as file:
            json.dump(found, file, indent=1)
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
