"""Every named optimizer, every option: the same weights and state on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from optimizer_cases import CASES, IDS, PAIRS

from brickyard import optim

SHAPES = ((7, 5), (6,), (3, 4, 2), (), (40, 33))


def train(name: str, options: Any, backend: str, dtype: torch.dtype) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    params = [torch.nn.Parameter(torch.randn(s, generator=generator).to(dtype)) for s in SHAPES]
    optimizer = getattr(optim, name)(params, backend=backend, **options)
    for _ in range(7):
        for p in params:
            p.grad = torch.randn(p.shape, generator=generator).to(dtype)
        optimizer.step()
    if backend == "native":
        assert "backend  native" in optimizer.explain() or name == "Adafactor"
    state = [v for p in params for k, v in sorted(optimizer.state[p].items())]
    return [p.detach() for p in params] + state


@pytest.mark.parametrize(("name", "options"), PAIRS, ids=IDS)
def test_backends_agree(name: str, options: Any) -> None:
    expected = train(name, options, "eager", torch.float32)
    for backend in ("foreach", "native"):
        for x, y in zip(train(name, options, backend, torch.float32), expected, strict=True):
            torch.testing.assert_close(x, y, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_backends_agree_in_half_precision(name: str) -> None:
    expected = train(name, {}, "eager", torch.bfloat16)
    for backend in ("foreach", "native"):
        for x, y in zip(train(name, {}, backend, torch.bfloat16), expected, strict=True):
            torch.testing.assert_close(x, y, rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("backend", ["foreach", "native"])
def test_matrices_in_any_memory_order(backend: str) -> None:
    ends = []
    for kind in ("eager", backend):
        generator = torch.Generator().manual_seed(0)
        turned = torch.nn.Parameter(torch.randn(4, 6, generator=generator).t())
        image = torch.randn(6, 3, 2, 2, generator=generator)
        last = torch.nn.Parameter(image.to(memory_format=torch.channels_last))
        optimizer = optim.Muon([turned, last], lr=0.1, backend=kind)
        for _ in range(3):
            for p in (turned, last):
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        assert not turned.is_contiguous()
        ends.append([turned.detach(), last.detach()])
    torch.testing.assert_close(ends[1], ends[0])
