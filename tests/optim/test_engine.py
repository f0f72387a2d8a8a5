"""The engine's promises, each named after what goes wrong elsewhere."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from brickyard import optim
from brickyard.optim import Optimizer, StateError, chain, clip_by_global_norm, decay, scale_by_adam


def fill(params: list[torch.nn.Parameter], seed: int = 0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for p in params:
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)


def snapshot(params: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [p.detach().clone() for p in params]


def test_gradients_are_never_changed(make: Any) -> None:
    params = make()
    fill(params)
    before = [p.grad.clone() for p in params]
    Optimizer(
        params, chain(clip_by_global_norm(0.1), scale_by_adam()), lr=0.1, maximize=True
    ).step()
    torch.testing.assert_close([p.grad for p in params], before, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["eager", "foreach", "native"])
def test_a_nonfinite_norm_skips_the_step_and_counts_nothing(make: Any, backend: str) -> None:
    params = make()
    optimizer = Optimizer(params, chain(clip_by_global_norm(1.0), scale_by_adam()), lr=0.1,
                          backend=backend)  # fmt: skip
    fill(params)
    optimizer.step()
    weights, state = snapshot(params), copy.deepcopy(optimizer.state_dict())
    params[0].grad[0, 0] = float("inf")
    optimizer.step()
    assert optimizer.last_skipped
    assert optimizer.steps == 1
    torch.testing.assert_close(snapshot(params), weights, rtol=0, atol=0)
    for k, row in optimizer.state_dict()["state"].items():
        for name, value in row.items():
            assert torch.equal(value, state["state"][k][name])


def test_a_nonfinite_norm_raises_when_asked(make: Any) -> None:
    params = make()
    params[0].grad = torch.full_like(params[0], float("nan"))
    optimizer = Optimizer(params, chain(clip_by_global_norm(1.0, on_nonfinite="error")), lr=0.1)
    with pytest.raises(optim.NonFiniteError, match="not finite"):
        optimizer.step()


def test_scaler_unscale_is_folded_in_and_skips_advance_nothing(make: Any) -> None:
    params, plain = make(), make()
    optimizer = optim.AdamW(params, lr=0.1)
    reference = optim.AdamW(plain, lr=0.1)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaler.scale(torch.tensor(1.0))
    for bad in (False, True, False):
        fill(plain)
        for p, q in zip(params, plain, strict=True):
            p.grad = q.grad * scaler.get_scale()
        if bad:
            params[1].grad[0] = float("nan")
        else:
            reference.step()
        scaler.step(optimizer)
        scaler.update()
    assert (optimizer.steps, optimizer.skipped) == (2, 1)
    torch.testing.assert_close(snapshot(params), snapshot(plain))


def test_state_is_matched_by_name_not_by_position() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
    first = optim.AdamW(model.named_parameters(), lr=0.1)
    fill(list(model.parameters()))
    first.step()
    other = optim.AdamW(list(model.named_parameters())[::-1], lr=0.1)
    other.load_state_dict(first.state_dict())
    for p in model.parameters():
        assert torch.equal(other.state[p]["exp_avg"], first.state[p]["exp_avg"])


def test_a_checkpoint_of_other_parameters_or_another_chain_raises_with_a_diff() -> None:
    first, second = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    optimizer = optim.AdamW(first.named_parameters())
    fill(list(first.parameters()))
    optimizer.step()
    saved = optimizer.state_dict()
    with pytest.raises(StateError, match=r"only in this optimizer: 0\.bias, 0\.weight"):
        optim.AdamW(second.named_parameters()).load_state_dict(saved)
    with pytest.raises(StateError, match="scale_by_lion"):
        optim.Lion(first.named_parameters()).load_state_dict(saved)
    wide = torch.nn.Linear(5, 2)
    with pytest.raises(StateError, match=r"weight: exp_avg has shape \(2, 3\)"):
        optim.AdamW(wide.named_parameters()).load_state_dict(saved)


def test_state_dict_does_not_alias_live_tensors_after_load(make: Any) -> None:
    params, others = make(), make()
    first, second = optim.Adam(params), optim.Adam(others)
    fill(params)
    fill(others)
    first.step()
    second.load_state_dict(first.state_dict())
    kept = second.state[others[0]]["exp_avg"].clone()
    first.step()
    assert torch.equal(second.state[others[0]]["exp_avg"], kept)


def test_parameters_that_start_late_count_their_own_steps(make: Any) -> None:
    ours, theirs = make(), make()
    mine, torchs = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    for step in range(6):
        for params in (ours, theirs):
            fill(params, step)
            if step < 3:
                params[1].grad = None
            if step == 4:
                params[0].grad = None
        mine.step()
        torchs.step()
    torch.testing.assert_close(snapshot(ours), snapshot(theirs), rtol=1e-5, atol=1e-6)


def test_groups_may_be_added_at_any_time(make: Any) -> None:
    params, later = make(), make(seed=1)
    optimizer = optim.AdamW(params, lr=0.1)
    fill(params)
    optimizer.step()
    optimizer.add_param_group({"params": later, "lr": 0.5, "weight_decay": 0.0})
    fill(later)
    before = snapshot(later)
    optimizer.step()
    assert float((later[0].detach() - before[0]).abs().max()) == pytest.approx(0.5, rel=1e-3)
    with pytest.raises(TypeError, match="weight_decay"):
        optimizer.add_param_group({"params": make(seed=2), "weight_deca": 0.0})
    assert len(optimizer.param_groups) == 2


def test_replaced_state_and_parameters_are_followed(make: Any) -> None:
    ours, theirs = make(), make()
    mine, torchs = optim.Adam(ours, lr=0.1), torch.optim.Adam(theirs, lr=0.1)
    for step in range(4):
        for params, optimizer in ((ours, mine), (theirs, torchs)):
            fill(params, step)
            if step == 1:
                for p in params:
                    optimizer.state[p]["exp_avg"] = optimizer.state[p]["exp_avg"] * 2
            if step == 2:
                params[0].data = params[0].data.clone() + 1
            if step == 3:
                optimizer.state.clear()
            optimizer.step()
    torch.testing.assert_close(snapshot(ours), snapshot(theirs), rtol=1e-5, atol=1e-6)


def test_sparse_and_complex_are_refused_with_advice() -> None:
    embedding = torch.nn.Embedding(4, 2, sparse=True)
    embedding(torch.tensor([1])).sum().backward()
    with pytest.raises(TypeError, match="sparse=False"):
        optim.Adam(embedding.parameters()).step()
    with pytest.raises(TypeError, match="view_as_real"):
        optim.Adam([torch.nn.Parameter(torch.ones(2, dtype=torch.complex64))])


def test_master_weights_take_steps_that_bf16_would_lose() -> None:
    for master, moves in ((True, True), (False, False)):
        p = torch.nn.Parameter(torch.ones(8, dtype=torch.bfloat16))
        optimizer = optim.SGD([p], lr=1e-4, master_weights=master)
        for _ in range(100):
            p.grad = torch.ones_like(p)
            optimizer.step()
        assert bool((p < 1).all()) is moves


def test_any_hyperparameter_may_be_a_schedule(make: Any) -> None:
    params, plain = make(), make()
    optimizer = Optimizer(
        params,
        chain(scale_by_adam(beta1=lambda k: 0.5 + 0.1 * k), decay(lambda k: 0.1 * k)),
        lr=lambda k: 0.1 / (k + 1),
    )
    reference = optim.AdamW(plain)
    for k in range(3):
        fill(params, k)
        fill(plain, k)
        reference.param_groups[0].update(lr=0.1 / (k + 1), betas=(0.5 + 0.1 * k, 0.999),
                                         weight_decay=0.1 * k)  # fmt: skip
        optimizer.step()
        reference.step()
    torch.testing.assert_close(snapshot(params), snapshot(plain))


def test_hooks_schedulers_closures_and_copies_work(make: Any) -> None:
    params = make()
    optimizer = optim.SGD(params, lr=0.1)
    seen = []
    optimizer.register_step_pre_hook(lambda *a: seen.append("pre"))
    optimizer.register_step_post_hook(lambda *a: seen.append("post"))
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    fill(params)
    assert optimizer.step(lambda: torch.tensor(3.0)) == 3.0
    schedule.step()
    assert seen == ["pre", "post"]
    assert optimizer.param_groups[0]["lr"] == 0.05
    twin = copy.deepcopy(optimizer)
    assert twin.param_groups[0]["lr"] == 0.05
    assert twin.steps == 1


@pytest.mark.parametrize(("build", "message"), [
    (lambda p: optim.AdamW(p, lr=-1.0), "lr must be 0 or more"),
    (lambda p: optim.AdamW(p, betas=(1.0, 0.9)), "beta1"),
    (lambda p: optim.AdamW(p, backend="cuda"), "backend"),
    (lambda p: chain(decay(0.1), scale_by_adam()), "decay stands before"),
    (lambda p: Optimizer(p, chain(decay(0.1, where="*.weight")), lr=0.1), "have none"),
    (lambda p: optim.SGD(p, nesterov=True), "nesterov needs momentum"),
])  # fmt: skip
def test_bad_values_are_refused(make: Any, build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build(make())


def test_a_pattern_that_matches_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="matches none"):
        Optimizer(torch.nn.Linear(2, 2), chain(decay(0.1, where="head.*")), lr=0.1)
