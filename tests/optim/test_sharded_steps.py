"""Every named optimizer on DTensors: two processes with shards step as one with whole tensors."""

import pytest
import torch
from optimizer_cases import CASES
from ranks import on_ranks
from torch import nn

from brickyard import optim
from brickyard.optim import Optimizer, chain, clip_by_global_norm, scale_by_adam

RANKS, STEPS = 2, 3
#: By rows with unequal and empty shards, by columns, and the same tensor everywhere.
LAYOUTS = {"rows": 0, "columns": -1, "whole": None}


def weights():
    torch.manual_seed(0)
    shapes = {"a.weight": (7, 5), "a.bias": (7,), "conv.weight": (4, 3, 2, 2), "norm.weight": (1,)}
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def gradients(step):
    torch.manual_seed(100 + step)
    return {name: torch.randn_like(w) for name, w in weights().items()}


def clipped(named):
    pieces = chain(clip_by_global_norm(0.5), scale_by_adam(), lr=0.01)
    return Optimizer(named, pieces, telemetry=True)


def builders():
    yield "chain", clipped
    for name, options in CASES.items():
        if name in ("CMAES", "LBFGS"):
            continue
        for i, one in enumerate(options):
            yield f"{name} {i}", lambda named, n=name, o=one: getattr(optim, n)(named, **o)


def trained(build, place):
    """Return weights, and norms where there are some, after a few steps."""
    named = [(name, nn.Parameter(place(w))) for name, w in weights().items()]
    optimizer = build(named)
    for step in range(STEPS):
        found = gradients(step)
        for name, p in named:
            p.grad = place(found[name])
        if getattr(optimizer, "hessian_due", False):
            optimizer.record_hessian([place(found[name].square()) for name, _ in named])
        optimizer.step()
    norms = optimizer.norms() if getattr(optimizer, "telemetry", False) else {}
    return [p.detach() for _, p in named], norms, optimizer


def job(rank, found):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor

    mesh = init_device_mesh("cpu", (RANKS,))
    for layout, dim in LAYOUTS.items():

        def place(w, dim=dim):
            cut = Replicate() if dim is None else Shard(dim % w.ndim)
            return distribute_tensor(w, mesh, [cut])

        for name, build in builders():
            whole, norms, _ = trained(build, torch.clone)
            cut, cut_norms, optimizer = trained(build, place)
            wrong = [
                float((a - b.full_tensor()).abs().max() / a.abs().max())
                for a, b in zip(whole, cut, strict=True)
            ]
            wrong += [
                abs(cut_norms[n][kind] / value - 1)
                for n, many in norms.items() for kind, value in many.items()
            ]  # fmt: skip
            plain = [
                key for row in optimizer.state.values() for key, x in row.items()
                if x.ndim and not isinstance(x, DTensor)
            ]  # fmt: skip
            found[f"{layout} {name} {rank}"] = (max(wrong), plain)


@pytest.fixture(scope="module")
def found():
    return on_ranks(job, RANKS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [name for name, _ in builders()])
def test_shards_step_as_whole_tensors(found, layout, name):
    for rank in range(RANKS):
        wrong, plain = found[f"{layout} {name} {rank}"]
        assert wrong < 2e-6
        assert not plain, "state of a DTensor must be cut like it, or every process holds all of it"
