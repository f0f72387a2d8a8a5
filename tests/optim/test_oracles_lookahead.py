"""Lookahead and Ranger: the paper's path, mid-cycle saves, and first steps that never climb."""

from __future__ import annotations

import copy
import io
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import optimizer_papers_layerwise as papers
import pytest
import torch

from brickyard import optim
from brickyard.optim import StateError

INNER: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "ours": lambda p: optim.AdamW(p, lr=0.05),
    "torch": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
}


def fill(params: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def steps(optimizer: Any, params: list[torch.nn.Parameter], seeds: range) -> None:
    for seed in seeds:
        fill(params, seed)
        optimizer.step()


def values(params: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


@pytest.mark.parametrize(("k", "alpha"), [(5, 0.5), (3, 0.8), (1, 0.25)])
def test_09_the_code_equals_the_paper(k: int, alpha: float) -> None:
    source = np.random.default_rng(5)
    w, grads = source.normal(size=4), source.normal(size=(60, 4))
    p = torch.nn.Parameter(torch.from_numpy(w.copy()))
    optimizer = optim.Lookahead(torch.optim.SGD([p], lr=0.1), k=k, alpha=alpha)
    expected, slow = papers.lookahead(w, lambda x, t: x - 0.1 * grads[t - 1], 60, k, alpha)
    for g, there in zip(grads, expected, strict=True):
        p.grad = torch.from_numpy(g.copy())
        optimizer.step()
        np.testing.assert_allclose(p.detach().numpy(), there, rtol=1e-12)
    np.testing.assert_allclose(optimizer.slow[p].numpy(), slow, rtol=1e-12)


def test_the_first_average_is_at_step_k_from_the_first_weights() -> None:
    p = torch.nn.Parameter(torch.tensor([1.0]))
    optimizer = optim.Lookahead(optim.SGD([p], lr=0.1), k=2, alpha=0.5)
    with torch.no_grad():
        p.fill_(2.0)  # weights loaded after construction are where slow weights start
    seen = []
    for _ in range(4):
        p.grad = torch.tensor([1.0])
        optimizer.step()
        seen.append(round(p.item(), 4))
    assert seen == [1.9, 1.9, 1.8, 1.8]


def test_the_piece_and_the_wrapper_are_one_method(make: Any) -> None:
    ours, wrapped = make(), make()
    piece = optim.Optimizer(
        ours, optim.chain(optim.scale_by_adam(), optim.lookahead(0.5, every=3)), lr=0.05
    )
    wrapper = optim.Lookahead(optim.Adam(wrapped, lr=0.05), k=3)
    steps(piece, ours, range(10))
    steps(wrapper, wrapped, range(10))
    torch.testing.assert_close(values(ours), values(wrapped))


@pytest.mark.parametrize("kind", INNER)
@pytest.mark.parametrize("stop", [2, 3, 5, 7])
def test_saved_and_restored_in_mid_cycle(make: Any, kind: str, stop: int) -> None:
    straight, resumed = make(), make()
    whole = optim.Lookahead(INNER[kind](straight), k=3)
    steps(whole, straight, range(10))
    first = optim.Lookahead(INNER[kind](resumed), k=3)
    steps(first, resumed, range(stop))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = optim.Lookahead(INNER[kind](resumed), k=3)
    second.load_state_dict(torch.load(file, weights_only=True))
    steps(second, resumed, range(stop, 10))
    for x, y in zip(resumed, straight, strict=True):
        assert torch.equal(x, y)
    assert second.steps == 10


@pytest.mark.parametrize("stop", [2, 4, 5])
def test_ranger_saved_and_restored_in_mid_cycle(make: Any, stop: int) -> None:
    straight, resumed = make(), make()
    options = {"lr": 0.05, "k": 4, "weight_decay": 0.1}
    steps(optim.Ranger(straight, **options), straight, range(10))
    first = optim.Ranger(resumed, **options)
    steps(first, resumed, range(stop))
    second = optim.Ranger(resumed, **options)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    steps(second, resumed, range(stop, 10))
    for x, y in zip(resumed, straight, strict=True):
        assert torch.equal(x, y)


def test_slow_weights_are_matched_by_name_and_not_shared() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    named = list(model.named_parameters())
    params = list(model.parameters())
    first = optim.Lookahead(optim.SGD(named, lr=0.1), k=3)
    steps(first, params, range(4))
    saved = first.state_dict()
    other = optim.Lookahead(optim.SGD(named[::-1], lr=0.1), k=3)
    other.load_state_dict(saved)
    for p in params:
        assert torch.equal(other.slow[p], first.slow[p])
        assert other.slow[p].data_ptr() != first.slow[p].data_ptr()
    with pytest.raises(StateError, match="no slow weights"):
        other.load_state_dict(first.inner.state_dict())
    saved["lookahead"]["slow"].pop("0.bias")
    with pytest.raises(StateError, match=r"0\.bias"):
        other.load_state_dict(saved)


def test_schedulers_groups_closures_and_copies_reach_the_inner_optimizer(make: Any) -> None:
    params, later = make(), make(seed=1)
    optimizer = optim.Lookahead(torch.optim.SGD(params, lr=0.1), k=2)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    fill(params, 0)
    assert optimizer.step(lambda: 7.0) == 7.0
    schedule.step()
    assert optimizer.inner.param_groups[0]["lr"] == 0.05
    optimizer.add_param_group({"params": later, "lr": 0.3})
    assert len(optimizer.inner.param_groups) == 2
    optimizer.zero_grad()
    assert all(p.grad is None for p in params)
    twin = copy.deepcopy(optimizer)
    assert twin.steps == 1
    assert twin.param_groups is twin.inner.param_groups
    assert set(twin.slow) == set(twin.param_groups[0]["params"])
    for bad in ({"k": 0}, {"k": 1.5}, {"alpha": 1.5}):
        with pytest.raises(ValueError, match=next(iter(bad))):
            optim.Lookahead(torch.optim.SGD(params, lr=0.1), **bad)
    with pytest.raises(TypeError, match="wraps an optimizer"):
        optim.Lookahead(params)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", INNER)
def test_steps_skipped_by_a_scaler_do_not_count(make: Any, kind: str) -> None:
    params = make()
    optimizer = optim.Lookahead(INNER[kind](params), k=2)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    scaler.scale(torch.tensor(1.0))
    for bad in (False, True, False):
        fill(params, 0)
        for p in params:
            p.grad = p.grad * scaler.get_scale()
        if bad:
            params[0].grad[0] = float("inf")
        scaler.step(optimizer)
        scaler.update()
    assert optimizer.steps == 2


def test_master_weights_are_averaged_in_full_precision() -> None:
    p = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    optimizer = optim.Lookahead(optim.SGD([p], lr=1e-4, master_weights=True), k=2)
    for _ in range(200):
        p.grad = torch.ones_like(p)
        optimizer.step()
    torch.testing.assert_close(optimizer.slow[p], torch.full((4,), 0.99), rtol=1e-5, atol=0)
    torch.testing.assert_close(optimizer.inner.state[p]["master"], optimizer.slow[p])


@pytest.mark.parametrize(("build", "k"), [
    (optim.RAdam, 99), (lambda p: optim.RAdam(p, threshold=4), 99),
    (optim.Ranger, 6), (lambda p: optim.Ranger(p, k=2, alpha=0.7), 2),
])  # fmt: skip
def test_first_steps_move_and_never_climb_on_a_convex_loss(build: Any, k: int) -> None:
    scales = torch.tensor([0.1, 1.0, 10.0])
    p = torch.nn.Parameter(torch.tensor([3.0, -2.0, 1.0]))
    optimizer = build([p])
    losses = []
    for _ in range(13):
        optimizer.zero_grad()
        loss = (scales * p**2).sum() / 2
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    # An average goes back part of the way, so it is compared with the one before.
    assert all(b < a for a, b in itertools.pairwise(losses[::k]))
    for begin in range(0, 13, k):
        cycle = losses[begin : begin + k]
        assert all(b < a for a, b in itertools.pairwise(cycle))
