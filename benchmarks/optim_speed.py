"""Time our optimizers against torch's fused ones: interleaved, medians, ratios, in one process.

    python benchmarks/optim_speed.py [A|B|C ...] [--rounds N] [--only adamw,adam]

A: 161 tensors of ResNet-50's shapes (25.6 M parameters). B: 148 tensors of GPT-2 small's shapes
(124 M). C: an MLP of 6 tensors and 10 k parameters. A ratio below 1 means that ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from brickyard import optim
from brickyard.optim import (
    chain,
    clip_by_global_norm,
    decay,
    ema_weights,
    scale_by_adam,
)

Shapes = list[tuple[int, ...]]


def resnet50() -> Shapes:
    shapes: Shapes = [(64, 3, 7, 7), (64,), (64,)]
    width_in = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            shapes += [(width, width_in, 1, 1), (width,), (width,), (width, width, 3, 3), (width,),
                       (width,), (4 * width, width, 1, 1), (4 * width,), (4 * width,)]  # fmt: skip
            if block == 0:
                shapes += [(4 * width, width_in, 1, 1), (4 * width,), (4 * width,)]
            width_in = 4 * width
    return [*shapes, (1000, 2048), (1000,)]


def gpt2() -> Shapes:
    block: Shapes = [(768,), (768,), (768, 2304), (2304,), (768, 768), (768,), (768,), (768,),
                     (768, 3072), (3072,), (3072, 768), (768,)]  # fmt: skip
    return [(50257, 768), (1024, 768), *block * 12, (768,), (768,)]


WORKLOADS: dict[str, Callable[[], Shapes]] = {
    "A": resnet50, "B": gpt2, "C": lambda: [(64, 100), (64,), (48, 64), (48,), (10, 48), (10,)],
}  # fmt: skip


def parameters(shapes: Shapes) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator) * 0.02) for s in shapes]
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator) * 0.01
    return params


class TorchRecipe:
    """torch's clip, fused AdamW and EMA, one after the other."""

    def __init__(self, params: list[torch.nn.Parameter]) -> None:
        self.params, self.average = params, [p.detach().clone() for p in params]
        self.optimizer = torch.optim.AdamW(params, fused=True)

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.params, 1e9)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_lerp_(self.average, [p.detach() for p in self.params], 1e-3)


def our_recipe(params: list[torch.nn.Parameter]) -> Any:
    made = chain(clip_by_global_norm(1e9), scale_by_adam(), decay(0.01), ema_weights(0.999))
    return optim.Optimizer(params, made, lr=1e-3)


PAIRS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "adamw": (optim.AdamW, lambda p: torch.optim.AdamW(p, fused=True)),
    "adam": (optim.Adam, lambda p: torch.optim.Adam(p, fused=True)),
    "sgd+momentum": (
        lambda p: optim.SGD(p, lr=1e-3, momentum=0.9),
        lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
    ),
    "clip+adamw+ema": (our_recipe, TorchRecipe),
    "adamw+telemetry": (lambda p: optim.AdamW(p, telemetry=True), optim.AdamW),
    "rmsprop": (optim.RMSprop, lambda p: torch.optim.RMSprop(p)),
    "lion / adamw": (optim.Lion, optim.AdamW),
    "lamb / adamw": (optim.LAMB, optim.AdamW),
    "adafactor": (optim.Adafactor, lambda p: torch.optim.Adafactor(p)),
}


def compare(shapes: Shapes, name: str, rounds: int) -> str:
    """Return one line: median times of both and the median ratio."""
    pair = [make(parameters(shapes)) for make in PAIRS[name]]
    start = time.perf_counter()
    pair[0].step()
    first = time.perf_counter() - start
    for _ in range(2):
        for optimizer in pair:
            optimizer.step()
    times: list[list[float]] = [[], []]
    for _ in range(rounds):
        for optimizer, kept in zip(pair, times, strict=True):
            start = time.perf_counter()
            optimizer.step()
            kept.append(time.perf_counter() - start)
    ours, other = (statistics.median(kept) * 1e3 for kept in times)
    ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
    return (f"{name:16s} first {first * 1e3:8.1f} ms   ours {ours:9.3f} ms   other {other:9.3f} ms"
            f"   ratio {ratio:5.2f}   best {min(times[0]) / min(times[1]):5.2f}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workloads", nargs="*", default=["A", "C"])
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--only", default="")
    chosen = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for workload in chosen.workloads:
        shapes = WORKLOADS[workload]()
        print(f"{workload}: {len(shapes)} tensors, {sum(map(_numel, shapes)):,} parameters")
        for name in chosen.only.split(",") if chosen.only else PAIRS:
            rounds = chosen.rounds or {"A": 15, "B": 5, "C": 500}[workload]
            print(" ", compare(shapes, name, rounds), flush=True)


def _numel(shape: tuple[int, ...]) -> int:
    return torch.Size(shape).numel()


if __name__ == "__main__":
    main()
