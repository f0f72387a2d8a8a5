"""Sophia: real probes against known diagonals, the paper's step, and loud intervals."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import optimizer_papers as papers
import pytest
import torch
from torch import distributed
from torch.nn import functional

from brickyard import optim
from brickyard.optim import gauss_newton_bartlett, hutchinson

OPTIONS = [
    {}, {"lr": 0.03, "betas": (0.5, 0.8), "rho": 0.5, "weight_decay": 0.0, "update_interval": 1},
    {"lr": 0.01, "update_interval": 7, "eps": 0.1, "rho": 0.3, "weight_decay": 0.5},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ["SophiaG", "SophiaH"])
def test_09_the_code_equals_the_paper(name: str, options: dict[str, Any]) -> None:
    source = np.random.default_rng(5)
    w, grads, diagonals = (source.normal(size=s) for s in ((4, 3), (60, 4, 3), (60, 4, 3)))
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = getattr(optim, name)([p], **options)
    used = iter(diagonals)
    for g in grads:
        if optimizer.hessian_due:
            optimizer.record_hessian([torch.from_numpy(next(used))])
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
    defaults = {"rho": 0.01} if name == "SophiaH" else {}
    expected, state = papers.sophia(w, grads, diagonals, **{**defaults, **options})
    np.testing.assert_allclose(p.detach().numpy(), expected[-1], rtol=1e-9)
    for key, value in state.items():
        np.testing.assert_allclose(optimizer.state[p][key].numpy(), value, rtol=1e-9)


def mean_of(count: int, estimate: Any) -> list[torch.Tensor]:
    found = [estimate() for _ in range(count)]
    return [torch.stack(parts).mean(0) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("probe", ["gaussian", "rademacher"])
def test_hutchinson_finds_the_diagonal_of_a_quadratic(probe: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    a = a @ a.T
    w = torch.ones(5, dtype=torch.float64, requires_grad=True)
    found = mean_of(1500, lambda: hutchinson(w @ a @ w / 2, [w], probe, generator))
    torch.testing.assert_close(found[0], a.diagonal(), rtol=0.2, atol=0.1)


def test_rademacher_probes_are_exact_where_the_hessian_is_diagonal() -> None:
    scales = torch.tensor([3.0, -2.0, 0.0])
    w, b = torch.ones(3, requires_grad=True), torch.ones(2, requires_grad=True)
    found = hutchinson((scales * w**2).sum() / 2 + b.sum(), [w, b], "rademacher")
    torch.testing.assert_close(found, [scales, torch.zeros(2)])
    linear = hutchinson(b.sum(), [w, b])
    torch.testing.assert_close(linear, [torch.zeros(3), torch.zeros(2)])


def jacobian_diagonal(model: Any, x: torch.Tensor, curvature: Any) -> torch.Tensor:
    """Return diag(sum over samples of J'HJ) / samples of a linear model, by brute force."""
    found = torch.zeros_like(model)
    for row in x:
        outputs = row @ model
        h = curvature(outputs)
        jac = torch.autograd.functional.jacobian(lambda m, r=row: r @ m, model)
        flat = jac.reshape(len(outputs), -1)
        found += (flat.T @ h @ flat).diagonal().reshape(model.shape) / len(x)
    return found


CURVATURES = {
    "categorical": lambda z: torch.diag(z.softmax(0)) - torch.outer(z.softmax(0), z.softmax(0)),
    "bernoulli": lambda z: torch.diag(z.sigmoid() * (1 - z.sigmoid())),
    "gaussian": lambda z: torch.eye(len(z), dtype=z.dtype),
}


@pytest.mark.parametrize("likelihood", CURVATURES)
def test_gauss_newton_bartlett_finds_the_known_diagonal(likelihood: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    w = torch.randn(4, 3, generator=generator, dtype=torch.float64).requires_grad_()
    expected = jacobian_diagonal(w.detach(), x, CURVATURES[likelihood])
    found = mean_of(600, lambda: gauss_newton_bartlett(x @ w, [w], likelihood, generator))
    torch.testing.assert_close(found[0], expected, rtol=0.25, atol=0.02)


def test_the_gaussian_estimate_is_the_hessian_of_least_squares() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    found = mean_of(600, lambda: gauss_newton_bartlett(x @ w, [w], "gaussian", generator))
    torch.testing.assert_close(found[0], (x.T @ x / 8).diagonal(), rtol=0.2, atol=0.01)


def test_updates_leave_gradients_alone_and_feed_the_state() -> None:
    torch.manual_seed(0)
    model, x = torch.nn.Linear(4, 3), torch.randn(16, 4)
    for kind, call in (("SophiaG", lambda: model(x)), ("SophiaH", lambda: functional.cross_entropy(
            model(x), torch.zeros(16, dtype=torch.long)))):  # fmt: skip
        optimizer = getattr(optim, kind)(model, betas=(0.9, 0.5))
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        optimizer.update_hessian(call)
        assert all(bool((p.grad == 1).all()) for p in model.parameters())
        first = optimizer.state[model.weight]["hessian"].clone()
        assert float(first.abs().sum()) > 0
        optimizer.update_hessian(call)
        assert not torch.equal(optimizer.state[model.weight]["hessian"], first)


def test_sequence_logits_count_every_token_as_a_sample() -> None:
    w = torch.zeros(2, 3, requires_grad=True)
    x = torch.randn(4, 5, 2)
    generator = torch.Generator().manual_seed(1)
    whole = gauss_newton_bartlett(x @ w, [w], generator=generator)
    generator.manual_seed(1)
    flat = gauss_newton_bartlett((x @ w).reshape(20, 3), [w], generator=generator)
    torch.testing.assert_close(whole, flat)
    half = gauss_newton_bartlett((x @ w).bfloat16(), [w], generator=generator)
    assert half[0].dtype == torch.float32


def test_a_step_without_the_estimate_raises_also_after_a_resume() -> None:
    p = torch.nn.Parameter(torch.ones(3))
    optimizer = optim.SophiaH([p], update_interval=2)
    p.grad = torch.ones(3)
    with pytest.raises(RuntimeError, match="update_hessian"):
        optimizer.step()
    due = []
    for step in range(5):
        due.append(optimizer.hessian_due)
        if optimizer.hessian_due:
            optimizer.update_hessian(lambda: (p**4).sum())
        if step == 3:
            fresh = optim.SophiaH([p], update_interval=2)
            fresh.load_state_dict(copy.deepcopy(optimizer.state_dict()))
            optimizer = fresh
        optimizer.step()
    assert due == [True, False, True, False, True]


def test_maximize_turns_the_curvature_too() -> None:
    ends = []
    for sign in (1, -1):
        p = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
        scales = sign * torch.tensor([1.0, 4.0])
        optimizer = optim.SophiaH([p], lr=0.1, rho=1.0, maximize=sign < 0, betas=(0.5, 0.5))
        for _ in range(3):
            if optimizer.hessian_due:
                optimizer.update_hessian(lambda s=scales, q=p: (s * q**2).sum(), "rademacher")
            optimizer.zero_grad()
            (scales * p**2).sum().backward()
            optimizer.step()
        ends.append(p.detach())
    torch.testing.assert_close(ends[0], ends[1])


@pytest.mark.parametrize(("call", "message"), [
    (lambda p: optim.SophiaG([p], update_interval=0), "update_interval"),
    (lambda p: optim.SophiaG([p], betas=(0.9, 1.0)), "beta2"),
    (lambda p: optim.SophiaG([p]).record_hessian([torch.ones(2)]), "shapes"),
    (lambda p: optim.SophiaG([p]).update_hessian(lambda: p, "poisson"), "likelihood"),
    (lambda p: optim.SophiaG([p]).update_hessian(lambda: p[:1]), "2 classes"),
    (lambda p: optim.SophiaH([p]).update_hessian(lambda: p), "scalar"),
    (lambda p: optim.SophiaH([p]).update_hessian(lambda: p.sum(), "uniform"), "probe"),
])  # fmt: skip
def test_bad_values_are_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(torch.nn.Parameter(torch.ones(3)))


def test_processes_agree_on_the_mean_estimate(monkeypatch: Any) -> None:
    monkeypatch.setattr(distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(distributed, "all_reduce", lambda x: x.add_(3.0))  # the other's share
    p = torch.nn.Parameter(torch.zeros(2))
    optimizer = optim.SophiaH([p], betas=(0.9, 0.0))
    mine = torch.ones(2)
    optimizer.record_hessian([mine])
    assert optimizer.state[p]["hessian"].tolist() == [2.0, 2.0]
    assert mine.tolist() == [1.0, 1.0]
