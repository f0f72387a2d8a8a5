"""Clipping across processes: two gloo ranks against one process, with DDP and with DTensors."""

import math

import pytest
import torch
from ranks import on_ranks
from torch import nn

from brickyard.clip import (
    adaptive_clip,
    clip_by_global_norm,
    clip_by_layer_norm,
    clip_by_value,
)

RANKS = 2
CLIPS = {
    "global": lambda p: clip_by_global_norm(p, 0.5),
    "layer": lambda p: clip_by_layer_norm(p, 0.5),
    "value": lambda p: clip_by_value(p, 0.3),
    "units": lambda p: adaptive_clip(p, 0.1, skip="none"),
    "tensors": lambda p: adaptive_clip(p, 0.1, unitwise=False, skip="none"),
}
#: Rows over the ranks, columns over the ranks, the same on both, and a shard of unequal sizes.
LAYOUTS = {"rows": 0, "columns": 1, "whole": None}


def make():
    torch.manual_seed(0)
    weights = [torch.randn(5, 4), torch.randn(4, 3, 2), torch.randn(7), torch.randn(1)]
    grads = [torch.randn_like(w) * 3 for w in weights]
    return weights, grads


def plain(name, scale=1.0):
    params = []
    for w, g in zip(*make(), strict=True):
        params.append(nn.Parameter(w))
        params[-1].grad = g * scale
    norm = CLIPS[name](params)
    return float(norm), [p.grad for p in params]


def work(rank, results):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (RANKS,))
    for layout, dim in LAYOUTS.items():
        for name, clip in CLIPS.items():
            params = []
            for i, (w, g) in enumerate(zip(*make(), strict=True)):
                cut = [Replicate()] if dim is None else [Shard(min(dim, w.ndim - 1))]
                p = nn.Parameter(w if i == 3 else distribute_tensor(w, mesh, cut))
                p.grad = g if i == 3 else distribute_tensor(g, mesh, cut)
                params.append(p)
            norm = clip(params)
            whole = [p.grad.full_tensor() if i < 3 else p.grad for i, p in enumerate(params)]
            results[f"{layout} {name} {rank}"] = (float(norm), [g.tolist() for g in whole])
    w, g = (many[0] for many in make())
    p = nn.Parameter(distribute_tensor(w, mesh, [Replicate()]))
    p.grad = DTensor.from_local(g / RANKS, mesh, [Partial()])
    norm = float(clip_by_global_norm([p], 0.5))
    results[f"partial {rank}"] = (norm, p.grad.full_tensor().tolist())
    try:
        p.grad = DTensor.from_local(g / RANKS, mesh, [Partial()])
        clip_by_value([p], 0.1)
    except ValueError as error:
        results[f"refused {rank}"] = str(error)
    bad = distribute_tensor(torch.tensor([1.0, 2.0, 3.0, math.inf]), mesh, [Shard(0)])
    p = nn.Parameter(torch.zeros_like(bad))
    p.grad = bad
    results[f"inf {rank}"] = (float(clip_by_global_norm([p], 1.0)), bad.to_local().tolist())
    torch.manual_seed(1)
    net, x = nn.Linear(4, 3), torch.randn(2 * RANKS, 4)
    parallel = nn.parallel.DistributedDataParallel(net)
    parallel(x[2 * rank : 2 * rank + 2]).square().mean().backward()
    norm = float(clip_by_global_norm(parallel.parameters(), 0.1))
    results[f"ddp {rank}"] = (norm, [p.grad.tolist() for p in net.parameters()])


@pytest.fixture(scope="module")
def results():
    return on_ranks(work, RANKS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", CLIPS)
def test_shards_are_clipped_as_the_whole(results, name, layout):
    norm, grads = plain(name)
    for rank in range(RANKS):
        found, parts = results[f"{layout} {name} {rank}"]
        assert found == pytest.approx(norm, rel=1e-6)
        for part, grad in zip(parts, grads, strict=True):
            torch.testing.assert_close(torch.tensor(part), grad)


def test_sums_that_are_still_due_are_counted_once(results):
    g = make()[1][0]
    for rank in range(RANKS):
        norm, part = results[f"partial {rank}"]
        assert norm == pytest.approx(float(g.norm()), rel=1e-6)
        torch.testing.assert_close(torch.tensor(part), g * 0.5 / g.norm())
        assert "redistribute it first" in results[f"refused {rank}"]


def test_a_shard_that_is_not_finite_stops_both_ranks(results):
    assert results["inf 0"] == (math.inf, [1.0, 2.0])
    assert results["inf 1"] == (math.inf, [3.0, math.inf])


def test_ddp_clips_the_mean_gradient_on_both_ranks(results):
    torch.manual_seed(1)
    net, x = nn.Linear(4, 3), torch.randn(2 * RANKS, 4)
    net(x).square().mean().backward()
    norm = float(clip_by_global_norm(net.parameters(), 0.1))
    for rank in range(RANKS):
        found, grads = results[f"ddp {rank}"]
        assert found == pytest.approx(norm, rel=1e-5)
        for grad, p in zip(grads, net.parameters(), strict=True):
            torch.testing.assert_close(torch.tensor(grad), p.grad)
