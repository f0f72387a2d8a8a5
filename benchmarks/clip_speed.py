"""Time of our clipping beside torch's, over the tensors of a ResNet-50-like network.

    python benchmarks/clip_speed.py

"idle": the bound is not reached, so ours reads the gradients once and torch's also multiplies them
by one. "active": every step is clipped, with gradients put back in between outside of the clock.
The aim is 1.05 of torch at the most.
"""

import argparse
import sys
import time
from functools import partial

import torch
from timing import interleave, print_machine, ratio

from brickyard.clip import (
    adaptive_clip,
    clip_by_global_norm,
    clip_by_layer_norm,
    clip_by_value,
)

LIMIT = 1.05


def shapes():
    """Return the shapes of a ResNet-50: 161 tensors, 25.6 million parameters."""
    found, wide = [(64, 3, 7, 7), (64,), (64,)], 64
    for stage, blocks in enumerate((3, 4, 6, 3)):
        inner, outer = 64 * 2**stage, 256 * 2**stage
        for block in range(blocks):
            found += [(inner, wide, 1, 1), (inner,), (inner,), (inner, inner, 3, 3), (inner,),
                      (inner,), (outer, inner, 1, 1), (outer,), (outer,)]  # fmt: skip
            if block == 0:
                found += [(outer, wide, 1, 1), (outer,), (outer,)]
            wide = outer
    return [*found, (1000, 2048), (1000,)]


def timed(clip, params, grads, active):
    def run():
        if active:
            for p, g in zip(params, grads, strict=True):
                p.grad.copy_(g)
        start = time.perf_counter()
        clip()
        return time.perf_counter() - start

    return run


def agc_of_timm(params, factor=0.01, eps=1e-3):
    """Clip unit by unit as timm's adaptive_clip_grad does."""
    for p in params:
        axes = tuple(range(1, p.ndim)) if p.ndim > 1 else 0
        size = partial(torch.linalg.vector_norm, dim=axes, keepdim=True)
        limit = size(p.detach()).clamp_(min=eps).mul_(factor)
        norm = size(p.grad)
        clipped = p.grad * (limit / norm.clamp(min=1e-6))
        p.grad.copy_(torch.where(norm < limit, p.grad, clipped))


def cases(params):
    """Return our way and the other one, by name and whether gradients change."""
    norms = torch.nn.utils
    return {
        ("global norm, idle", False): (lambda: clip_by_global_norm(params, 1e6),
                                       lambda: norms.clip_grad_norm_(params, 1e6)),
        ("global norm, active", True): (lambda: clip_by_global_norm(params, 0.1),
                                        lambda: norms.clip_grad_norm_(params, 0.1)),
        ("value, active", True): (lambda: clip_by_value(params, 0.005),
                                  lambda: norms.clip_grad_value_(params, 0.005)),
        ("layers, active", True): (lambda: clip_by_layer_norm(params, 1e-3),
                                   lambda: norms.clip_grad_norm_(params, 0.1)),
        ("adaptive, active", True): (lambda: adaptive_clip(params, skip="none"),
                                     lambda: agc_of_timm(params)),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    print_machine()
    torch.manual_seed(0)
    worst = 0.0
    for label, sizes in (("resnet50", shapes()), ("mlp", [(64, 64), (64,)] * 6)):
        params = [torch.nn.Parameter(torch.randn(s) * 0.05) for s in sizes]
        grads = [torch.randn(s) * 0.01 for s in sizes]
        for p, g in zip(params, grads, strict=True):
            p.grad = g.clone()
        for (name, active), (ours, other) in cases(params).items():
            ways = {"ours": timed(ours, params, grads, active),
                    "other": timed(other, params, grads, active)}  # fmt: skip
            seconds = interleave(ways, rounds, 3)
            found = ratio(seconds, "ours", "other")
            middle = sorted(seconds["ours"])[rounds // 2] * 1e3
            print(f"{label:9} {name:20} ours {middle:7.3f} ms, ratio {found:.2f}")
            if name.startswith("global"):
                worst = max(worst, found)
    print(f"worst of the global norm: {worst:.2f} (limit {LIMIT})")
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
