"""torch.compile over the same graph: the same numbers, and nothing is compiled twice."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from brickyard import optim
from brickyard.optim import Optimizer, adaptive_clip, chain, clip_by_global_norm
from brickyard.optim.backends import compiled

SHAPES = ((5, 4), (3,))


def adamw(params: Any, backend: str) -> Optimizer:
    return optim.AdamW(params, lr=0.1, telemetry=True, backend=backend)


def clipped(params: Any, backend: str) -> Optimizer:
    """Return a chain of every kind of barrier but a matrix operation."""
    pieces = chain(
        clip_by_global_norm(0.5), adaptive_clip(0.1),
        optim.scale_by_factored_rms(where="matrices"), optim.clip_by_rms(0.5),
    )  # fmt: skip
    return Optimizer(params, pieces, lr=0.1, backend=backend)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("make", [adamw, clipped])
def test_compiled_agrees_and_a_new_rate_compiles_nothing(make: Any) -> None:
    found = {}
    for backend in ("eager", "compiled"):
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in SHAPES]
        optimizer = make(params, backend)
        for step in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.param_groups[0]["lr"] = 0.1 / (step + 1)
            with torch.compiler.set_stance("fail_on_recompile" if step else "default"):
                optimizer.step()
        assert {bucket.run.name for bucket in optimizer._engine.buckets} == {backend}
        norms = optimizer.norms() if optimizer.telemetry else {}
        found[backend] = [p.detach() for p in params], norms
    torch.testing.assert_close(found["compiled"][0], found["eager"][0])
    for name, norms in found["eager"][1].items():
        assert found["compiled"][1][name] == pytest.approx(norms, rel=1e-5)


def test_where_compiling_fails_foreach_runs_and_says_so(monkeypatch: Any) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        def run(*_: Any) -> Any:
            raise RuntimeError("no compiler")

        return run

    monkeypatch.setattr(compiled.torch, "compile", broken)
    p = torch.nn.Parameter(torch.ones(3))
    p.grad = torch.ones(3)
    optimizer = optim.SGD([p], lr=0.5, backend="compiled")
    with pytest.warns(UserWarning, match="no compiler"):
        optimizer.step()
    assert p.tolist() == [0.5] * 3
    assert "foreach (torch.compile failed: RuntimeError)" in optimizer.explain()
